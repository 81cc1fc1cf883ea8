import CColumns
import Catalog
import Runtime

/// The owning side of an ordered exchange: keeps rows until the watermark has passed them, sorts them by (time, partition,
/// offset), finds the state of each row's key, and lets the operator go through them.
final class OrderedTask: KeyedTask, StatefulTask {
  /// Rows of one part that have not been released: ascending.
  private struct Waiting {
    var partition: Int
    var rows: OrderedRows
    var remaining: [Int32]
    var firstTime: Int64
  }
  private struct Due {
    var time: Int64
    var offset: Int64
    var partition: Int32
    var part: Int32
    var row: Int32
  }

  private let definition: OrderedExchange
  private let context: TaskContext
  private let operation: OrderedOperatorTask?
  private let rows: RowTask
  private let batch: Batch
  private var waiting: [Waiting] = []
  private var due: [Due] = []
  /// Where the rows at hand are.
  private var sources: ContiguousArray<(rows: Unmanaged<OrderedRows>, row: Int)> = []
  private var keys = KeyColumns()
  private let hashes: UnsafeMutablePointer<UInt64>
  private let groups: UnsafeMutablePointer<Int32>
  private var table: GroupTable
  private var states: ContiguousArray<OrderedState> = []
  private var stateCalls: ContiguousArray<Unmanaged<OrderedState>> = []
  /// By group: whether a capture shares the state.
  private var isShared: ContiguousArray<Bool> = []
  private var isTableShared = false
  private let holds = CaptureHolds()

  init(_ definition: OrderedExchange, _ context: TaskContext) {
    self.definition = definition
    self.context = context
    operation = definition.operation?.makeTask(batchRows: context.batchRows)
    rows = definition.rows.makeTask(context)
    batch = Batch(types: definition.columnTypes, computed: definition.computedSlots, capacity: context.batchRows)
    hashes = .allocate(capacity: context.batchRows)
    hashes.initialize(repeating: 0, count: context.batchRows)
    groups = .allocate(capacity: context.batchRows)
    groups.initialize(repeating: 0, count: context.batchRows)
    table = GroupTable(keyTypes: definition.keyTypes)
    super.init()
    context.register(stateful: self)
  }

  deinit {
    hashes.deallocate()
    groups.deallocate()
  }

  override func accept(_ pane: PanePartial, partition: Int) {
    guard let pane = pane as? RowsPane, let rows = pane.parts[context.shard] else { return }
    wait(rows, partition)
  }

  private func wait(_ rows: OrderedRows, _ partition: Int) {
    let count = rows.batch.rowCount
    guard count > 0 else { return }
    var first = rows.batch.times[0]
    for row in 1..<max(count, 1) where row < count { first = min(first, rows.batch.times[row]) }
    waiting.append(
      Waiting(partition: partition, rows: rows, remaining: (0..<Int32(count)).map { $0 }, firstTime: first))
  }

  override func advance(to watermark: Int64) {
    due.removeAll(keepingCapacity: true)
    for part in waiting.indices where waiting[part].firstTime < watermark { take(part, before: watermark) }
    guard !due.isEmpty else { return }
    if !due.indices.dropFirst().allSatisfy({ !Self.precedes(due[$0], due[$0 - 1]) }) { due.sort(by: Self.precedes) }
    var next = 0
    while next < due.count {
      let count = min(due.count - next, batch.capacity)
      release(next..<next + count)
      next += count
    }
    waiting.removeAll { $0.remaining.isEmpty }
  }

  private static func precedes(_ a: Due, _ b: Due) -> Bool {
    if a.time != b.time { return a.time < b.time }
    if a.partition != b.partition { return a.partition < b.partition }
    return a.offset < b.offset
  }

  private func take(_ part: Int, before watermark: Int64) {
    let rows = waiting[part].rows
    let times = rows.batch.times
    var left: [Int32] = []
    var firstLeft = afterAllTime
    for row in waiting[part].remaining {
      let time = times[Int(row)]
      if time < watermark {
        due.append(
          Due(
            time: time, offset: rows.offsets[Int(row)], partition: Int32(truncatingIfNeeded: waiting[part].partition),
            part: Int32(truncatingIfNeeded: part), row: row))
      } else {
        left.append(row)
        firstLeft = min(firstLeft, time)
      }
    }
    waiting[part].remaining = left
    waiting[part].firstTime = firstLeft
  }

