/// State files of one checkpoint while it is written: sections one behind the other, few files for many
/// sections, so that a thousand operators need one fsync and not a thousand.
///
/// A state file is 16 bytes of header (`RULESDST`, version as UInt32, four zeros; little-endian), then the
/// sections, each a zstd frame.
final class StateFileWriter {
  static let header: [UInt8] = Array("RULESDST".utf8) + [1, 0, 0, 0, 0, 0, 0, 0]
  /// Written at once; small sections would be a call each.
  private static let bufferBytes = 256 << 10

  private let files: any FileSystem
  private let directory: String
  /// After so many a new file begins, but not within a section: one section may be longer.
  private let fileBytes: Int
  private var open: WritableFile?
  private var name = ""
  private var fileCount = 0
  private var length = 0
  private var buffer: [UInt8] = []

  init(files: any FileSystem, directory: String, fileBytes: Int) {
    self.files = files
    self.fileBytes = fileBytes
    self.directory = directory
    buffer.reserveCapacity(Self.bufferBytes)
  }

  deinit { if let open { files.close(open) } }

  func write(_ content: SectionContent) throws -> StoredSection {
    if length >= fileBytes { try finishFile() }
    if open == nil { try beginFile() }
    return try StoredSection(storing: content, file: name, offset: length) { try self.append($0) }
  }

  private func append(_ piece: UnsafeRawBufferPointer) throws {
    if buffer.count + piece.count > Self.bufferBytes { try flush() }
    buffer.append(contentsOf: piece)
    length += piece.count
  }

  private func flush() throws {
    guard let open, !buffer.isEmpty else { return }
    try buffer.withUnsafeBytes { try files.append($0, to: open) }
    buffer.removeAll(keepingCapacity: true)
  }

  private func beginFile() throws {
    fileCount += 1
    let digits = String(fileCount)
    name = "state-" + String(repeating: "0", count: max(0, 5 - digits.count)) + digits
    open = try files.create("\(directory)/\(name)")
    length = Self.header.count
    buffer = Self.header
  }

  /// Makes the file at hand durable.
  func finishFile() throws {
    try flush()
    guard let open else { return }
    try files.sync(open)
    files.close(open)
    self.open = nil
    length = 0
  }

  /// Whether a manifest may name a file so: anything else could lead out of the directory.
  static func isName(_ name: String) -> Bool {
    name.hasPrefix("state-") && name.utf8.count <= 24 && name.utf8.dropFirst(6).allSatisfy { (48...57).contains($0) }
  }
}
