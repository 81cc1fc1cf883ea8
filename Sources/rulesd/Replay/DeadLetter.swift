import Runtime

/// A late row or a dead letter, read back: what the record was that it is about.
struct DeadLetter {
  enum Kind: String {
    case deadLetter = "dead_letter"
    case late
  }
  var kind: Kind
  /// The source that could not take it.
  var rule: String
  var reason: String
  var topic: String
  var partition: Int32
  var offset: Int64
  /// Of the record, where the broker gave it one, or of the row; nil for none.
  var timeNanos: Int64?
  /// Empty for none.
  var key: [UInt8]
  /// Nil where it cannot be written again; `obstacle` says why.
  var payload: [UInt8]?
  var obstacle: String?
  /// How often it has been replayed before.
  var replays: Int

  /// Reads a line of output, or of `kcat -J` around one. Nil when it is something else; other records of ours count
  /// as `isOther`.
  static func read(_ line: [UInt8]) -> (letter: DeadLetter?, isOther: Bool) {
    guard let value = JSONValue(line) else { return (nil, false) }
    guard value["type"] == nil, value["offset"] != nil, let payload = value["payload"] else {
      return read(value)
    }
    // An envelope; `kcat -J` shows a payload as text.
    guard let text = payload.text else { return read(payload) }
    return JSONValue(Array(text.utf8)).map(read) ?? (nil, false)
  }

  private static func read(_ value: JSONValue) -> (letter: DeadLetter?, isOther: Bool) {
    guard let type = value["type"]?.text else { return (nil, false) }
    guard let kind = Kind(rawValue: type) else { return (nil, RecordKind.allCases.contains { $0.name == type }) }
    guard let labels = value["labels"], let values = value["values"],
      let rule = value["rule"]?.text, let reason = values["reason"]?.text, let topic = labels["topic"]?.text,
      let partition = labels["partition"]?.text.flatMap({ Int32($0) }),
      let offset = labels["offset"]?.text.flatMap({ Int64($0) })
    else { return (nil, false) }
    var letter = DeadLetter(
      kind: kind, rule: rule, reason: reason, topic: topic, partition: partition, offset: offset,
      timeNanos: value["time"]?.text.flatMap(timestampNanos), key: [], payload: nil, obstacle: nil, replays: 0)
    if case .number(let count)? = values["replays"], (0...Double(RecordDetails.replaysMax)).contains(count) {
      letter.replays = Int(count)
    }
    if values["key"] != nil || values["key_base64"] != nil {
      guard let key = bytes("key", of: values) else { return (nil, false) }
      letter.key = key
    }
    if values["truncated"] == .bool(true) {
      letter.obstacle = "cut off: its payload was longer than a dead letter holds"
    } else if values["key_truncated"] == .bool(true) {
      letter.obstacle = "cut off: its key was longer than a dead letter holds"
    } else if reason == "no payload", values["bytes"] == .number(0) {
      letter.obstacle = "a tombstone: there is no payload to write"
    } else if let payload = bytes("payload", of: values) {
      letter.payload = payload
    } else {
      return (nil, false)
    }
    return (letter, false)
  }

  private static func bytes(_ name: String, of values: JSONValue) -> [UInt8]? {
    if let text = values[name]?.text { return Array(text.utf8) }
    return values["\(name)_base64"]?.text.flatMap(base64Bytes)
  }
}

/// The bytes of base64 text with its padding; nil for anything else.
func base64Bytes(_ text: String) -> [UInt8]? {
  let digits = Array(text.utf8)
  guard digits.count % 4 == 0 else { return nil }
  let padding = digits.reversed().prefix { $0 == UInt8(ascii: "=") }.count
  guard padding <= 2 else { return nil }
  var bytes: [UInt8] = []
  bytes.reserveCapacity(digits.count / 4 * 3)
  for start in stride(from: 0, to: digits.count, by: 4) {
    var word: UInt32 = 0
    for (place, digit) in digits[start..<start + 4].enumerated() {
      let value: UInt8
      switch digit {
      case UInt8(ascii: "A")...UInt8(ascii: "Z"): value = digit - UInt8(ascii: "A")
      case UInt8(ascii: "a")...UInt8(ascii: "z"): value = digit - UInt8(ascii: "a") + 26
      case UInt8(ascii: "0")...UInt8(ascii: "9"): value = digit - UInt8(ascii: "0") + 52
      case UInt8(ascii: "+"): value = 62
      case UInt8(ascii: "/"): value = 63
      case UInt8(ascii: "=") where start + place >= digits.count - padding: value = 0
      default: return nil
      }
      word = word << 6 | UInt32(value)
    }
    bytes += [UInt8(word >> 16 & 255), UInt8(word >> 8 & 255), UInt8(word & 255)]
  }
  bytes.removeLast(padding)
  return bytes
}
