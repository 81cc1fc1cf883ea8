import CColumns
import Catalog
import Runtime

/// Sends each row to the branch whose constant its column equals: one lookup a row for any number of branches.
///
/// Rows are counted by branch, laid out branch behind branch (a stable counting sort), and every branch that has rows is
/// called once with its stretch.
final class DispatchTask: RowTask {
  private let slot: Int
  private let type: PhysicalType
  private let branches: ContiguousArray<RowTask>
  /// Constants of the branches, in a table like any group's: group id = branch number.
  private var table: BranchTable
  private let branchOfRow: UnsafeMutablePointer<Int32>
  private let sorted: UnsafeMutablePointer<Int32>
  private var starts: [Int32]
  private var touched: [Int32] = []
  /// While aggregates are missing: the branches that need them; empty at all other times.
  private var lacking: [Bool] = []

  init(_ definition: RowSet.Dispatch, _ context: TaskContext) {
    slot = definition.slot
    type = definition.type.physical
    branches = ContiguousArray(definition.branches.map { $0.rows.makeTask(context) })
    table = BranchTable(definition.branches.map(\.value), type: type)
    branchOfRow = .allocate(capacity: context.batchRows)
    branchOfRow.initialize(repeating: -1, count: context.batchRows)
    sorted = .allocate(capacity: context.batchRows)
    sorted.initialize(repeating: 0, count: context.batchRows)
    starts = Array(repeating: 0, count: branches.count)
  }

  deinit {
    branchOfRow.deallocate()
    sorted.deallocate()
  }

  override func process(_ batch: Batch, _ selection: Selection) {
    let column = batch.columns[slot]
    touched.removeAll(keepingCapacity: true)
    starts.withUnsafeMutableBufferPointer { counts in
      for index in 0..<selection.count {
        let row = Int(selection.rows[index])
        let branch = column.hasNulls && column.validity[row] == 0 ? -1 : table.find(column, row)
        branchOfRow[index] = branch
        guard branch >= 0 else { continue }
        if counts[Int(branch)] == 0 { touched.append(branch) }
        counts[Int(branch)] += 1
      }
      var position: Int32 = 0
      for branch in touched {
        let count = counts[Int(branch)]
        counts[Int(branch)] = position
        position += count
      }
      for index in 0..<selection.count {
        let branch = Int(branchOfRow[index])
        guard branch >= 0 else { continue }
        sorted[Int(counts[branch])] = selection.rows[index]
        counts[branch] += 1
      }
    }
    var start = 0
    for branch in touched {
      // After the scatter a branch's counter stands at its end.
      let end = Int(starts[Int(branch)])
      starts[Int(branch)] = 0
      defer { start = end }
      if !lacking.isEmpty, lacking[Int(branch)] { continue }
      branches[Int(branch)].process(
        batch, Selection(rows: sorted + start, count: end - start, isDense: false))
    }
  }

  override func lack(_ slots: Set<Int>) -> Bool {
    let needing = branches.map { $0.lack(slots) }
    lacking = slots.isEmpty ? [] : needing
    return !slots.isEmpty && (slots.contains(slot) || needing.allSatisfy { $0 })
  }

  override func windowEnded(_ end: Int64) {
    for (index, branch) in branches.enumerated() {
      if !lacking.isEmpty, lacking[index] { branch.windowSkipped(end) } else { branch.windowEnded(end) }
    }
  }
  override func windowSkipped(_ end: Int64) { for branch in branches { branch.windowSkipped(end) } }
  override func inputEnded() { for branch in branches { branch.inputEnded() } }
  override var stateSize: (keys: Int, bytes: Int) {
    branches.reduce((0, 0)) { sum, branch in
      let size = branch.stateSize
      return (max(sum.0, size.keys), sum.1 + size.bytes)
    }
  }
  override var isQuiet: Bool { branches.allSatisfy(\.isQuiet) }
  override var holdSince: Int64? { branches.compactMap(\.holdSince).min() }
}

/// Open-addressing map from a constant to its branch number; at most a quarter full, so a miss costs one probe as a rule.
private struct BranchTable: ~Copyable {
  private let type: PhysicalType
  private let mask: Int
  private let slots: NativeArray<Int32>
  private let words: NativeArray<UInt64>
  private let strings: NativeArray<rd_string>
  private var arena = ByteArena()

  init(_ values: [Value], type: PhysicalType) {
    self.type = type
    var capacity = 16
    while capacity < values.count * 4 { capacity *= 2 }
    mask = capacity - 1
    slots = NativeArray(repeating: -1, count: capacity)
    words = NativeArray(repeating: 0, count: values.count)
    strings = NativeArray(repeating: rd_string(), count: values.count)
    for (index, value) in values.enumerated() {
      let hash: UInt64
      switch value {
      case .string(let text):
        strings[index] = arena.intern(text)
        hash = UInt64(strings[index].hash)
      case .bool(let flag):
        words[index] = flag ? 1 : 0
        hash = rd_hash_word(words[index])
      case .int(let number), .timestamp(let number):
        words[index] = UInt64(bitPattern: number)
        hash = rd_hash_word(words[index])
      default:
        let number = value.number ?? 0
        words[index] = number == 0 ? 0 : number.bitPattern
        hash = rd_hash_word(words[index])
      }
      var slot = Int(truncatingIfNeeded: hash) & mask
      while slots[slot] >= 0 { slot = (slot + 1) & mask }
      slots[slot] = Int32(index)
    }
  }

  /// The branch of a row that is not null, or -1.
  @inline(__always)
  func find(_ column: Column, _ row: Int) -> Int32 {
    if type == .string {
      let value = column.strings[row]
      let hash = value.hash != 0 ? value.hash : rd_hash_bytes(value.data, value.length)
      var slot = Int(hash) & mask
      while true {
        let branch = slots.base[slot]
        if branch < 0 { return -1 }
        let candidate = strings.base[Int(branch)]
        if candidate.hash == hash, rd_string_equal(candidate, value) != 0 { return branch }
        slot = (slot + 1) & mask
      }
    }
    let word: UInt64
    switch type {
    case .int64: word = UInt64(bitPattern: column.ints[row])
    case .float64:
      let number = column.doubles[row]
      word = number == 0 ? 0 : number.bitPattern
    case .bool, .string: word = UInt64(column.bools[row])
    }
    var slot = Int(truncatingIfNeeded: rd_hash_word(word)) & mask
    while true {
      let branch = slots.base[slot]
      if branch < 0 { return -1 }
      if words.base[Int(branch)] == word { return branch }
      slot = (slot + 1) & mask
    }
  }
}
