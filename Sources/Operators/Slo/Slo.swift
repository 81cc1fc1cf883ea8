import CColumns
import Catalog
import Runtime

/// `slo`: keeps, for each key, how many events were good and bad, and tells at the end of each step how much of the error
/// budget is left and how fast it burns (Google's SRE workbook, chapter 5). Stands behind windows as long as a step.
///
/// What it counts are whole events, or 1024ths of one where amounts are floats: sums of whole numbers are the same in whatever
/// order they are added and taken away.
public struct Slo: RowTaskDefinition {
  /// What a row of the windows says.
  public struct Measure: Sendable, Hashable {
    /// A bool without `total`, otherwise a number: the good part of it, or the bad one.
    public var slot: Int
    /// Nil where each row counts as one.
    public var total: Int?
    public var isBad: Bool
    /// Whether all amounts are whole numbers.
    public var isWhole: Bool
    public init(slot: Int, total: Int?, isBad: Bool, isWhole: Bool) {
      self.slot = slot
      self.total = total
      self.isBad = isBad
      self.isWhole = isWhole
    }
  }

  public var name: String
  /// See `StatefulTask.operatorID`.
  public var operatorID: String
  /// Of the rows that come in, in the order of the windows' keys.
  public var keySlots: [Int]
  public var keyTypes: [PhysicalType]
  public var measure: Measure
  /// The share of events that may be bad, above 0.
  public var budget: Double
  public var period: SloPeriod
  /// Between two evaluations.
  public var stepNanos: Int64
  /// Ascending, none twice.
  public var burnWindows: [Int64]
  /// A key has rows until this window of it is empty.
  public var idleNanos: Int64
  public var exhaustionNanos: Int64
  /// Columns of its rows behind the keys.
  public var outputs: [SloColumn]
  public var computedSlots: [PhysicalType]
  public var rows: RowSet

  public init(
    name: String, operatorID: String, keySlots: [Int], keyTypes: [PhysicalType], measure: Measure, budget: Double,
    period: SloPeriod, stepNanos: Int64, burnWindows: [Int64], idleNanos: Int64, exhaustionNanos: Int64,
    outputs: [SloColumn], computedSlots: [PhysicalType], rows: RowSet
  ) {
    self.name = name
    self.operatorID = operatorID
    self.keySlots = keySlots
    self.keyTypes = keyTypes
    self.measure = measure
    self.budget = budget
    self.period = period
    self.stepNanos = stepNanos
    self.burnWindows = burnWindows
    self.idleNanos = idleNanos
    self.exhaustionNanos = exhaustionNanos
    self.outputs = outputs
    self.computedSlots = computedSlots
    self.rows = rows
  }

  public func makeTask(_ context: TaskContext) -> RowTask { SloTask(self, context) }
}

final class SloTask: RowTask {
  let definition: Slo
  let history: SloHistory
  private let rows: RowTask
  private let batch: Batch
  private var keys = KeyColumns()
  private let hashes: NativeArray<UInt64>
  private let groups: NativeArray<Int32>
  private let shown: NativeArray<Int32>
  /// By output.
  private let windowOf: [Int]
  private let idleWindow: Int
  private let exhaustionWindow: Int
  /// Units of an event.
  private let scale: Double

  /// Of amounts that are no whole numbers; a power of two, so that they are scaled without a loss.
  static let fractionScale = 1_024.0
  /// Most that a row may count, in units: with `SloLimits` no sum of a period leaves 64 bits.
  static let amountMax = Double(Int64(1) << 43)

  init(_ definition: Slo, _ context: TaskContext) {
    self.definition = definition
    history = SloHistory(definition)
    rows = definition.rows.makeTask(context)
    let types = definition.keyTypes + definition.outputs.map(\.type.physical)
    batch = Batch(types: types, computed: definition.computedSlots, capacity: context.batchRows)
    hashes = NativeArray(repeating: 0, count: context.batchRows)
    groups = NativeArray(repeating: 0, count: context.batchRows)
    shown = NativeArray(repeating: 0, count: context.batchRows)
    func window(_ nanos: Int64) -> Int { definition.burnWindows.firstIndex(of: nanos) ?? 0 }
    windowOf = definition.outputs.map { output in
      switch output {
      case .burn(let nanos), .events(let nanos): window(nanos)
      case .good, .total, .errorRatio, .budgetLeft, .exhaustsIn, .since, .periodLeft: 0
      }
    }
    idleWindow = window(definition.idleNanos)
    exhaustionWindow = window(definition.exhaustionNanos)
    scale = definition.measure.isWhole ? 1 : Self.fractionScale
    super.init()
    context.register(stateful: self)
  }

  override var stateSize: (keys: Int, bytes: Int) {
    let behind = rows.stateSize
    return (max(history.table.count, behind.keys), history.bytes + behind.bytes)
  }

  override var isQuiet: Bool { history.isBurnEmpty && rows.isQuiet }

  /// Rows of all steps in its longest burn window; for an evaluation that something behind depends on, those before it.
  override var holdSince: Int64? {
    let own = history.firstEnd
    let behind = rows.holdSince.map { $0 - history.longestNanos + definition.stepNanos }
    guard let own, let behind else { return own ?? behind }
    return min(own, behind)
  }

  // MARK: Rows in

