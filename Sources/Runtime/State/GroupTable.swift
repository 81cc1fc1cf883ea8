import CColumns
import Catalog

/// Open-addressing table from a key (values of some columns) to a dense group id 0, 1, 2 …, in order of first sight.
///
/// Keys are stored typed, strings copied into the table's arena. Null is a key of its own. Linear probing over 32-bit
/// slots, load at most 1/2; the 64-bit hash of each group is kept, so growth and merges never rehash a key.
public final class GroupTable {
  public let keyTypes: [PhysicalType]
  public internal(set) var count = 0
  private var slots: NativeArray<UInt32>
  private var mask: Int
  var hashes = NativeArray<UInt64>()
  /// Fixed-width key values as bits, `count × keyTypes.count`, row-major; empty when all keys are strings.
  var words = NativeArray<UInt64>()
  /// String key values, in the same layout; empty when no key is a string.
  var strings = NativeArray<rd_string>()
  /// One byte a key value, in the same layout; empty until the first null.
  var nulls = NativeArray<UInt8>()
  let hasStrings: Bool
  let hasWords: Bool
  var arena: ByteArena
  let width: Int

  public init(keyTypes: [PhysicalType], expectedGroups: Int = 16) {
    self.keyTypes = keyTypes
    width = keyTypes.count
    hasStrings = keyTypes.contains(.string)
    hasWords = keyTypes.contains { $0 != .string }
    var capacity = 16
    while capacity < expectedGroups * 2 { capacity *= 2 }
    slots = NativeArray(repeating: 0, count: capacity)
    mask = capacity - 1
    arena = ByteArena()
  }

  /// The same groups with the same ids, to go on by itself: copies of memory, but for the strings, which both
  /// keep alive.
  public init(copying other: GroupTable) {
    keyTypes = other.keyTypes
    width = other.width
    hasStrings = other.hasStrings
    hasWords = other.hasWords
    count = other.count
    slots = NativeArray(copying: other.slots)
    mask = other.mask
    hashes = NativeArray(copying: other.hashes)
    words = NativeArray(copying: other.words)
    strings = NativeArray(copying: other.strings)
    nulls = NativeArray(copying: other.nulls)
    arena = ByteArena(sharing: other.arena)
  }

  /// Bytes held, for state accounting.
  public var bytes: Int {
    slots.count * 4 + hashes.count * 8 + words.count * 8
      + strings.count * MemoryLayout<rd_string>.stride + nulls.count + arena.bytes
  }

  // MARK: Rows of a batch

  /// Writes the group id of each row to `groups`, adding groups as needed. `hashes` comes from `hashRows`.
  public func assign(
    _ keys: borrowing KeyColumns, rows: UnsafePointer<Int32>, hashes rowHashes: UnsafePointer<UInt64>,
    count rowCount: Int, groups: UnsafeMutablePointer<Int32>
  ) {
    if width == 0 {
      if count == 0 { _ = insertEmptyKey() }
      groups.update(repeating: 0, count: rowCount)
      return
    }
    if !hasWords, nulls.count == 0, !keys.hasNulls {
      return assignTexts(keys, rows: rows, hashes: rowHashes, count: rowCount, groups: groups)
    }
    for index in 0..<rowCount {
      let row = Int(rows[index])
      let hash = rowHashes[index]
      var slot = Int(truncatingIfNeeded: hash) & mask
      while true {
        let entry = slots.base[slot]
        if entry == 0 {
          groups[index] = Int32(truncatingIfNeeded: insert(keys, row: row, hash: hash, slot: slot))
          break
        }
        let group = Int(entry) - 1
        if hashes.base[group] == hash, matches(keys, row: row, group: group) {
          groups[index] = Int32(truncatingIfNeeded: group)
          break
        }
        slot = (slot + 1) & mask
      }
    }
  }

  /// The same for keys of strings alone without a null in sight, which most are.
  private func assignTexts(
    _ keys: borrowing KeyColumns, rows: UnsafePointer<Int32>, hashes rowHashes: UnsafePointer<UInt64>,
    count rowCount: Int, groups: UnsafeMutablePointer<Int32>
  ) {
    let columns = keys.columns.base
    let width = self.width
    for index in 0..<rowCount {
      let row = Int(rows[index])
      let hash = rowHashes[index]
      var slot = Int(truncatingIfNeeded: hash) & mask
      probing: while true {
        let entry = slots.base[slot]
        if entry == 0 {
          groups[index] = Int32(truncatingIfNeeded: insert(keys, row: row, hash: hash, slot: slot))
          break
        }
        let group = Int(entry) - 1
        if hashes.base[group] == hash {
          let stored = strings.base + group * width
          var column = 0
          while column < width, rd_string_equal(stored[column], columns[column].string(row)) != 0 {
            column += 1
          }
          if column == width {
            groups[index] = Int32(truncatingIfNeeded: group)
            break probing
          }
        }
        slot = (slot + 1) & mask
      }
    }
  }

