/// A checkpoint in one file, to be kept or carried elsewhere.
///
/// Little-endian: `RULESDEX`; version as UInt32; length of the manifest as UInt32; the manifest, JSON as in a store,
/// whose sections count their `offset` from the first byte behind this header; XXH64 of all that as UInt64. Then the
/// sections, each a zstd frame with its checksum in the manifest, one behind the other to the end of the file.
public struct ExportedCheckpoint {
  private static let magic = Array("RULESDEX".utf8)
  private static let version: UInt32 = 1
  private static let prefixBytes = 16
  private static let pieceBytes = 1 << 20

  public let manifest: CheckpointManifest
  private let path: String
  private let files: any FileSystem
  /// Where the sections begin.
  private let start: Int

  /// Copies a checkpoint out of a store into a new file, checking every section. Throws `CheckpointFailure`, and leaves
  /// no file then.
  public static func write(
    _ manifest: CheckpointManifest, of archive: any CheckpointArchive, to path: String,
    files: any FileSystem = PosixFileSystem()
  ) throws {
    var exported = manifest
    var offset = 0
    for index in exported.sections.indices {
      exported.sections[index].file = "export"
      exported.sections[index].offset = offset
      offset += exported.sections[index].storedBytes
    }
    let json = try exported.encoded()
    var header = magic
    withUnsafeBytes(of: version.littleEndian) { header += $0 }
    withUnsafeBytes(of: UInt32(json.count).littleEndian) { header += $0 }
    header += json
    let checksum = Checksum.of(header)
    withUnsafeBytes(of: checksum.littleEndian) { header += $0 }

    let file = try files.create(path)
    do {
      defer { files.close(file) }
      try header.withUnsafeBytes { try files.append($0, to: file) }
      for section in manifest.sections {
        try archive.readChecked(section, of: manifest) { try files.append($0, to: file) }
      }
      try files.sync(file)
      if let directory = parentPath(path) { try files.syncDirectory(directory) }
    } catch {
      try? files.remove(path)
      throw CheckpointFailure("checkpoint \(manifest.name) is not exported: \(error)")
    }
  }

  /// Opens an exported checkpoint; its header and length are checked, its sections when they are read.
  public init(reading path: String, files: any FileSystem = PosixFileSystem()) throws(CheckpointFailure) {
    do {
      let size = try files.size(path)
      let prefix = try files.read(path, offset: 0, count: Self.prefixBytes)
      guard prefix.count == Self.prefixBytes, prefix.starts(with: Self.magic) else {
        throw CheckpointFailure("this is no exported checkpoint")
      }
      func word(_ offset: Int) -> UInt32 {
        prefix.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
      }
      guard word(8) == Self.version else {
        throw CheckpointFailure("the file has version \(word(8)); this program reads \(Self.version)")
      }
      let length = Int(word(12))
      guard length <= CheckpointManifest.encodedBytesMax else { throw CheckpointFailure("the manifest is too long") }
      let rest = try files.read(path, offset: Self.prefixBytes, count: length + 8)
      guard rest.count == length + 8 else { throw CheckpointFailure("the file is cut short") }
      let expected = rest.withUnsafeBytes {
        UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: length, as: UInt64.self))
      }
      guard Checksum.of(prefix + rest.dropLast(8)) == expected else {
        throw CheckpointFailure("the header's checksum is wrong")
      }
      manifest = try CheckpointManifest(encoded: Array(rest.dropLast(8)))
      start = Self.prefixBytes + length + 8
      var end = 0
      for section in manifest.sections {
        guard section.offset == end else { throw CheckpointFailure("a section is not where it should be") }
        end += section.storedBytes
        guard end <= size - start else { throw CheckpointFailure("the file is cut short") }
      }
      guard end == size - start else { throw CheckpointFailure("there is something behind the last section") }
    } catch {
      throw CheckpointFailure("\(path): \(error)")
    }
    self.path = path
    self.files = files
  }

  /// Brings the checkpoint into a store as its newest, a savepoint of that group: pruning leaves it alone. It keeps
  /// its name, by which committed offsets may know it, where that is newer than all that is there. `suffix` makes a
  /// new name unique.
  public func restore(
    into archive: any CheckpointArchive, group: String, suffix: UInt32
  ) throws -> CheckpointManifest {
    var restored = manifest
    restored.group = group
    restored.isSavepoint = true
    let newest = try archive.survey().compactMap { $0.manifest?.number ?? checkpointNumber($0.name) }.max()
    if let newest, newest >= restored.number {
      guard newest < CheckpointManifest.numberMax else { throw CheckpointFailure("the store's numbers are used up") }
      restored.number = newest + 1
      restored.name = checkpointName(number: restored.number, suffix: suffix)
    }
    return try archive.store(restored, manifest.sections.map { section in content(of: section) })
  }

  private func content(of section: StoredSection) -> SectionContent {
    SectionContent(operatorID: section.operatorID, scope: section.scope, keys: section.keys) { take in
      var checksum = Checksum()
      var done = 0
      while done < section.storedBytes {
        let piece = try files.read(
          path, offset: start + section.offset + done, count: min(Self.pieceBytes, section.storedBytes - done))
        guard !piece.isEmpty else { throw CheckpointFailure("\(path) is cut short") }
        piece.withUnsafeBytes { checksum.update($0) }
        try piece.withUnsafeBytes(take)
        done += piece.count
      }
      guard checksum.value == section.checksum else {
        throw CheckpointFailure("\(path): the checksum of \(section.title) is wrong")
      }
      return section.rawBytes
    }
  }
}
