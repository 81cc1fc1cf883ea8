import Catalog
import Runtime

/// `increase(x)`
enum Increase: AggregateFunction {
  static let spec = AggregateFunctionSpec(
    name: "increase",
    summary:
      "How much a counter grew; a fall is a reset, after which it counts from 0. Group by everything that tells one counter from another, then sum in a second window.",
    takesValue: true, signature: overNumbers { $0 == .int || $0 == .ratio ? .float : $0 },
    mayBeNull: true, state: "24 bytes a sample in an open window, 24 bytes a key",
    example: "increase(retries)")
  /// A sample counts as the one before a window's first if it is at most this much older: a window, or 5 minutes as
  /// Prometheus looks back.
  static func lookbackNanos(windowNanos: Int64) -> Int64 { max(windowNanos, 300_000_000_000) }
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState {
    IncreaseState()
  }
}

/// Growth of counters by group.
///
/// While a pane is open its samples are kept, because they may arrive out of order and from several partitions; `seal`
/// puts them in order of time, adds up what the counter gained since the sample before, and forgets them. The unlike of
/// Prometheus' `increase` is that nothing is extrapolated to the window's edges: windows of one counter add up exactly.
final class IncreaseState: AggregateState {
  private struct Sample: BitwiseCopyable {
    var time: Int64
    var value: Double
    var group: Int32
  }
  private struct Growth: BitwiseCopyable {
    var amount = 0.0
    var isPresent = false
  }
  private var samples = NativeArray<Sample>()
  private var growths = NativeArray<Growth>()

  override func ensure(groups count: Int) { growths.grow(to: count, filling: Growth()) }

  override func update(
    _ column: Column?, times: UnsafePointer<Int64>, rows: UnsafePointer<Int32>,
    groups: UnsafePointer<Int32>, count: Int
  ) {
    guard let column else { return }
    if column.type == .int64 {
      let values = column.ints
      forEachPresent(column, rows, groups, count) { row, group in
        samples.append(Sample(time: times[row], value: Double(values[row]), group: Int32(group)))
      }
    } else {
      let values = column.doubles
      forEachPresent(column, rows, groups, count) { row, group in
        samples.append(Sample(time: times[row], value: values[row], group: Int32(group)))
      }
    }
  }

  override func merge(
    _ other: AggregateState, sources: UnsafePointer<Int32>, targets: UnsafePointer<Int32>, count: Int
  ) {
    let other = unsafeDowncast(other, to: IncreaseState.self)
    if other.samples.count > 0 {
      var targetOf = [Int32](repeating: -1, count: other.growths.count)
      for index in 0..<count { targetOf[Int(sources[index])] = targets[index] }
      for index in 0..<other.samples.count {
        var sample = other.samples[index]
        sample.group = targetOf[Int(sample.group)]
        // A group that another shard owns.
        if sample.group >= 0 { samples.append(sample) }
      }
    }
    for index in 0..<count {
      let theirs = other.growths[Int(sources[index])]
      guard theirs.isPresent else { continue }
      growths.base[Int(targets[index])].amount += theirs.amount
      growths.base[Int(targets[index])].isPresent = true
    }
  }

  override func makeCarry(keyTypes: [PhysicalType], windowNanos: Int64) -> AggregateCarry? {
    IncreaseCarry(keyTypes: keyTypes, lookback: Increase.lookbackNanos(windowNanos: windowNanos))
  }

  override func seal(_ table: GroupTable, carry: AggregateCarry?) {
    guard let carry = carry as? IncreaseCarry, samples.count > 0 else { return }
    var order = Array(0..<samples.count)
    order.sort { a, b in
      let x = samples[a]
      let y = samples[b]
      if x.group != y.group { return x.group < y.group }
      return x.time != y.time ? x.time < y.time : a < b
    }
    var latest: Int64 = 0
    var position = 0
    while position < order.count {
      let group = samples[order[position]].group
      let slot = carry.slot(of: Int(group), in: table)
      while position < order.count, samples[order[position]].group == group {
        let sample = samples[order[position]]
        if let gained = carry.gain(slot, time: sample.time, value: sample.value) {
          growths.base[Int(group)].amount += gained
        }
        growths.base[Int(group)].isPresent = true
        latest = max(latest, sample.time)
        position += 1
      }
    }
    samples = NativeArray()
    carry.forget(before: latest)
  }

  override func finish(
    _ groups: UnsafePointer<Int32>, count: Int, constants: [Value], windowNanos: Int64,
    into column: Column
  ) {
    column.hasNulls = false
    for row in 0..<count {
      let growth = growths[Int(groups[row])]
      column.doubles[row] = growth.amount
      column.validity[row] = growth.isPresent ? 1 : 0
      if !growth.isPresent { column.hasNulls = true }
    }
  }

