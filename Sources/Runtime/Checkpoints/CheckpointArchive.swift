/// A section as a store takes it: what it is, and its stored bytes in pieces.
public struct SectionContent {
  public var operatorID: String
  public var scope: SectionScope
  public var keys: Int
  /// Hands the stored bytes on, once; returns how many bytes they stand for.
  public var produce: (_ take: @escaping (UnsafeRawBufferPointer) throws -> Void) throws -> Int
  public init(
    operatorID: String, scope: SectionScope, keys: Int,
    produce: @escaping (_ take: @escaping (UnsafeRawBufferPointer) throws -> Void) throws -> Int
  ) {
    self.operatorID = operatorID
    self.scope = scope
    self.keys = keys
    self.produce = produce
  }
}

/// A checkpoint, or what is left of one, as a person meets it in a store.
public struct SurveyedCheckpoint: Sendable {
  public var name: String
  /// Nil for a damaged or an unfinished one.
  public var manifest: CheckpointManifest?
  /// What is wrong with its manifest; nil also when it has none: then it is being written, or was left by a crash.
  public var problem: String?
  public init(name: String, manifest: CheckpointManifest? = nil, problem: String? = nil) {
    self.name = name
    self.manifest = manifest
    self.problem = problem
  }
}

/// What stores offer to those who look into them, besides what a daemon needs. All throw `CheckpointFailure`.
public protocol CheckpointArchive: CheckpointStore {
  /// Where it is, for messages: without secrets.
  var place: String { get }
  /// Everything that looks like a checkpoint, damaged and unfinished ones included, ascending by number.
  func survey() throws -> [SurveyedCheckpoint]
  /// As `write`, of sections that may be stored bytes already.
  func store(_ manifest: CheckpointManifest, _ contents: [SectionContent]) throws -> CheckpointManifest
  /// Hands on the stored bytes of a section, unchecked, in pieces of at most a few MiB.
  func readStored(
    _ section: StoredSection, of manifest: CheckpointManifest, _ take: (UnsafeRawBufferPointer) throws -> Void) throws
  /// What is wrong with a checkpoint apart from its sections, such as a file of the wrong length.
  func damage(around manifest: CheckpointManifest) throws -> [String]
}

extension CheckpointArchive {
  public func write(_ manifest: CheckpointManifest, _ sections: [StateSection]) throws -> CheckpointManifest {
    let compressor = try SectionCompressor()
    return try store(
      manifest,
      sections.map { section in
        SectionContent(
          operatorID: section.operatorID, scope: section.scope, keys: section.capture.keyCount,
          produce: { try compressor.compress(section.capture, $0) })
      })
  }

  public func list() throws -> [CheckpointManifest] { try survey().compactMap(\.manifest) }

  /// Hands on the stored bytes of a section; throws, possibly at the end, when they are not those that were stored.
  public func readChecked(
    _ section: StoredSection, of manifest: CheckpointManifest, _ take: (UnsafeRawBufferPointer) throws -> Void
  ) throws {
    var checksum = Checksum()
    var count = 0
    try readStored(section, of: manifest) { piece in
      checksum.update(piece)
      count += piece.count
      try take(piece)
    }
    guard count == section.storedBytes else {
      throw CheckpointFailure("ends after \(count) bytes instead of \(section.storedBytes)")
    }
    guard checksum.value == section.checksum else { throw CheckpointFailure("the checksum is wrong") }
  }

  public func read(_ section: StoredSection, of manifest: CheckpointManifest) throws -> [UInt8] {
    do {
      return try decompressed(section) { take in try readChecked(section, of: manifest, take) }
    } catch {
      throw CheckpointFailure(
        "\(section.title) of checkpoint \(manifest.name), in \(section.file): \(error)",
        mayPass: CheckpointFailure.mayPass(error))
    }
  }

  /// Everything that is wrong with a checkpoint: reads all of it.
  public func problems(of manifest: CheckpointManifest) throws -> [String] {
    var found = try damage(around: manifest)
    for section in manifest.sections {
      do { _ = try read(section, of: manifest) } catch { found.append("\(error)") }
    }
    return found
  }
}

extension StoredSection {
  /// Takes a section's bytes through `take` and notes their number and checksum.
  public init(
    storing content: SectionContent, file: String, offset: Int,
    _ take: @escaping (UnsafeRawBufferPointer) throws -> Void
  ) throws {
    var checksum = Checksum()
    var count = 0
    let rawBytes = try content.produce { piece in
      checksum.update(piece)
      count += piece.count
      try take(piece)
    }
    self.init(
      operatorID: content.operatorID, scope: content.scope, keys: max(0, content.keys), file: file, offset: offset,
      storedBytes: count, rawBytes: rawBytes, checksum: checksum.value)
  }

  /// For messages.
  public var title: String {
    switch scope {
    case .keys(let groups): "section \(operatorID), key groups \(groups.lowerBound) to \(groups.upperBound - 1)"
    case .partition(let source, let topic, let partition):
      "section \(operatorID), source \(source), \(topic)/\(partition)"
    }
  }
}

/// Which of these checkpoints go when the newest `keep` stay: savepoints and `alive` ones never do.
public func prunable(_ manifests: [CheckpointManifest], keep: Int, alive: Set<String>) -> [CheckpointManifest] {
  manifests.filter { !$0.isSavepoint }.sorted { ($0.number, $0.name) < ($1.number, $1.name) }
    .dropLast(max(0, keep)).filter { !alive.contains($0.name) }
}

/// Names come from manifests and command lines and become paths: letters, digits, `-`, `_` and `.`, not first.
public func isCheckpointName(_ name: String) -> Bool {
  guard let first = name.utf8.first, first != UInt8(ascii: "."), name.utf8.count <= 100 else { return false }
  return name.utf8.allSatisfy { isPlain($0) }
}

/// Bytes that stand for themselves in a file's name.
func isPlain(_ byte: UInt8) -> Bool {
  switch byte {
  case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
    true
  default: false
  }
}

/// The number in `c-<number>-<random>`; nil for other names.
func checkpointNumber(_ name: String) -> UInt64? {
  let parts = name.split(separator: "-", omittingEmptySubsequences: false)
  return parts.count == 3 && parts[0] == "c" ? UInt64(parts[1]) : nil
}

/// The name that a checkpoint of that number gets.
public func checkpointName(number: UInt64, suffix: UInt32) -> String {
  func padded(_ text: String, _ width: Int) -> String {
    String(repeating: "0", count: max(0, width - text.utf8.count)) + text
  }
  return "c-\(padded(String(number), 10))-\(padded(String(suffix, radix: 16), 8))"
}
