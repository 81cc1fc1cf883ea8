import Catalog
import Runtime

/// `min(x)`
enum Minimum: AggregateFunction {
  static let spec = extremeSpec("min", "The smallest value; null when no row has one.")
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState {
    argument?.physical == .int64 ? IntExtremeState(wantsMax: false) : DoubleExtremeState(wantsMax: false)
  }
}

/// `max(x)`
enum Maximum: AggregateFunction {
  static let spec = extremeSpec("max", "The largest value; null when no row has one.")
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState {
    argument?.physical == .int64 ? IntExtremeState(wantsMax: true) : DoubleExtremeState(wantsMax: true)
  }
}

private func extremeSpec(_ name: String, _ summary: String) -> AggregateFunctionSpec {
  AggregateFunctionSpec(
    name: name, summary: summary, takesValue: true,
    signature: { type in
      guard let type else { return .mismatch("needs a value, such as `latency`") }
      guard numericTypes.contains(type) || type == .timestamp else {
        return .mismatch("takes a number or a timestamp, not a \(type.rawValue)")
      }
      return .result(type)
    }, mayBeNull: true, state: "9 bytes a key", example: "\(name)(latency)")
}

/// Extremes of ints and timestamps.
private final class IntExtremeState: AggregateState {
  private var values = NativeArray<Int64>()
  private var present = NativeArray<UInt8>()
  private let wantsMax: Bool
  init(wantsMax: Bool) { self.wantsMax = wantsMax }

  override func ensure(groups count: Int) {
    values.grow(to: count, filling: wantsMax ? .min : .max)
    present.grow(to: count, filling: 0)
  }

  override func update(
    _ column: Column?, times: UnsafePointer<Int64>, rows: UnsafePointer<Int32>,
    groups: UnsafePointer<Int32>, count: Int
  ) {
    guard let column else { return }
    let source = column.ints
    let base = values.base
    let flags = present.base
    if wantsMax {
      forEachPresent(column, rows, groups, count) { row, group in
        base[group] = max(base[group], source[row])
        flags[group] = 1
      }
    } else {
      forEachPresent(column, rows, groups, count) { row, group in
        base[group] = min(base[group], source[row])
        flags[group] = 1
      }
    }
  }

  override func merge(
    _ other: AggregateState, sources: UnsafePointer<Int32>, targets: UnsafePointer<Int32>, count: Int
  ) {
    let other = unsafeDowncast(other, to: IntExtremeState.self)
    for index in 0..<count {
      let source = Int(sources[index])
      let target = Int(targets[index])
      let value = other.values[source]
      values[target] = wantsMax ? max(values[target], value) : min(values[target], value)
      present[target] |= other.present[source]
    }
  }

  override func finish(
    _ groups: UnsafePointer<Int32>, count: Int, constants: [Value], windowNanos: Int64,
    into column: Column
  ) {
    column.hasNulls = false
    for row in 0..<count {
      let group = Int(groups[row])
      column.ints[row] = values[group]
      column.validity[row] = present[group]
      if present[group] == 0 { column.hasNulls = true }
    }
  }

  override var bytes: Int { values.count * 9 }
}

/// Extremes of doubles. A column never holds NaN, so an infinity stands for "nothing yet" until `present` says more.
private final class DoubleExtremeState: AggregateState {
  private var values = NativeArray<Double>()
  private var present = NativeArray<UInt8>()
  private let wantsMax: Bool
  init(wantsMax: Bool) { self.wantsMax = wantsMax }

  override func ensure(groups count: Int) {
    values.grow(to: count, filling: wantsMax ? -.infinity : .infinity)
    present.grow(to: count, filling: 0)
  }

  override func update(
    _ column: Column?, times: UnsafePointer<Int64>, rows: UnsafePointer<Int32>,
    groups: UnsafePointer<Int32>, count: Int
  ) {
    guard let column else { return }
    let source = column.doubles
    let base = values.base
    let flags = present.base
    if wantsMax {
      forEachPresent(column, rows, groups, count) { row, group in
        if source[row] > base[group] { base[group] = source[row] }
        flags[group] = 1
      }
    } else {
      forEachPresent(column, rows, groups, count) { row, group in
        if source[row] < base[group] { base[group] = source[row] }
        flags[group] = 1
      }
    }
  }

  override func merge(
    _ other: AggregateState, sources: UnsafePointer<Int32>, targets: UnsafePointer<Int32>, count: Int
  ) {
    let other = unsafeDowncast(other, to: DoubleExtremeState.self)
    for index in 0..<count {
      let source = Int(sources[index])
      let target = Int(targets[index])
      let value = other.values[source]
      if wantsMax ? value > values[target] : value < values[target] { values[target] = value }
      present[target] |= other.present[source]
    }
  }

  override func finish(
    _ groups: UnsafePointer<Int32>, count: Int, constants: [Value], windowNanos: Int64,
    into column: Column
  ) {
    column.hasNulls = false
    for row in 0..<count {
      let group = Int(groups[row])
      column.doubles[row] = values[group]
      column.validity[row] = present[group]
      if present[group] == 0 { column.hasNulls = true }
    }
  }

  override var bytes: Int { values.count * 9 }
}
