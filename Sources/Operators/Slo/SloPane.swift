import Runtime

/// The counts of all keys of a shard in one step, or in a coarser stretch of time. Immutable: tasks and captures share it.
///
/// A list of keys that had events, in the order of their group ids, each as variable-length numbers (7 bits a byte, the low ones
/// first): ids skipped since the key before, doubled, plus one when there were bad events; all events; the bad ones if any.
/// Most keys in most minutes take two or three bytes.
final class SloPane: Sendable {
  let end: Int64
  let length: Int64
  let bytes: [UInt8]

  var start: Int64 { end - length }

  init(end: Int64, length: Int64, bytes: [UInt8]) {
    self.end = end
    self.length = length
    self.bytes = bytes
  }

  /// Calls `body` for each key, in the order of ids. Only for bytes that `Writer` wrote or `isValid` has read.
  @inline(__always)
  func forEach(_ body: (_ group: Int, _ total: Int64, _ bad: Int64) -> Void) {
    bytes.withUnsafeBufferPointer { bytes in
      var place = 0
      var group = -1
      @inline(__always) func next() -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while true {
          let byte = UInt64(bytes[place])
          place += 1
          value |= (byte & 127) << shift
          if byte < 128 { return value }
          shift += 7
        }
      }
      while place < bytes.count {
        let head = next()
        group += Int(head >> 1) + 1
        let total = Int64(bitPattern: next())
        body(group, total, head & 1 == 0 ? 0 : Int64(bitPattern: next()))
      }
    }
  }

  /// Whether the bytes are a list of keys below `groups` with counts that a pane can have.
  static func isValid(_ bytes: [UInt8], groups: Int) -> Bool {
    var place = 0
    func next() -> UInt64? {
      var value: UInt64 = 0
      for shift in stride(from: UInt64(0), to: 63, by: 7) {
        guard place < bytes.count else { return nil }
        let byte = UInt64(bytes[place])
        place += 1
        value |= (byte & 127) << shift
        if byte < 128 { return value }
      }
      return nil
    }
    var group = -1
    while place < bytes.count {
      guard let head = next(), head >> 1 < UInt64(groups), let total = next(), total > 0 else { return false }
      group += Int(head >> 1) + 1
      guard group < groups else { return false }
      guard head & 1 != 0 else { continue }
      guard let bad = next(), bad > 0, bad <= total else { return false }
    }
    return true
  }

  /// Makes a pane's bytes; groups come in ascending order.
  struct Writer {
    private(set) var bytes: [UInt8] = []
    private var last = -1

    mutating func add(_ group: Int, total: Int64, bad: Int64) {
      append(UInt64(group - last - 1) << 1 | (bad == 0 ? 0 : 1))
      append(UInt64(bitPattern: total))
      if bad != 0 { append(UInt64(bitPattern: bad)) }
      last = group
    }

    private mutating func append(_ value: UInt64) {
      var value = value
      while value >= 128 {
        bytes.append(UInt8(truncatingIfNeeded: value) | 128)
        value >>= 7
      }
      bytes.append(UInt8(truncatingIfNeeded: value))
    }
  }
}