  override func process(_ batch: Batch, _ selection: Selection) {
    guard selection.count > 0 else { return }
    keys.bind(batch, slots: definition.keySlots)
    keys.hashRows(selection.rows, count: selection.count, into: hashes.base)
    history.table.assign(
      keys, rows: selection.rows, hashes: hashes.base, count: selection.count, groups: groups.base)
    history.groupsAdded()
    let measure = batch.columns[definition.measure.slot]
    let total = definition.measure.total.map { batch.columns[$0] }
    let isBad = definition.measure.isBad
    for index in 0..<selection.count {
      let row = Int(selection.rows[index])
      let group = Int(groups[index])
      guard let total else {
        let holds = measure.bools[row] != 0 && (!measure.hasNulls || measure.validity[row] != 0)
        history.add(group, total: 1, bad: holds == isBad ? 1 : 0)
        continue
      }
      // An amount that is not known says nothing.
      if measure.hasNulls, measure.validity[row] == 0 { continue }
      if total.hasNulls, total.validity[row] == 0 { continue }
      let all = amount(total, row)
      let part = min(amount(measure, row), all)
      history.add(group, total: all, bad: isBad ? part : all - part)
    }
  }

  @inline(__always)
  private func amount(_ column: Column, _ row: Int) -> Int64 {
    let value = column.type == .int64 ? Double(column.ints[row]) : column.doubles[row]
    // Not NaN: columns hold none.
    return Int64(min(max(value * scale, 0), Self.amountMax).rounded())
  }

  // MARK: Evaluation

  override func windowEnded(_ end: Int64) {
    history.evaluate(end)
    emit(end)
    rows.windowEnded(end)
    history.compact()
  }

  override func windowSkipped(_ end: Int64) { rows.windowSkipped(end) }
  override func inputEnded() { rows.inputEnded() }

  /// Rows of all keys that had events within `idleNanos`, by key.
  private func emit(_ end: Int64) {
    var count = 0
    for position in 0..<history.order.count {
      let group = history.order[position]
      if history.total(idleWindow, Int(group)) == 0 { continue }
      shown[count] = group
      count += 1
      if count == batch.capacity {
        write(count, end)
        count = 0
      }
    }
    if count > 0 { write(count, end) }
  }

  private func write(_ count: Int, _ end: Int64) {
    let table = history.table
    for column in definition.keyTypes.indices {
      table.writeKey(column, of: shown.base, count: count, to: batch.columns[column])
    }
    for (index, output) in definition.outputs.enumerated() {
      write(output, windowOf[index], count, end, to: batch.columns[definition.keyTypes.count + index])
    }
    batch.times.update(repeating: end - 1, count: count)
    batch.rowCount = count
    rows.process(batch, batch.all)
  }

  private func write(_ output: SloColumn, _ window: Int, _ count: Int, _ end: Int64, to column: Column) {
    column.hasNulls = false
    switch output {
    case .good:
      for row in 0..<count {
        let group = Int(shown[row])
        column.doubles[row] = Double(history.budgetTotal(group) - history.budgetBad(group)) / scale
      }
    case .total:
      for row in 0..<count { column.doubles[row] = Double(history.budgetTotal(Int(shown[row]))) / scale }
    case .events:
      for row in 0..<count { column.doubles[row] = Double(history.total(window, Int(shown[row]))) / scale }
    case .since:
      for row in 0..<count { column.ints[row] = history.since(Int(shown[row])) }
    case .periodLeft:
      let left = history.calendarEnd.map { Double($0 - end) } ?? 0
      for row in 0..<count { column.doubles[row] = left }
    case .errorRatio:
      for row in 0..<count {
        let group = Int(shown[row])
        column.set(row, Self.ratio(history.budgetBad(group), Double(history.budgetTotal(group))))
      }
    case .burn:
      for row in 0..<count { column.set(row, burn(window, Int(shown[row]))) }
    case .budgetLeft:
      for row in 0..<count { column.set(row, budgetLeft(Int(shown[row]), end)) }
    case .exhaustsIn:
      for row in 0..<count { column.set(row, exhaustsIn(Int(shown[row]), end)) }
    }
  }

  private static func ratio(_ bad: Int64, _ total: Double) -> Double? { total > 0 ? Double(bad) / total : nil }

  /// 1 spends the budget in exactly the period.
  private func burn(_ window: Int, _ group: Int) -> Double? {
    Self.ratio(history.bad(window, group), Double(history.total(window, group)) * definition.budget)
  }

  /// A rolling budget is that of the events there were. One of a calendar period is that of the whole period, to which the
  /// events so far are projected: at its begin nothing is spent, however little has come.
  private func budgetLeft(_ group: Int, _ end: Int64) -> Double? {
    guard let burnt = Self.ratio(history.budgetBad(group), Double(history.budgetTotal(group)) * definition.budget) else {
      return nil
    }
    return 1 - burnt * history.elapsedShare(end)
  }

  /// Nanoseconds.
  private func exhaustsIn(_ group: Int, _ end: Int64) -> Double? {
    guard let burn = burn(exhaustionWindow, group), burn > 0, let left = budgetLeft(group, end) else { return nil }
    return max(0, left) * history.periodNanos / burn
  }
}

extension Column {
  /// Writes a double or null.
  fileprivate func set(_ row: Int, _ value: Double?) {
    validity[row] = value == nil ? 0 : 1
    if value == nil { hasNulls = true }
    doubles[row] = value ?? 0
  }
}
