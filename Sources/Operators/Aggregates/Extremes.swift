import Catalog
import Runtime

/// `min(x)`
enum Minimum: AggregateFunction {
  static let spec = extremeSpec("min", "The smallest value; null when no row has one.")
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState {
    argument?.physical == .int64
      ? ExtremeState<Int64>(wantsMax: false, start: .max)
      : ExtremeState<Double>(wantsMax: false, start: .infinity)
  }
}

/// `max(x)`
enum Maximum: AggregateFunction {
  static let spec = extremeSpec("max", "The largest value; null when no row has one.")
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState {
    argument?.physical == .int64
      ? ExtremeState<Int64>(wantsMax: true, start: .min)
      : ExtremeState<Double>(wantsMax: true, start: -.infinity)
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

/// Extremes of one stored type. A column never holds NaN, so values are totally ordered; `present` tells a group that has
/// seen none from one whose extreme is the starting value.
///
/// A generic class is called through its vtable, which holds unspecialised methods: those with a loop over rows are
/// specialised by name.
private final class ExtremeState<Stored: Comparable & BitwiseCopyable>: AggregateState {
  private var values = NativeArray<Stored>()
  private var present = NativeArray<UInt8>()
  private let wantsMax: Bool
  /// What every value of the type beats or equals.
  private let start: Stored

  init(wantsMax: Bool, start: Stored) {
    self.wantsMax = wantsMax
    self.start = start
  }

  override func ensure(groups count: Int) {
    values.grow(to: count, filling: start)
    present.grow(to: count, filling: 0)
  }

  @_specialize(where Stored == Int64)
  @_specialize(where Stored == Double)
  override func update(
    _ column: Column?, times: UnsafePointer<Int64>, rows: UnsafePointer<Int32>,
    groups: UnsafePointer<Int32>, count: Int
  ) {
    guard let column else { return }
    let source = column.raw.assumingMemoryBound(to: Stored.self)
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

  @_specialize(where Stored == Int64)
  @_specialize(where Stored == Double)
  override func merge(
    _ other: AggregateState, sources: UnsafePointer<Int32>, targets: UnsafePointer<Int32>, count: Int
  ) {
    let other = unsafeDowncast(other, to: ExtremeState<Stored>.self)
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
    let target = column.raw.assumingMemoryBound(to: Stored.self)
    for row in 0..<count {
      let group = Int(groups[row])
      target[row] = values[group]
      column.validity[row] = present[group]
      if present[group] == 0 { column.hasNulls = true }
    }
  }

  override var bytes: Int { values.count * 9 }

  /// 16 and 17: least and greatest int; 18 and 19: least and greatest double.
  override var kind: UInt8 { (Stored.self == Int64.self ? 16 : 18) + (wantsMax ? 1 : 0) }
  override func copy() -> AggregateState {
    let copy = ExtremeState(wantsMax: wantsMax, start: start)
    copy.values = NativeArray(copying: values)
    copy.present = NativeArray(copying: present)
    return copy
  }
  override func encode(into writer: StateWriter) {
    writer.append(values)
    writer.append(present)
  }
  override func restore(from reader: inout StateReader, groups: Int) throws(StateCorruption) {
    values = try reader.array(of: Stored.self, groups: groups)
    // Only NaN differs from itself.
    for group in 0..<groups where values[group] != values[group] {
      throw StateCorruption("an extreme of the state is no number")
    }
    present = try reader.flags(groups: groups)
  }
}
