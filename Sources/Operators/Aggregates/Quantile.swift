import Catalog
import Runtime

/// `quantile(x, q)`
enum Quantile: AggregateFunction {
  static let spec = AggregateFunctionSpec(
    name: "quantile",
    summary:
      "The value of rank ceil(q·n) among the window's values, to within 1 % of it; null when no row has one.",
    takesValue: true, constants: ["q"], signature: overNumbers { $0 == .int ? .float : $0 },
    validateConstant: { _, value in
      guard let number = value.number, value.type?.isDimensionless == true else {
        return "must be a number from 0 to 1"
      }
      return (0...1).contains(number) ? nil : "must lie between 0 and 1; the 99th percentile is 0.99"
    }, mayBeNull: true, state: "up to 16 KiB a key (DDSketch, 1 % relative error)",
    example: "quantile(latency, 0.99)")
  static let sharesStateAcrossConstants = true
  static func makeState(argument: ValueType?, constants: [Value]) -> AggregateState {
    QuantileState()
  }
}

/// DDSketches by group: positive values, negative ones mirrored, and a count of zeros.
final class QuantileState: AggregateState {
  private var positive = BinStore()
  /// Made when the first value below zero comes: latencies never have one.
  private var negative: BinStoreBox?
  private var zeros = NativeArray<Int64>()

  private final class BinStoreBox {
    var store = BinStore()
  }

  override func ensure(groups count: Int) {
    zeros.grow(to: count, filling: 0)
    positive.ensure(groups: count)
    negative?.store.ensure(groups: count)
  }

  override func update(
    _ column: Column?, times: UnsafePointer<Int64>, rows: UnsafePointer<Int32>,
    groups: UnsafePointer<Int32>, count: Int
  ) {
    guard let column else { return }
    if column.type == .int64 {
      let values = column.ints
      forEachPresent(column, rows, groups, count) { add(Double(values[$0]), $1) }
    } else {
      let values = column.doubles
      forEachPresent(column, rows, groups, count) { add(values[$0], $1) }
    }
  }

  @inline(__always)
  private func add(_ value: Double, _ group: Int) {
    if value >= SketchMapping.smallest {
      positive.add(SketchMapping.bin(value), to: group)
    } else if value <= -SketchMapping.smallest {
      addNegative(-value, group)
    } else {
      zeros[group] &+= 1
    }
  }

  private func addNegative(_ magnitude: Double, _ group: Int) {
    if negative == nil { makeNegative() }
    negative?.store.add(SketchMapping.bin(magnitude), to: group)
  }

  private func makeNegative() {
    let box = BinStoreBox()
    box.store.ensure(groups: zeros.count)
    negative = box
  }

  override func merge(
    _ other: AggregateState, sources: UnsafePointer<Int32>, targets: UnsafePointer<Int32>, count: Int
  ) {
    let other = unsafeDowncast(other, to: QuantileState.self)
    if other.negative != nil, negative == nil { makeNegative() }
    for index in 0..<count {
      let source = Int(sources[index])
      let target = Int(targets[index])
      zeros[target] &+= other.zeros[source]
      positive.merge(other.positive, from: source, to: target)
      if let theirs = other.negative { negative?.store.merge(theirs.store, from: source, to: target) }
    }
  }

  override func finish(
    _ groups: UnsafePointer<Int32>, count: Int, constants: [Value], windowNanos: Int64,
    into column: Column
  ) {
    column.hasNulls = false
    let q = constants.first?.number ?? 0.5
    for row in 0..<count {
      let value = quantile(q, of: Int(groups[row]))
      column.doubles[row] = value ?? 0
      column.validity[row] = value == nil ? 0 : 1
      if value == nil { column.hasNulls = true }
    }
  }

  private func quantile(_ q: Double, of group: Int) -> Double? {
    let below = negative?.store.total(group) ?? 0
    let zero = zeros[group]
    let total = below + zero + positive.total(group)
    guard total > 0 else { return nil }
    // Rank from 1, as SQL's percentile_disc: the smallest value with at least q of all values at or below it.
    let rank = min(max(Int64((q * Double(total)).rounded(.up)), 1), total)
    if rank <= below {
      // The mirrored store counts from the largest magnitude.
      let bin = negative?.store.bin(atRank: below - rank + 1, of: group) ?? 0
      return -SketchMapping.value(bin)
    }
    if rank <= below + zero { return 0 }
    return SketchMapping.value(positive.bin(atRank: rank - below - zero, of: group))
  }

  override var bytes: Int { zeros.count * 8 + positive.bytes + (negative?.store.bytes ?? 0) }

  override var kind: UInt8 { 6 }

  override func copy() -> AggregateState {
    let copy = QuantileState()
    copy.zeros = NativeArray(copying: zeros)
    copy.positive = BinStore(copying: positive)
    if let negative {
      let box = BinStoreBox()
      box.store = BinStore(copying: negative.store)
      copy.negative = box
    }
    return copy
  }

  override func encode(into writer: StateWriter) {
    writer.append(zeros)
    positive.encode(into: writer)
    writer.append(negative != nil)
    negative?.store.encode(into: writer)
  }

  override func restore(from reader: inout StateReader, groups: Int) throws(StateCorruption) {
    zeros = try reader.array(of: Int64.self, groups: groups)
    for group in 0..<groups where zeros[group] < 0 || zeros[group] > storedCountMax {
      throw StateCorruption("a count of the state is \(zeros[group])")
    }
    positive = try BinStore(from: &reader, groups: groups)
    guard try reader.bool() else { return }
    let box = BinStoreBox()
    box.store = try BinStore(from: &reader, groups: groups)
    negative = box
  }
}