  /// The same, with at most `limit` groups in the table: writes the rows that have one to `kept`, their group ids to
  /// `groups`, in order, and returns how many. Rows of further keys are left out. Slower; for when the limit is near.
  public func assign(
    _ keys: borrowing KeyColumns, rows: UnsafePointer<Int32>, hashes rowHashes: UnsafePointer<UInt64>,
    count rowCount: Int, groups: UnsafeMutablePointer<Int32>, limit: Int, kept: UnsafeMutablePointer<Int32>
  ) -> Int {
    var keptCount = 0
    for index in 0..<rowCount {
      let row = Int(rows[index])
      // Without keys there is one group, which no limit is below.
      let hash = width == 0 ? 0 : rowHashes[index]
      var slot = Int(truncatingIfNeeded: hash) & mask
      while slots.base[slot] != 0 {
        let group = Int(slots.base[slot]) - 1
        if width == 0 || hashes.base[group] == hash && matches(keys, row: row, group: group) { break }
        slot = (slot + 1) & mask
      }
      var group = Int(slots.base[slot]) - 1
      if group < 0 {
        guard count < max(limit, 1) else { continue }
        group = insert(keys, row: row, hash: hash, slot: slot)
      }
      groups[keptCount] = Int32(truncatingIfNeeded: group)
      kept[keptCount] = Int32(truncatingIfNeeded: row)
      keptCount += 1
    }
    return keptCount
  }

  @inline(__always)
  private func matches(_ keys: borrowing KeyColumns, row: Int, group: Int) -> Bool {
    let base = group * width
    for column in 0..<width {
      let access = keys.columns.base[column]
      let index = base + column
      let isNull = access.isNull(row)
      if isNull || self.isNull(index) {
        if !isNull || !self.isNull(index) { return false }
        continue
      }
      if access.isString {
        if rd_string_equal(strings.base[index], access.string(row)) == 0 { return false }
      } else if words.base[index] != access.word(row) {
        return false
      }
    }
    return true
  }

  @inline(__always)
  private func isNull(_ index: Int) -> Bool { nulls.count > 0 && nulls.base[index] != 0 }

  private func insert(_ keys: borrowing KeyColumns, row: Int, hash: UInt64, slot: Int) -> Int {
    for column in 0..<width {
      let access = keys.columns.base[column]
      if access.isNull(row) {
        append(isNull: true, word: 0, string: rd_string())
      } else if access.isString {
        append(isNull: false, word: 0, string: access.string(row))
      } else {
        append(isNull: false, word: access.word(row), string: rd_string())
      }
    }
    return finishInsert(hash: hash, slot: slot)
  }

  /// Stores the next key value.
  private func append(isNull: Bool, word: UInt64, string: rd_string) {
    if isNull && nulls.count == 0 {
      nulls.grow(to: max(words.count, strings.count), filling: 0)
      nulls.append(1)
    } else if nulls.count > 0 {
      nulls.append(isNull ? 1 : 0)
    }
    if hasWords { words.append(word) }
    if hasStrings { strings.append(string.length > 0 ? stored(string) : string) }
  }

  private func stored(_ value: rd_string) -> rd_string {
    rd_string(data: arena.copy(value.data, Int(value.length)), length: value.length, hash: value.hash)
  }

  private func insertEmptyKey() -> Int {
    var slot = 0
    while slots[slot] != 0 { slot = (slot + 1) & mask }
    return finishInsert(hash: 0, slot: slot)
  }

  private func finishInsert(hash: UInt64, slot: Int) -> Int {
    let group = count
    hashes.append(hash)
    slots[slot] = UInt32(truncatingIfNeeded: group + 1)
    count += 1
    if count * 2 > mask { rehash() }
    return group
  }

  /// Gives stored group `group`, the next one, its slot. False when a group before it has the same key.
  func place(restored group: Int, hash: UInt64) -> Bool {
    var slot = Int(truncatingIfNeeded: hash) & mask
    while slots[slot] != 0 {
      let candidate = Int(slots[slot]) - 1
      if hashes[candidate] == hash, equals(candidate, group, of: self) { return false }
      slot = (slot + 1) & mask
    }
    _ = finishInsert(hash: hash, slot: slot)
    return true
  }

