import CColumns
import Catalog
import Runtime

/// The owning side of a gathering exchange: keeps rows until the watermark has passed them, sorts them, finds the group of
/// each row's key, and hands them to a subclass, which makes other rows of them.
class GatherTask: KeyedTask {
  /// Rows of one part that have not been released: ascending row numbers.
  private struct Waiting {
    var input: Int
    var partition: Int
    var rows: OrderedRows
    var remaining: [Int32]
    var firstTime: Int64
  }

  /// A row whose turn has come.
  struct Due {
    var time: Int64
    /// Of a source's row; of another how many came before it.
    var offset: Int64
    var partition: Int32
    /// Where it is. Rows wait at least until all that are due have been processed.
    var rows: Unmanaged<OrderedRows>
    var row: Int32
    var input: Int32
    /// Of its key in the subclass's table; -1 for a key with a null in it.
    var group: Int32
  }

  let definition: GatherExchange
  let context: TaskContext
  let emitters: [GatherEmitter]
  private var waiting: [Waiting] = []
  private(set) var due: [Due] = []
  private var arrivals: Int64 = 0
  private var keys = KeyColumns()
  private var rowsTaken: [Int32] = []
  private var hashesTaken: NativeArray<UInt64>
  private var groupsTaken: NativeArray<Int32>
  /// Ends of windows of which something is missing.
  private var skipped: [Int64] = []
  /// Everything before has been handed on.
  private(set) var advancedTo = beforeAllTime

  init(_ definition: GatherExchange, _ context: TaskContext) {
    self.definition = definition
    self.context = context
    emitters = definition.outputs.map { GatherEmitter($0, context) }
    hashesTaken = NativeArray()
    groupsTaken = NativeArray()
    super.init()
  }

  // MARK: What a subclass does

  /// The table in which groups of keys are numbered; for this task alone to change.
  func keyTable() -> GroupTable { preconditionFailure("a subclass has a table of keys") }
  /// Takes the rows of `due`, in their order: none earlier comes later.
  func process() {}
  /// Every row before `watermark` has been processed. Ends with nothing waiting in the emitters.
  func settle(before watermark: Int64) {}
  /// A window of an input was not evaluated: what lies before `end` of its rows is missing. Said before the rows of this turn are
  /// processed.
  func inputWillLack(_ end: Int64) {}
  /// The same, said when they have been, and everything before the watermark is settled.
  func inputSkipped(_ end: Int64) {}

  // MARK: Rows

  override func accept(_ pane: PanePartial, partition: Int) {
    guard let pane = pane as? RowsPane, let rows = pane.parts[context.shard] else { return }
    wait(rows, input: pane.input, partition: partition)
  }

  override func accept(_ rows: RowsChunk) {
    if let end = rows.skippedEnd {
      if !skipped.contains(end) { skipped.append(end) }
      return
    }
    // Copied: what waits here may be stored, and goes by the order in which it came.
    let batch = rows.batch
    let input = definition.inputs[rows.input]
    let count = batch.rowCount
    let hashes = NativeArray<UInt64>(repeating: 0, count: count)
    keys.bind(batch, slots: input.keys)
    keys.hashRows(batch.all.rows, count: count, into: hashes.base)
    let offsets = NativeArray<Int64>(repeating: 0, count: count)
    for row in 0..<count {
      offsets[row] = arrivals
      arrivals += 1
    }
    let all = (0..<Int32(count)).map { $0 }
    wait(
      OrderedRows.copy(
        all, of: batch, slots: Array(input.carried.indices), types: input.types, hashes: hashes, offsets: offsets),
      input: rows.input, partition: 0)
  }

  private func wait(_ rows: OrderedRows, input: Int, partition: Int) {
    let count = rows.batch.rowCount
    guard count > 0 else { return }
    var first = Int64.max
    for row in 0..<count { first = min(first, rows.batch.times[row]) }
    waiting.append(
      Waiting(
        input: input, partition: partition, rows: rows, remaining: (0..<Int32(count)).map { $0 }, firstTime: first))
  }

