/// Whether calls of an aggregate that differ in their constants alone can share one state.
public func sharesStateAcrossConstants(_ function: String) -> Bool {
  aggregateFunctions[function]?.sharesStateAcrossConstants ?? false
}

/// What an aggregate keeps, for `explain`.
public func stateDescription(ofAggregate function: String) -> String {
  aggregateFunctions[function]?.spec.state ?? ""
}
