import Glibc

/// The machine's own files.
public final class PosixFileSystem: FileSystem {
  /// By handle, for messages.
  private var paths: [WritableFile: String] = [:]

  public init() {}

  deinit { for file in paths.keys { Glibc.close(file.number) } }

  private func failure(_ operation: String, _ path: String) -> FileSystemFailure {
    FileSystemFailure(operation: operation, path: path, code: errno)
  }

  /// Whoever may read the records may not be whoever may read the state: files are the daemon's alone.
  public func create(_ path: String) throws(FileSystemFailure) -> WritableFile {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
    if descriptor < 0 { throw failure("create", path) }
    let file = WritableFile(number: descriptor)
    paths[file] = path
    return file
  }

  public func append(_ bytes: UnsafeRawBufferPointer, to file: WritableFile) throws(FileSystemFailure) {
    var rest = bytes
    while !rest.isEmpty {
      let written = Glibc.write(file.number, rest.baseAddress, rest.count)
      if written < 0 {
        if errno == EINTR { continue }
        throw failure("write", paths[file] ?? "")
      }
      rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(written))
    }
  }

  public func sync(_ file: WritableFile) throws(FileSystemFailure) {
    while fsync(file.number) != 0 {
      if errno != EINTR { throw failure("sync", paths[file] ?? "") }
    }
  }

  public func close(_ file: WritableFile) {
    guard paths.removeValue(forKey: file) != nil else { return }
    Glibc.close(file.number)
  }

  public func syncDirectory(_ path: String) throws(FileSystemFailure) {
    let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    if descriptor < 0 { throw failure("open directory", path) }
    defer { Glibc.close(descriptor) }
    while fsync(descriptor) != 0 {
      if errno != EINTR { throw failure("sync directory", path) }
    }
  }

  public func rename(_ from: String, to: String) throws(FileSystemFailure) {
    if Glibc.rename(from, to) != 0 { throw failure("rename", from) }
  }

  public func remove(_ path: String) throws(FileSystemFailure) {
    if unlink(path) != 0 { throw failure("remove", path) }
  }

  public func removeDirectory(_ path: String) throws(FileSystemFailure) {
    if rmdir(path) != 0 { throw failure("remove directory", path) }
  }

  public func makeDirectory(_ path: String) throws(FileSystemFailure) {
    if mkdir(path, 0o700) != 0 { throw failure("create directory", path) }
  }

  public func list(_ path: String) throws(FileSystemFailure) -> [String] {
    guard let directory = opendir(path) else { throw failure("read directory", path) }
    defer { closedir(directory) }
    var names: [String] = []
    errno = 0
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { names.append(name) }
      errno = 0
    }
    if errno != 0 { throw failure("read directory", path) }
    return names.sorted()
  }

  public func read(_ path: String, offset: Int, count: Int) throws(FileSystemFailure) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    if descriptor < 0 { throw failure("open", path) }
    defer { Glibc.close(descriptor) }
    var problem: FileSystemFailure?
    let bytes = [UInt8](unsafeUninitializedCapacity: max(1, count)) { buffer, filled in
      while filled < count {
        let got = pread(descriptor, buffer.baseAddress! + filled, count - filled, offset + filled)
        if got == 0 { return }
        if got > 0 {
          filled += got
        } else if errno != EINTR {
          problem = failure("read", path)
          return
        }
      }
    }
    if let problem { throw problem }
    return bytes
  }

  public func size(_ path: String) throws(FileSystemFailure) -> Int {
    var status = stat()
    if stat(path, &status) != 0 { throw failure("look at", path) }
    return Int(status.st_size)
  }
}

extension FileSystemFailure {
  var isExisting: Bool { code == EEXIST }
  /// Nothing of that name, or something else than what was asked for.
  var isMissing: Bool { code == ENOENT || code == ENOTDIR }
  var isDenied: Bool { code == EACCES || code == EPERM }
}

/// What the system calls an error number.
func systemText(_ code: Int32) -> String { String(cString: strerror(code)) }