  override func advance(to watermark: Int64) {
    due.removeAll(keepingCapacity: true)
    let skippedNow = skipped.isEmpty ? [] : skipped.filter { $0 <= watermark }.sorted()
    for end in skippedNow { inputWillLack(end) }
    for part in waiting.indices where waiting[part].firstTime < watermark { take(part, before: watermark) }
    if !due.isEmpty {
      sortDue()
      process()
    }
    settle(before: watermark)
    for emitter in emitters { precondition(emitter.isEmpty, "rows wait behind a watermark") }
    for end in skippedNow { inputSkipped(end) }
    skipped.removeAll { $0 <= watermark }
    waiting.removeAll { $0.remaining.isEmpty }
    due.removeAll(keepingCapacity: true)
    advancedTo = max(advancedTo, watermark)
  }

  private func sortDue() {
    let isOrdered = due.withUnsafeBufferPointer { due in
      for index in 1..<max(due.count, 1) where index < due.count && precedes(due[index], due[index - 1]) { return false }
      return true
    }
    if !isOrdered { due.sort { precedes($0, $1) } }
  }

  @inline(__always)
  private func precedes(_ a: Due, _ b: Due) -> Bool {
    if a.time != b.time { return a.time < b.time }
    if a.input != b.input { return a.input < b.input }
    return precedesAtOneTime(a, b)
  }

  private func precedesAtOneTime(_ a: Due, _ b: Due) -> Bool {
    if let order = definition.inputs[Int(a.input)].order {
      for column in order {
        let x = a.rows._withUnsafeGuaranteedRef { $0.columns[column] }
        let y = b.rows._withUnsafeGuaranteedRef { $0.columns[column] }
        let compared = compareValues(x, Int(a.row), y, Int(b.row))
        if compared != 0 { return compared < 0 }
      }
    } else if a.partition != b.partition {
      return a.partition < b.partition
    }
    return a.offset < b.offset
  }

  private func take(_ part: Int, before watermark: Int64) {
    let rows = waiting[part].rows
    let times = rows.batch.times
    let input = definition.inputs[waiting[part].input]
    rowsTaken.removeAll(keepingCapacity: true)
    hashesTaken.removeAll()
    var left: [Int32] = []
    var firstLeft = afterAllTime
    let first = due.count
    for row in waiting[part].remaining {
      let time = times[Int(row)]
      guard time < watermark else {
        left.append(row)
        firstLeft = min(firstLeft, time)
        continue
      }
      rowsTaken.append(row)
      hashesTaken.append(rows.hashes[Int(row)])
      due.append(
        Due(
          time: time, offset: rows.offsets[Int(row)], partition: Int32(truncatingIfNeeded: waiting[part].partition),
          rows: Unmanaged.passUnretained(rows), row: row, input: Int32(truncatingIfNeeded: waiting[part].input), group: -1))
    }
    waiting[part].remaining = left
    waiting[part].firstTime = firstLeft
    keys.bind(rows.batch, slots: input.keys)
    groupsTaken.grow(to: rowsTaken.count, filling: 0)
    rowsTaken.withUnsafeBufferPointer { taken in
      guard let base = taken.baseAddress else { return }
      keyTable().assign(keys, rows: base, hashes: hashesTaken.base, count: taken.count, groups: groupsTaken.base)
    }
    for index in rowsTaken.indices { due[first + index].group = groupsTaken[index] }
    for key in input.keys where rows.batch.columns[key].hasNulls {
      let validity = rows.batch.columns[key].validity
      for index in rowsTaken.indices where validity[Int(rowsTaken[index])] == 0 { due[first + index].group = -1 }
    }
  }

  /// Rows that wait, for `/metrics`.
  var waitingBytes: Int { waiting.reduce(0) { $0 + $1.rows.bytes } }

  // MARK: State

