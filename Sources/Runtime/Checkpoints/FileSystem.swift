/// What a file system answered that is no success.
public struct FileSystemFailure: Error, CustomStringConvertible, Sendable, Hashable {
  /// What was tried: `write`, `create`, …
  public var operation: String
  public var path: String
  /// As in `errno`.
  public var code: Int32
  public init(operation: String, path: String, code: Int32) {
    self.operation = operation
    self.path = path
    self.code = code
  }
  public var description: String { "cannot \(operation) \(path): \(systemText(code))" }
}

/// A file that is being written.
public struct WritableFile: Sendable, Hashable {
  let number: Int32
}

/// The few things that a store asks of a disk. All of it blocks, and nothing is durable before its file *and* the
/// directory that names it were synced. One thread at a time.
public protocol FileSystem: AnyObject {
  /// A new file, to be appended to; `EEXIST` when the name is taken.
  func create(_ path: String) throws(FileSystemFailure) -> WritableFile
  /// Everything or a failure, after which any part of it may have been written.
  func append(_ bytes: UnsafeRawBufferPointer, to file: WritableFile) throws(FileSystemFailure)
  /// After a failure the file's content is unknown, whatever a second call says: throw the file away.
  func sync(_ file: WritableFile) throws(FileSystemFailure)
  func close(_ file: WritableFile)
  /// Makes names that came, went or changed in a directory durable.
  func syncDirectory(_ path: String) throws(FileSystemFailure)
  /// In one step: `to` names the old thing or the new one, never nothing.
  func rename(_ from: String, to: String) throws(FileSystemFailure)
  func remove(_ path: String) throws(FileSystemFailure)
  /// The directory must be empty.
  func removeDirectory(_ path: String) throws(FileSystemFailure)
  /// `EEXIST` when the name is taken.
  func makeDirectory(_ path: String) throws(FileSystemFailure)
  /// Names in a directory, sorted.
  func list(_ path: String) throws(FileSystemFailure) -> [String]
  /// Fewer than `count` bytes at the end of the file alone.
  func read(_ path: String, offset: Int, count: Int) throws(FileSystemFailure) -> [UInt8]
  /// Bytes in a file.
  func size(_ path: String) throws(FileSystemFailure) -> Int
}

extension FileSystem {
  /// Makes a directory and those above it that are missing, durably.
  func makeDirectories(_ path: String) throws(FileSystemFailure) {
    do {
      try makeDirectory(path)
    } catch {
      if error.isExisting { return }
      guard error.isMissing, let parent = parentPath(path) else { throw error }
      try makeDirectories(parent)
      do { try makeDirectory(path) } catch { if !error.isExisting { throw error } }
    }
    if let parent = parentPath(path) { try syncDirectory(parent) }
  }
}

/// The directory that a path is in; nil for the root and for what has nothing above it.
func parentPath(_ path: String) -> String? {
  var bytes = path.utf8[...]
  while bytes.count > 1, bytes.last == UInt8(ascii: "/") { bytes = bytes.dropLast() }
  guard let slash = bytes.lastIndex(of: UInt8(ascii: "/")) else {
    return bytes.isEmpty || bytes.elementsEqual(".".utf8) ? nil : "."
  }
  if slash == bytes.startIndex { return bytes.count == 1 ? nil : "/" }
  return String(decoding: bytes[..<slash], as: UTF8.self)
}
