import CColumns

/// A fixed set of words with a small number each, looked up by the hash that the scanner has at hand. Two words with one
/// 64-bit hash would be mistaken for each other; the words listed here have none among themselves.
struct WordTable: @unchecked Sendable {
  // @unchecked: written once, before anybody can see it, and never freed: tables are static.
  private let keys: UnsafeMutablePointer<UInt64>
  private let values: UnsafeMutablePointer<UInt8>
  private let mask: Int

  /// Words separated by spaces, with the number (from 1) they stand for.
  init(_ entries: [(value: UInt8, words: String)]) {
    var words: [(UInt8, [UInt8])] = []
    for entry in entries {
      for word in entry.words.split(separator: " ") { words.append((entry.value, Array(word.utf8))) }
    }
    var capacity = 16
    while capacity < words.count * 4 { capacity *= 2 }
    mask = capacity - 1
    keys = .allocate(capacity: capacity)
    keys.initialize(repeating: 0, count: capacity)
    values = .allocate(capacity: capacity)
    values.initialize(repeating: 0, count: capacity)
    for (value, bytes) in words {
      let hash = rd_hash64(bytes, UInt32(bytes.count))
      var slot = Int(truncatingIfNeeded: hash) & mask
      while values[slot] != 0 { slot = (slot + 1) & mask }
      keys[slot] = hash
      values[slot] = value
    }
  }

  /// The number of the word with this hash, 0 for a word that is not listed.
  @inline(__always) subscript(hash: UInt64) -> UInt8 {
    var slot = Int(truncatingIfNeeded: hash) & mask
    while values[slot] != 0 {
      if keys[slot] == hash { return values[slot] }
      slot = (slot + 1) & mask
    }
    return 0
  }
}