  /// Rows that wait, as a capture keeps them.
  func captureWaiting() -> [GatherStoredInput] {
    definition.inputs.enumerated().map { number, input in
      GatherStoredInput(
        definition: input.stored,
        selected: waiting.filter { $0.input == number }.map {
          OrderedCoding.Selected(partition: $0.partition, rows: $0.rows, remaining: $0.remaining)
        }, partitionNames: input.order == nil ? context.partitionNames : ["rows"])
    }
  }

  func encodeTimes(into writer: StateWriter) {
    writer.append(advancedTo)
    writer.append(UInt32(skipped.count))
    for end in skipped.sorted() { writer.append(end) }
  }

  func restoreWaiting(from reader: inout StateReader, scope: KeyScope) throws {
    advancedTo = max(advancedTo, try reader.anyTime())
    let count = Int(try reader.integer(UInt32.self))
    for _ in 0..<count {
      let end = try reader.time()
      if !skipped.contains(end) { skipped.append(end) }
    }
    for (number, input) in definition.inputs.enumerated() {
      let names = input.order == nil ? context.partitionNames : ["rows"]
      for (partition, rows) in try OrderedCoding.read(input.stored, partitionNames: names, from: &reader) {
        guard let mine = rows.part(in: scope, input) else { continue }
        for row in 0..<mine.batch.rowCount { arrivals = max(arrivals, mine.offsets[row] + 1) }
        wait(mine, input: number, partition: partition)
      }
    }
  }

  /// The times and the waiting rows of now, to be written on another thread.
  func captureRows() -> GatherCapture {
    let writer = StateWriter()
    encodeTimes(into: writer)
    return GatherCapture(times: writer.bytes, inputs: captureWaiting())
  }

  override func neededSince(watermark: Int64) -> Int64 {
    var needed = watermark
    for emitter in emitters {
      // An evaluation stands one behind the rows that it looks at.
      if let hold = emitter.rows.holdSince { needed = min(needed, hold - 1) }
    }
    return needed <= reachNanos ? 0 : needed - reachNanos
  }

  /// How far back before a row's time the rows reach that it is made of.
  var reachNanos: Int64 { definition.inputs.map(\.reachNanos).max() ?? 0 }
}

extension OrderedRows {
  /// The rows whose keys are in `scope`; nil when there are none.
  func part(in scope: KeyScope, _ input: GatherInput) -> OrderedRows? {
    let mine = (0..<Int32(batch.rowCount)).filter { scope.owns(hashes[Int($0)]) }
    guard !mine.isEmpty else { return nil }
    return OrderedRows.copy(
      mine, of: batch, slots: Array(input.carried.indices), types: input.types, hashes: hashes, offsets: offsets)
  }
}

/// Rows of one input as they are stored.
struct GatherStoredInput: Sendable {
  var definition: OrderedExchange
  var selected: [OrderedCoding.Selected]
  var partitionNames: [String]

  func encode(into writer: StateWriter) {
    OrderedCoding.encode(selected, definition, partitionNames: partitionNames, into: writer)
  }
}

/// What every gathering operator keeps.
struct GatherCapture: Sendable {
  var times: [UInt8]
  var inputs: [GatherStoredInput]

  func encode(into writer: StateWriter) {
    times.withUnsafeBytes { writer.append(raw: $0) }
    for input in inputs { input.encode(into: writer) }
  }
}

/// Rows that an operator makes, batch by batch, on their way to who takes them.
final class GatherEmitter {
  let rows: RowTask
  let batch: Batch
  init(_ output: GatherOutput, _ context: TaskContext) {
    rows = output.rows.makeTask(context)
    batch = Batch(types: output.columnTypes, computed: output.computedSlots, capacity: context.batchRows)
  }

  var isEmpty: Bool { batch.rowCount == 0 }
  var isFull: Bool { batch.rowCount == batch.capacity }

  /// Passes on what is there. Texts that the batch points to must have lived until now.
  func flush() {
    guard batch.rowCount > 0 else { return }
    rows.process(batch, batch.all)
    batch.rowCount = 0
    for column in batch.columns where column.capacity > 0 { column.hasNulls = false }
  }
}