  private func rehash() {
    let capacity = (mask + 1) * 2
    slots = NativeArray(repeating: 0, count: capacity)
    mask = capacity - 1
    for group in 0..<count {
      var slot = Int(truncatingIfNeeded: hashes[group]) & mask
      while slots[slot] != 0 { slot = (slot + 1) & mask }
      slots[slot] = UInt32(truncatingIfNeeded: group + 1)
    }
  }

  // MARK: Groups of another table

  public func hash(of group: Int) -> UInt64 { hashes[group] }

  /// The id here of a group of another table with the same key types, added if it is new.
  public func assign(group: Int, of other: GroupTable) -> Int {
    if width == 0 { return count == 0 ? insertEmptyKey() : 0 }
    let hash = other.hashes[group]
    var slot = Int(truncatingIfNeeded: hash) & mask
    while slots[slot] != 0 {
      let candidate = Int(slots[slot]) - 1
      if hashes[candidate] == hash, equals(candidate, group, of: other) { return candidate }
      slot = (slot + 1) & mask
    }
    for column in 0..<width {
      let index = group * width + column
      append(
        isNull: other.isNull(index), word: hasWords ? other.words[index] : 0,
        string: hasStrings ? other.strings[index] : rd_string())
    }
    return finishInsert(hash: hash, slot: slot)
  }

  /// The id here of a group of another table, or nil.
  public func find(group: Int, of other: GroupTable) -> Int? {
    if width == 0 { return count == 0 ? nil : 0 }
    let hash = other.hashes[group]
    var slot = Int(truncatingIfNeeded: hash) & mask
    while slots[slot] != 0 {
      let candidate = Int(slots[slot]) - 1
      if hashes[candidate] == hash, equals(candidate, group, of: other) { return candidate }
      slot = (slot + 1) & mask
    }
    return nil
  }

  private func equals(_ mine: Int, _ theirs: Int, of other: GroupTable) -> Bool {
    for column in 0..<width {
      let a = mine * width + column
      let b = theirs * width + column
      if isNull(a) != other.isNull(b) { return false }
      if isNull(a) { continue }
      if keyTypes[column] == .string {
        if rd_string_equal(strings[a], other.strings[b]) == 0 { return false }
      } else if words[a] != other.words[b] {
        return false
      }
    }
    return true
  }

  /// Three-way comparison of two groups' keys: column by column, null first, strings by bytes.
  public func isOrderedBefore(_ a: Int, _ b: Int) -> Bool {
    for column in 0..<width {
      let x = a * width + column
      let y = b * width + column
      if isNull(x) != isNull(y) { return isNull(x) }
      if isNull(x) { continue }
      switch keyTypes[column] {
      case .string:
        let order = compareBytes(strings[x], strings[y])
        if order != 0 { return order < 0 }
      case .int64, .bool:
        let p = Int64(bitPattern: words[x])
        let q = Int64(bitPattern: words[y])
        if p != q { return p < q }
      case .float64:
        let p = Double(bitPattern: words[x])
        let q = Double(bitPattern: words[y])
        if p != q { return p < q }
      }
    }
    return false
  }

  /// Writes key column `column` of `groups` to rows 0, 1, … of `target`. Strings point into this table.
  public func writeKey(
    _ column: Int, of groups: UnsafePointer<Int32>, count: Int, to target: Column
  ) {
    target.hasNulls = false
    for row in 0..<count {
      let index = Int(groups[row]) * width + column
      let isNull = self.isNull(index)
      target.validity[row] = isNull ? 0 : 1
      if isNull { target.hasNulls = true }
      switch target.type {
      case .string: target.strings[row] = strings[index]
      case .int64: target.ints[row] = Int64(bitPattern: words[index])
      case .float64: target.doubles[row] = Double(bitPattern: words[index])
      case .bool: target.bools[row] = UInt8(truncatingIfNeeded: words[index])
      }
    }
  }
}

/// Bytewise order of two strings; a prefix comes first.
@inlinable
public func compareBytes(_ a: rd_string, _ b: rd_string) -> Int32 {
  let shared = Int(min(a.length, b.length))
  if shared > 0 {
    let order = memcmp(a.data, b.data, shared)
    if order != 0 { return order }
  }
  return a.length == b.length ? 0 : (a.length < b.length ? -1 : 1)
}