  override var bytes: Int { samples.count * 24 + growths.count * 16 }

  override var kind: UInt8 { 5 }

  override func copy() -> AggregateState {
    let copy = IncreaseState()
    copy.samples = NativeArray(copying: samples)
    copy.growths = NativeArray(copying: growths)
    return copy
  }

  override func encode(into writer: StateWriter) {
    let amounts = NativeArray<Double>(repeating: 0, count: growths.count)
    let flags = NativeArray<UInt8>(repeating: 0, count: growths.count)
    for group in 0..<growths.count {
      amounts[group] = growths[group].amount
      flags[group] = growths[group].isPresent ? 1 : 0
    }
    writer.append(amounts)
    writer.append(flags)
    let groups = NativeArray<Int32>(repeating: 0, count: samples.count)
    let times = NativeArray<Int64>(repeating: 0, count: samples.count)
    let values = NativeArray<Double>(repeating: 0, count: samples.count)
    for index in 0..<samples.count {
      groups[index] = samples[index].group
      times[index] = samples[index].time
      values[index] = samples[index].value
    }
    writer.append(groups)
    writer.append(times)
    writer.append(values)
  }

  override func restore(from reader: inout StateReader, groups: Int) throws(StateCorruption) {
    let amounts = try reader.array(of: Double.self, groups: groups)
    let flags = try reader.flags(groups: groups)
    growths = NativeArray(repeating: Growth(), count: groups)
    for group in 0..<groups { growths[group] = Growth(amount: amounts[group], isPresent: flags[group] != 0) }
    let places = try reader.array(of: Int32.self)
    let times = try reader.array(of: Int64.self, groups: places.count)
    let values = try reader.array(of: Double.self, groups: places.count)
    for index in 0..<places.count {
      guard places[index] >= 0, places[index] < groups, storedTimes.contains(times[index]) else {
        throw StateCorruption("a sample of the state belongs nowhere")
      }
      samples.append(Sample(time: times[index], value: values[index], group: places[index]))
    }
  }
}

/// The last sample of each counter.
private final class IncreaseCarry: AggregateCarry {
  private struct Last: BitwiseCopyable {
    var time = beforeAllTime
    var value = 0.0
  }
  private var table: GroupTable
  private var last = NativeArray<Last>()
  private let lookback: Int64

  init(keyTypes: [PhysicalType], lookback: Int64) {
    table = GroupTable(keyTypes: keyTypes)
    self.lookback = lookback
  }

  func slot(of group: Int, in other: GroupTable) -> Int {
    let slot = table.assign(group: group, of: other)
    last.grow(to: table.count, filling: Last())
    return slot
  }

  /// What the counter gained since its last sample; nil for the first one, or the first after a long gap.
  func gain(_ slot: Int, time: Int64, value: Double) -> Double? {
    let before = last[slot]
    last[slot] = Last(time: time, value: value)
    guard before.time != beforeAllTime, time - before.time <= lookback else { return nil }
    return value >= before.value ? value - before.value : value
  }

  /// Drops counters that have not been seen for the look-back, once they are most of the table.
  func forget(before now: Int64) {
    guard table.count > 1_024 else { return }
    var live: [Int] = []
    for slot in 0..<table.count where now - last[slot].time <= lookback { live.append(slot) }
    guard live.count * 2 < table.count else { return }
    let kept = GroupTable(keyTypes: table.keyTypes, expectedGroups: live.count)
    var values = NativeArray<Last>()
    for slot in live {
      _ = kept.assign(group: slot, of: table)
      values.append(last[slot])
    }
    table = kept
    last = values
  }

  override var bytes: Int { table.bytes + last.count * MemoryLayout<Last>.stride }

  override func copy() -> AggregateCarry {
    let copy = IncreaseCarry(keyTypes: table.keyTypes, lookback: lookback)
    copy.table = GroupTable(copying: table)
    copy.last = NativeArray(copying: last)
    return copy
  }

  override func encode(into writer: StateWriter) {
    table.encode(into: writer)
    writer.append(last)
  }

  override func restore(from reader: inout StateReader, scope: KeyScope) throws(StateCorruption) {
    let stored = try GroupTable(keyTypes: table.keyTypes, from: &reader)
    let samples = try reader.array(of: Last.self, groups: stored.count)
    for group in 0..<stored.count {
      let time = samples[group].time
      guard time == beforeAllTime || storedTimes.contains(time) else {
        throw StateCorruption("a sample of the state is of no time")
      }
      guard scope.owns(stored.hash(of: group)) else { continue }
      last[slot(of: group, in: stored)] = samples[group]
    }
  }
}
