import Catalog

/// Small numbers for the keys of a source's rows, by some of its columns, that all aggregations by these columns share.
///
/// A row that many rules group by the same columns is hashed and compared once; each of them then finds its group by
/// the number alone (see `codes`). Worth its while for several users, and for no more than `codesMax` keys: then it
/// says no, for good, and each hashes for itself. A number means nothing outside of the worker that gave it.
public final class KeyCoder {
  public static let codesMax = 4_096
  private static let usersMin = 2

  private let slots: [Int]
  private let table: GroupTable
  private var users = 0
  private var isFull = false
  private var number: UInt64 = 0
  /// Bound to the batch at hand.
  public private(set) var keys = KeyColumns()
  /// By row of the batch at hand, its key's number; -1 where nobody has asked.
  private let codeOfRow: UnsafeMutablePointer<Int32>
  private let missing: UnsafeMutablePointer<Int32>
  private let hashes: UnsafeMutablePointer<UInt64>
  private let found: UnsafeMutablePointer<Int32>

  fileprivate init(slots: [Int], types: [PhysicalType], batchRows: Int) {
    self.slots = slots
    table = GroupTable(keyTypes: types)
    codeOfRow = .allocate(capacity: batchRows)
    codeOfRow.initialize(repeating: -1, count: batchRows)
    missing = .allocate(capacity: batchRows)
    missing.initialize(repeating: 0, count: batchRows)
    hashes = .allocate(capacity: batchRows)
    hashes.initialize(repeating: 0, count: batchRows)
    found = .allocate(capacity: batchRows)
    found.initialize(repeating: 0, count: batchRows)
  }

  deinit {
    codeOfRow.deallocate()
    missing.deallocate()
    hashes.deallocate()
    found.deallocate()
  }

  fileprivate func addUser() { users += 1 }

  /// One more than the largest number given.
  public var count: Int { table.count }

  /// By row of the batch at hand: valid for those of the last `prepare` that said yes, and below `count`.
  public var codes: UnsafePointer<Int32> { UnsafePointer(codeOfRow) }

  public func hash(of code: Int) -> UInt64 { table.hash(of: code) }

  /// Numbers the keys of these rows. False where they are to be hashed as if this were not here.
  public func prepare(_ batch: Batch, _ selection: Selection) -> Bool {
    guard users >= Self.usersMin, !isFull else { return false }
    if batch.number != number {
      // Of a computed column another user may have computed other rows.
      guard slots.allSatisfy({ $0 < batch.recordColumns }) else { return false }
      number = batch.number
      keys.bind(batch, slots: slots)
      codeOfRow.update(repeating: -1, count: batch.rowCount)
    }
    var count = 0
    for index in 0..<selection.count {
      let row = selection.rows[index]
      missing[count] = row
      count += codeOfRow[Int(row)] < 0 ? 1 : 0
    }
    guard count > 0 else { return true }
    keys.hashRows(missing, count: count, into: hashes)
    table.assign(keys, rows: missing, hashes: hashes, count: count, groups: found)
    for index in 0..<count { codeOfRow[Int(missing[index])] = found[index] }
    isFull = table.count > Self.codesMax
    return !isFull
  }
}

/// The coders of one context, by columns.
private final class KeyCoders {
  var bySlots: [[Int]: KeyCoder] = [:]
}

extension TaskContext {
  /// The coder that all tasks of this context share that group by these columns; nil without columns.
  public func coder(slots: [Int], types: [PhysicalType]) -> KeyCoder? {
    guard !slots.isEmpty else { return nil }
    let coders = shared { KeyCoders() }
    let coder = coders.bySlots[slots] ?? KeyCoder(slots: slots, types: types, batchRows: batchRows)
    coders.bySlots[slots] = coder
    coder.addUser()
    return coder
  }
}
