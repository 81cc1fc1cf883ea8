extension CheckpointManifest {
  /// What is read back is never longer.
  public static let encodedBytesMax = ManifestCoding.bytesMax

  /// As every store keeps it: JSON with a checksum. Throws when it would be too long to be read.
  public func encoded() throws(CheckpointFailure) -> [UInt8] { try ManifestCoding.encode(self) }

  /// Throws for anything but what `encoded` gave, byte for byte.
  public init(encoded bytes: [UInt8]) throws(CheckpointFailure) { self = try ManifestCoding.decode(bytes) }
}

/// A manifest as JSON that a person can read: one partition, operator or section a line.
///
/// Numbers that a double may not hold are strings. The last member is the checksum (XXH64) of all bytes in front of
/// it, so that any change of any byte shows.
enum ManifestCoding {
  static let version = 1
  /// Some 300,000 sections.
  static let bytesMax = 64 << 20
  private static let format = "rulesd checkpoint"
  private static let seal = Array(",\n  \"checksum\": \"".utf8)
  private static let end = Array("\"\n}\n".utf8)

  // MARK: Writing

  static func encode(_ manifest: CheckpointManifest) throws(CheckpointFailure) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(json: "{\n  \"format\": ")
    bytes.append(jsonString: format)
    bytes.append(json: ",\n  \"version\": ")
    bytes.append(json: Int64(version))
    func member(_ name: StaticString, _ value: String) {
      bytes.append(json: ",\n  \"")
      bytes.append(json: name)
      bytes.append(json: "\": ")
      bytes.append(jsonString: value)
    }
    member("name", manifest.name)
    member("number", String(manifest.number))
    member("created", formatTimestamp(manifest.createdNanos))
    member("created_nanos", String(manifest.createdNanos))
    member("group", manifest.group)
    member("revision", manifest.revision)
    bytes.append(json: ",\n  \"workers\": ")
    bytes.append(json: Int64(manifest.workers))
    bytes.append(json: ",\n  \"savepoint\": ")
    bytes.append(json: manifest.isSavepoint ? "true" : "false")
    append("partitions", manifest.partitions, to: &bytes) { partition, bytes in
      bytes.append(json: "\"source\": ")
      bytes.append(jsonString: partition.source)
      bytes.append(json: ", \"topic\": ")
      bytes.append(jsonString: partition.topic)
      bytes.append(json: ", \"partition\": ")
      bytes.append(json: Int64(partition.partition))
      bytes.append(json: ", \"offset\": ")
      bytes.append(jsonString: String(partition.offset))
      bytes.append(json: ", \"watermark\": ")
      bytes.append(jsonString: String(partition.watermark))
    }
    append("operators", manifest.operators, to: &bytes) { known, bytes in
      bytes.append(json: "\"id\": ")
      bytes.append(jsonString: known.id)
      bytes.append(json: ", \"kind\": ")
      bytes.append(jsonString: known.kind)
      bytes.append(json: ", \"summary\": ")
      bytes.append(jsonString: known.summary)
      bytes.append(json: ", \"rules\": [")
      for (index, rule) in known.rules.enumerated() {
        if index > 0 { bytes.append(json: ", ") }
        bytes.append(jsonString: rule)
      }
      bytes.append(json: "]")
    }
    append("sections", manifest.sections, to: &bytes, Self.append(section:to:))
    bytes += seal
    let checksum = Checksum.of(bytes)
    bytes.append(hex: checksum)
    bytes += end
    guard bytes.count <= bytesMax else {
      throw CheckpointFailure("its manifest has \(bytes.count) bytes, more than the \(bytesMax) allowed")
    }
    return bytes
  }

  private static func append<T>(
    _ name: StaticString, _ items: [T], to bytes: inout [UInt8], _ members: (T, inout [UInt8]) -> Void
  ) {
    bytes.append(json: ",\n  \"")
    bytes.append(json: name)
    bytes.append(json: "\": [")
    for (index, item) in items.enumerated() {
      bytes.append(json: index > 0 ? ",\n    {" : "\n    {")
      members(item, &bytes)
      bytes.append(json: "}")
    }
    bytes.append(json: items.isEmpty ? "]" : "\n  ]")
  }

  private static func append(section: StoredSection, to bytes: inout [UInt8]) {
    bytes.append(json: "\"operator\": ")
    bytes.append(jsonString: section.operatorID)
    switch section.scope {
    case .keys(let groups):
      bytes.append(json: ", \"key_groups\": [")
      bytes.append(json: Int64(groups.lowerBound))
      bytes.append(json: ", ")
      bytes.append(json: Int64(groups.upperBound))
      bytes.append(json: "]")
    case .partition(let source, let topic, let partition):
      bytes.append(json: ", \"source\": ")
      bytes.append(jsonString: source)
      bytes.append(json: ", \"topic\": ")
      bytes.append(jsonString: topic)
      bytes.append(json: ", \"partition\": ")
      bytes.append(json: Int64(partition))
    }
    bytes.append(json: ", \"keys\": ")
    bytes.append(json: Int64(section.keys))
    bytes.append(json: ", \"file\": ")
    bytes.append(jsonString: section.file)
    bytes.append(json: ", \"offset\": ")
    bytes.append(json: Int64(section.offset))
    bytes.append(json: ", \"bytes\": ")
    bytes.append(json: Int64(section.storedBytes))
    bytes.append(json: ", \"raw_bytes\": ")
    bytes.append(json: Int64(section.rawBytes))
    bytes.append(json: ", \"checksum\": \"")
    bytes.append(hex: section.checksum)
    bytes.append(json: "\"")
  }

  // MARK: Reading

  /// Throws for anything but what `encode` wrote, byte for byte.
  static func decode(_ bytes: [UInt8]) throws(CheckpointFailure) -> CheckpointManifest {
    let tail = 16 + end.count
    guard bytes.count >= tail + seal.count, bytes.count <= bytesMax, bytes.suffix(end.count).elementsEqual(end) else {
      throw CheckpointFailure("the manifest is cut short")
    }
    let sealed = bytes.dropLast(tail)
    guard sealed.suffix(seal.count).elementsEqual(seal),
      hexadecimal(String(decoding: bytes.suffix(tail).prefix(16), as: UTF8.self)) == Checksum.of(sealed)
    else { throw CheckpointFailure("the manifest's checksum is wrong") }
    guard let json = JSONValue(bytes) else { throw CheckpointFailure("the manifest is not JSON") }
    let top = Members(json, "manifest")
    guard try top.text("format") == format else { throw CheckpointFailure("this is no manifest of a checkpoint") }
    let found = try top.int("version", 0...Int(Int32.max))
    guard found == version else {
      throw CheckpointFailure("the manifest has version \(found); this program reads \(version)")
    }
    let name = try top.text("name")
    guard isCheckpointName(name) else { throw CheckpointFailure("the manifest's name is none") }
    var manifest = CheckpointManifest(
      name: name, number: try top.wide("number"), createdNanos: try top.wide("created_nanos"),
      group: try top.text("group"), revision: try top.text("revision"), workers: try top.int("workers"),
      isSavepoint: try top.bool("savepoint"))
    for item in try top.items("partitions") {
      manifest.partitions.append(
        StoredPartition(
          source: try item.text("source"), topic: try item.text("topic"),
          partition: Int32(try item.int("partition", Int(Int32.min)...Int(Int32.max))), offset: try item.wide("offset"),
          watermark: try item.wide("watermark")))
    }
    for item in try top.items("operators") {
      manifest.operators.append(
        StoredOperator(
          id: try item.text("id"), kind: try item.text("kind"), summary: try item.text("summary"),
          rules: try item.texts("rules")))
    }
    for item in try top.items("sections") { manifest.sections.append(try section(item)) }
    return manifest
  }

  private static func section(_ item: Members) throws(CheckpointFailure) -> StoredSection {
    let scope: SectionScope
    if item.has("key_groups") {
      let ends = try item.ints("key_groups", 0...KeyGroup.count)
      guard ends.count == 2, ends[0] <= ends[1] else { throw item.wrong("key_groups") }
      scope = .keys(ends[0]..<ends[1])
    } else {
      scope = .partition(
        source: try item.text("source"), topic: try item.text("topic"),
        partition: Int32(try item.int("partition", Int(Int32.min)...Int(Int32.max))))
    }
    guard let checksum = hexadecimal(try item.text("checksum")) else { throw item.wrong("checksum") }
    return StoredSection(
      operatorID: try item.text("operator"), scope: scope, keys: try item.int("keys"), file: try item.text("file"),
      offset: try item.int("offset"), storedBytes: try item.int("bytes"), rawBytes: try item.int("raw_bytes"),
      checksum: checksum)
  }

  /// Exactly sixteen lower-case digits, as they are written.
  private static func hexadecimal(_ text: String) -> UInt64? {
    let digits = text.utf8
    guard digits.count == 16,
      digits.allSatisfy({ (48...57).contains($0) || (97...102).contains($0) })
    else { return nil }
    return UInt64(text, radix: 16)
  }

  /// An object's members, each with the type and range that it must have.
  private struct Members {
    private let values: [String: JSONValue]
    private let place: String

    init(_ json: JSONValue, _ place: String) {
      values = Dictionary(json.members.map { ($0.name, $0.value) }, uniquingKeysWith: { first, _ in first })
      self.place = place
    }

    func wrong(_ name: String) -> CheckpointFailure {
      CheckpointFailure("`\(name)` of the \(place) is missing or wrong")
    }

    func has(_ name: String) -> Bool { values[name] != nil }

    func text(_ name: String) throws(CheckpointFailure) -> String {
      guard let text = values[name]?.text else { throw wrong(name) }
      return text
    }

    func bool(_ name: String) throws(CheckpointFailure) -> Bool {
      guard case .bool(let value)? = values[name] else { throw wrong(name) }
      return value
    }

    /// Nothing that we write is negative or above what a double holds exactly.
    func int(_ name: String, _ range: ClosedRange<Int> = 0...1 << 53) throws(CheckpointFailure) -> Int {
      guard let value = values[name], let number = whole(value), range.contains(number) else { throw wrong(name) }
      return number
    }

    func ints(_ name: String, _ range: ClosedRange<Int>) throws(CheckpointFailure) -> [Int] {
      guard case .array(let values)? = values[name] else { throw wrong(name) }
      let numbers = values.compactMap(whole)
      guard numbers.count == values.count, numbers.allSatisfy(range.contains) else { throw wrong(name) }
      return numbers
    }

    private func whole(_ value: JSONValue) -> Int? {
      if case .number(let number) = value { Int(exactly: number) } else { nil }
    }

    func wide<T: FixedWidthInteger>(_ name: String) throws(CheckpointFailure) -> T {
      guard let value = T(try text(name)) else { throw wrong(name) }
      return value
    }

    func texts(_ name: String) throws(CheckpointFailure) -> [String] {
      guard case .array(let values)? = values[name] else { throw wrong(name) }
      let texts = values.compactMap(\.text)
      guard texts.count == values.count else { throw wrong(name) }
      return texts
    }

    func items(_ name: String) throws(CheckpointFailure) -> [Members] {
      guard case .array(let values)? = values[name] else { throw wrong(name) }
      return values.map { Members($0, "entry of `\(name)`") }
    }
  }
}