  /// Brings rows together in one batch, and passes it on.
  private func release(_ range: Range<Int>) {
    sources.removeAll(keepingCapacity: true)
    for place in range {
      sources.append((Unmanaged.passUnretained(waiting[Int(due[place].part)].rows), Int(due[place].row)))
    }
    let width = definition.carried.count
    sources.withUnsafeBufferPointer { sources in
      for column in 0..<width {
        batch.columns[column].fill(range.count) { index in
          (sources[index].rows._withUnsafeGuaranteedRef { $0.columns[column] }, sources[index].row)
        }
      }
    }
    let partitions = batch.columns[width]
    let offsets = batch.columns[width + 1]
    for (index, place) in range.enumerated() {
      batch.times[index] = due[place].time
      partitions.ints[index] = Int64(due[place].partition)
      offsets.ints[index] = due[place].offset
      hashes[index] = sources[index].rows._withUnsafeGuaranteedRef { $0.hashes[sources[index].row] }
    }
    batch.rowCount = range.count
    if let operation {
      findStates(range.count, operation)
      stateCalls.withUnsafeBufferPointer { states in
        guard let base = states.baseAddress else { return }
        operation.process(batch, firstOutput: width + 2, groups: groups, states: base)
      }
    }
    rows.process(batch, batch.all)
  }

  /// The state of each row's key, made where there is none, and for this task alone while a capture is being read.
  private func findStates(_ count: Int, _ operation: OrderedOperatorTask) {
    if isTableShared {
      if holds.isHeld { table = Self.copy(of: table) }
      isTableShared = false
    }
    keys.bind(batch, slots: definition.keys)
    table.assign(keys, rows: batch.all.rows, hashes: hashes, count: count, groups: groups)
    while states.count < table.count { append(operation.makeState()) }
    for index in 0..<count {
      let group = Int(groups[index])
      guard isShared[group] else { continue }
      if holds.isHeld {
        states[group] = states[group].copy()
        stateCalls[group] = Unmanaged.passUnretained(states[group])
      }
      isShared[group] = false
    }
  }

  private func append(_ state: OrderedState) {
    states.append(state)
    stateCalls.append(Unmanaged.passUnretained(state))
    isShared.append(false)
  }

  private static func copy(of table: GroupTable) -> GroupTable {
    let copy = GroupTable(keyTypes: table.keyTypes, expectedGroups: table.count)
    for group in 0..<table.count { _ = copy.assign(group: group, of: table) }
    return copy
  }

  override var stateSize: (keys: Int, bytes: Int) {
    let kept = states.reduce(0) { $0 + $1.bytes } + waiting.reduce(0) { $0 + $1.rows.bytes }
    let behind = rows.stateSize
    return (max(table.count, behind.keys), table.bytes + kept + behind.bytes)
  }

  // MARK: State

  var operatorID: String { definition.operatorID }

  /// Nothing is learnt of rows that were not seen; what comes is taken as it comes.
  func start(missingBefore time: Int64) {}

  func capture() -> (any StateCapture)? {
    for group in isShared.indices { isShared[group] = true }
    isTableShared = true
    return OrderedCapture(
      table: table, states: Array(states),
      selected: waiting.map {
        OrderedCoding.Selected(partition: $0.partition, rows: $0.rows, remaining: $0.remaining)
      }, definition: definition, partitionNames: context.partitionNames, hold: CaptureHold(holds))
  }

  func restore(from reader: inout StateReader, scope: KeyScope) throws {
    try reader.expect(version: OrderedCapture.version, of: "an ordered operator")
    let stored = try GroupTable(keyTypes: definition.keyTypes, from: &reader)
    for group in 0..<stored.count {
      let bytes = try reader.counted()
      guard let operation else { throw StateCorruption("the state holds keys of an operator that is not there") }
      guard scope.owns(stored.hash(of: group)) else { continue }
      guard table.assign(group: group, of: stored) == states.count else {
        throw StateCorruption("two parts of the state hold one key")
      }
      var inner = StateReader(bytes)
      append(try operation.restoreState(from: &inner))
      guard inner.isAtEnd else { throw StateCorruption("the state of a key has bytes behind it") }
    }
    for (partition, rows) in try OrderedCoding.read(
      definition, partitionNames: context.partitionNames, from: &reader)
    {
      let mine = (0..<Int32(rows.batch.rowCount)).filter { scope.owns(rows.hashes[Int($0)]) }
      guard !mine.isEmpty else { continue }
      let types = definition.carried.map(\.type)
      wait(
        OrderedRows.copy(
          mine, of: rows.batch, slots: Array(types.indices), types: types, hashes: rows.hashes, offsets: rows.offsets),
        partition)
    }
    guard reader.isAtEnd else { throw StateCorruption("the state of an ordered operator has bytes behind it") }
  }
}

private struct OrderedCapture: StateCapture, @unchecked Sendable {
  // @unchecked: the table and the states are not changed while the hold is not released.
  static let version: UInt16 = 1
  let table: GroupTable
  let states: [OrderedState]
  let selected: [OrderedCoding.Selected]
  let definition: OrderedExchange
  let partitionNames: [String]
  let hold: CaptureHold

  var keyCount: Int { table.count }

  func encode(into writer: StateWriter) {
    writer.append(Self.version)
    table.encode(into: writer)
    for state in states {
      let inner = StateWriter()
      state.encode(into: inner)
      writer.append(inner.bytes)
    }
    OrderedCoding.encode(selected, definition, partitionNames: partitionNames, into: writer)
    hold.release()
  }
}
