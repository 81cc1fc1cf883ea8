import Glibc

/// A disk in memory that loses what a real one may lose, the same way for the same seeds.
///
/// It knows two states: what programs see, and what has reached the platter. A file's bytes get there by `sync`, names
/// in a directory by `syncDirectory` alone (POSIX promises no more). `crash` throws away what programs see and keeps
/// of the rest what its seed says: of unsynced bytes a part, whole or torn; of unsynced names any of them.
public final class SimulatedFileSystem: FileSystem {
  private final class File {
    var bytes: [UInt8] = []
    /// What a crash cannot take: a prefix of `bytes`, unless a sync has failed.
    var durable: [UInt8] = []
    /// After a failed sync the kernel may count dirty pages as clean; later syncs succeed and write nothing (Rebello
    /// and others, "Can Applications Recover from fsync Failures?").
    var isPoisoned = false
  }

  private final class Directory {
    var entries: [String: Node] = [:]
    var durable: [String: Node] = [:]
    /// Changes since the last sync, in order.
    var pending: [Change] = []
  }

  private enum Node {
    case file(File)
    case directory(Directory)
  }

  private enum Change {
    case add(String, Node)
    case remove(String)
    case rename(String, to: String, Node)

    func apply(to entries: inout [String: Node]) {
      switch self {
      case .add(let name, let node): entries[name] = node
      case .remove(let name): entries[name] = nil
      case .rename(let from, let to, let node):
        entries[from] = nil
        entries[to] = node
      }
    }
  }

  private var root = Directory()
  private var open: [WritableFile: (path: String, file: File)] = [:]
  private var nextHandle: Int32 = 1
  private var random: SplitMix

  /// Operations so far, failed ones included; closing a file is none.
  public private(set) var operations = 0
  private var failing: (operation: Int, onwards: Bool, sparesReads: Bool, code: Int32)?
  /// Operations that failed because `fail` said so: those that only look, and all others.
  public private(set) var failedReads = 0
  public private(set) var failedWrites = 0
  /// Files of which a crash has taken something.
  public private(set) var tornFiles = 0

  /// `seed` decides what failing writes leave behind.
  public init(seed: UInt64 = 0) { random = SplitMix(state: seed) }

  /// The operation of that number (from 0, counted from now) fails with `code`; all later ones too when `onwards`. With
  /// `sparesReads` those that change nothing succeed all the same.
  public func fail(operation: Int, onwards: Bool = false, sparesReads: Bool = false, code: Int32) {
    failing = (operations + operation, onwards, sparesReads, code)
  }

  /// No operation fails any more.
  public func heal() { failing = nil }

  /// The power goes and comes back: open files are gone, and with them what had not been synced, as `seed` decides.
  public func crash(seed: UInt64) {
    var random = SplitMix(state: seed)
    open = [:]
    settle(root, &random)
  }

  /// All files by path, for tests that damage them.
  public var files: [String: [UInt8]] {
    get {
      var found: [String: [UInt8]] = [:]
      func visit(_ directory: Directory, _ path: String) {
        for (name, node) in directory.entries {
          switch node {
          case .file(let file): found["\(path)/\(name)"] = file.bytes
          case .directory(let below): visit(below, "\(path)/\(name)")
          }
        }
      }
      visit(root, "")
      return found
    }
  }

  /// Changes a file behind everybody's back, durably. Nothing happens when there is none.
  public func overwrite(_ path: String, with bytes: [UInt8]) {
    guard case .file(let file)? = try? node(path, "") else { return }
    file.bytes = bytes
    file.durable = bytes
  }

  // MARK: What a crash leaves

  private func settle(_ directory: Directory, _ random: inout SplitMix) {
    var left = directory.durable
    for change in directory.pending where random.next() & 1 == 0 { change.apply(to: &left) }
    directory.entries = left
    directory.durable = left
    directory.pending = []
    for (_, node) in left.sorted(by: { $0.key < $1.key }) {
      switch node {
      case .directory(let below): settle(below, &random)
      case .file(let file): settle(file, &random)
      }
    }
  }

  private func settle(_ file: File, _ random: inout SplitMix) {
    let unsynced = file.bytes.count - file.durable.count
    if unsynced > 0 {
      // The length may have reached the disk, and the bytes not: then there are zeros, or what lay there before.
      let kept = random.below(unsynced + 1)
      tornFiles += 1
      var tail = Array(file.bytes[file.durable.count..<file.durable.count + kept])
      if kept > 0, random.next() & 1 == 0 {
        let start = random.below(kept)
        let filler = UInt8(truncatingIfNeeded: random.next() & 1 == 0 ? 0 : random.next())
        for index in start..<min(kept, start + 512) { tail[index] = filler }
      }
      file.durable += tail
    }
    file.bytes = file.durable
    file.isPoisoned = false
  }

  // MARK: Failures and paths

  private func step(_ operation: String, _ path: String) throws(FileSystemFailure) {
    defer { operations += 1 }
    guard let failing else { return }
    if failing.onwards ? operations >= failing.operation : operations == failing.operation {
      let isRead = operation.hasPrefix("read") || operation == "look at"
      if isRead, failing.sparesReads { return }
      if isRead { failedReads += 1 } else { failedWrites += 1 }
      throw FileSystemFailure(operation: operation, path: path, code: failing.code)
    }
  }

  private func parts(_ path: String) -> [String] { path.split(separator: "/").map(String.init) }

  private func directory(_ parts: ArraySlice<String>, _ operation: String) throws(FileSystemFailure) -> Directory {
    var at = root
    for part in parts {
      let path = "/" + parts.joined(separator: "/")
      guard let next = at.entries[part] else {
        throw FileSystemFailure(operation: operation, path: path, code: ENOENT)
      }
      guard case .directory(let below) = next else {
        throw FileSystemFailure(operation: operation, path: path, code: ENOTDIR)
      }
      at = below
    }
    return at
  }

  private func place(
    _ path: String, _ operation: String
  ) throws(FileSystemFailure) -> (directory: Directory, name: String) {
    let parts = parts(path)
    guard let name = parts.last else { throw FileSystemFailure(operation: operation, path: path, code: EEXIST) }
    return (try directory(parts.dropLast(), operation), name)
  }

  private func node(_ path: String, _ operation: String) throws(FileSystemFailure) -> Node {
    if parts(path).isEmpty { return .directory(root) }
    let (directory, name) = try place(path, operation)
    guard let node = directory.entries[name] else {
      throw FileSystemFailure(operation: operation, path: path, code: ENOENT)
    }
    return node
  }

  private func file(_ path: String, _ operation: String) throws(FileSystemFailure) -> File {
    guard case .file(let file) = try node(path, operation) else {
      throw FileSystemFailure(operation: operation, path: path, code: EISDIR)
    }
    return file
  }

  private func add(_ node: Node, at path: String, _ operation: String) throws(FileSystemFailure) {
    let (directory, name) = try place(path, operation)
    guard directory.entries[name] == nil else {
      throw FileSystemFailure(operation: operation, path: path, code: EEXIST)
    }
    directory.entries[name] = node
    directory.pending.append(.add(name, node))
  }

  // MARK: FileSystem

  public func create(_ path: String) throws(FileSystemFailure) -> WritableFile {
    try step("create", path)
    let file = File()
    try add(.file(file), at: path, "create")
    let handle = WritableFile(number: nextHandle)
    nextHandle += 1
    open[handle] = (path, file)
    return handle
  }

  private func opened(
    _ file: WritableFile, _ operation: String
  ) throws(FileSystemFailure) -> (path: String, file: File) {
    guard let found = open[file] else { throw FileSystemFailure(operation: operation, path: "", code: EBADF) }
    return found
  }

  public func append(_ bytes: UnsafeRawBufferPointer, to file: WritableFile) throws(FileSystemFailure) {
    let (path, target) = try opened(file, "write")
    do { try step("write", path) } catch {
      // A full disk takes what it can.
      target.bytes.append(contentsOf: bytes.prefix(random.below(bytes.count + 1)))
      throw error
    }
    target.bytes.append(contentsOf: bytes)
  }

  public func sync(_ file: WritableFile) throws(FileSystemFailure) {
    let (path, target) = try opened(file, "sync")
    do { try step("sync", path) } catch {
      target.isPoisoned = true
      throw error
    }
    if !target.isPoisoned { target.durable = target.bytes }
  }

  public func close(_ file: WritableFile) { open[file] = nil }

  public func syncDirectory(_ path: String) throws(FileSystemFailure) {
    try step("sync directory", path)
    let directory = try directory(parts(path)[...], "sync directory")
    directory.durable = directory.entries
    directory.pending = []
  }

  public func rename(_ from: String, to: String) throws(FileSystemFailure) {
    try step("rename", from)
    let (source, oldName) = try place(from, "rename")
    let (target, newName) = try place(to, "rename")
    guard let node = source.entries[oldName] else {
      throw FileSystemFailure(operation: "rename", path: from, code: ENOENT)
    }
    // A rename across directories would be two changes here, and one on a disk.
    guard source === target else { throw FileSystemFailure(operation: "rename", path: from, code: EXDEV) }
    if case .directory(let below)? = target.entries[newName], !below.entries.isEmpty {
      throw FileSystemFailure(operation: "rename", path: from, code: ENOTEMPTY)
    }
    let change = Change.rename(oldName, to: newName, node)
    change.apply(to: &source.entries)
    source.pending.append(change)
  }

  public func remove(_ path: String) throws(FileSystemFailure) {
    try step("remove", path)
    _ = try file(path, "remove")
    let (directory, name) = try place(path, "remove")
    directory.entries[name] = nil
    directory.pending.append(.remove(name))
  }

  public func removeDirectory(_ path: String) throws(FileSystemFailure) {
    try step("remove directory", path)
    let (directory, name) = try place(path, "remove directory")
    guard case .directory(let removed) = try node(path, "remove directory") else {
      throw FileSystemFailure(operation: "remove directory", path: path, code: ENOTDIR)
    }
    guard removed.entries.isEmpty else {
      throw FileSystemFailure(operation: "remove directory", path: path, code: ENOTEMPTY)
    }
    directory.entries[name] = nil
    directory.pending.append(.remove(name))
  }

  public func makeDirectory(_ path: String) throws(FileSystemFailure) {
    try step("create directory", path)
    try add(.directory(Directory()), at: path, "create directory")
  }

  public func list(_ path: String) throws(FileSystemFailure) -> [String] {
    try step("read directory", path)
    return try directory(parts(path)[...], "read directory").entries.keys.sorted()
  }

  public func read(_ path: String, offset: Int, count: Int) throws(FileSystemFailure) -> [UInt8] {
    try step("read", path)
    return Array(try file(path, "read").bytes.dropFirst(max(0, offset)).prefix(max(0, count)))
  }

  public func size(_ path: String) throws(FileSystemFailure) -> Int {
    try step("look at", path)
    return try file(path, "look at").bytes.count
  }
}

/// Steele, Lea and Flood's SplitMix64: one seed, one course of events.
struct SplitMix {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ mixed &>> 30) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ mixed &>> 27) &* 0x94D0_49BB_1331_11EB
    return mixed ^ mixed &>> 31
  }

  /// At least 0 and below `bound` (> 0).
  mutating func below(_ bound: Int) -> Int { Int(truncatingIfNeeded: next() % UInt64(bound)) }
}
