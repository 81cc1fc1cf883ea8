/// Checkpoints in a directory: `<path>/<group>/<checkpoint>/` with `state-00001` … and `manifest`.
///
/// The manifest comes last, by rename, after everything that it names was synced: a directory without one is no
/// checkpoint. Several daemons may share a directory.
public final class DirectoryCheckpointStore: CheckpointArchive {
  private static let manifestName = "manifest"
  /// Under this name until it is whole.
  private static let draftName = "manifest.tmp"
  /// A left-over is moved out of its writer's way before it is removed; see `removeUnfinished`.
  private static let trashPrefix = "trash-"
  private static let pieceBytes = 1 << 20

  private let files: any FileSystem
  private let path: String
  private let groupPath: String
  private let fileBytes: Int
  /// Names whose writing failed, and whose traces could not be removed yet: they are not to be seen.
  private var abandoned: Set<String> = []
  private var isEstablished = false

  public var place: String { path }

  /// `path` is made at the first `write`. After `fileBytes` a new state file is begun. Throws when `group` is empty
  /// or too long for a directory's name.
  public init(
    path: String, group: String, files: any FileSystem = PosixFileSystem(), fileBytes: Int = 64 << 20
  ) throws(CheckpointFailure) {
    self.files = files
    self.fileBytes = fileBytes
    self.path = path
    let name = Self.directoryName(group)
    guard !group.isEmpty, name.utf8.count <= 200 else {
      throw CheckpointFailure("the group's name is empty or too long for a directory of checkpoints")
    }
    groupPath = "\(path)/\(name)"
  }

  /// Kafka takes any text as the name of a group; what is not plain is written as `%` and two digits.
  private static func directoryName(_ group: String) -> String {
    var bytes: [UInt8] = []
    for (index, byte) in group.utf8.enumerated() {
      if isPlain(byte), !(index == 0 && byte == UInt8(ascii: ".")) {
        bytes.append(byte)
      } else {
        bytes += [UInt8(ascii: "%"), hexDigit(byte >> 4), hexDigit(byte & 15)]
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  private func directory(_ name: String) -> String { "\(groupPath)/\(name)" }

  private func attempt<T>(_ what: String, _ body: () throws -> T) throws(CheckpointFailure) -> T {
    do { return try body() } catch {
      throw CheckpointFailure("\(what): \(error)", mayPass: CheckpointFailure.mayPass(error))
    }
  }

  // MARK: Writing

  public func store(
    _ manifest: CheckpointManifest, _ contents: [SectionContent]
  ) throws -> CheckpointManifest {
    let name = manifest.name
    return try attempt("checkpoint \(name) is not stored") {
      guard isCheckpointName(name), !name.hasPrefix(Self.trashPrefix) else {
        throw CheckpointFailure("this is no name for a checkpoint")
      }
      removeAbandoned()
      try establish()
      try begin(name)
      // From here on there are traces.
      abandoned.insert(name)
      do {
        let written = try fill(manifest, contents)
        abandoned.remove(name)
        return written
      } catch {
        removeAbandoned()
        throw error
      }
    }
  }

  /// Makes the group's directory, once durably: a crash must not take the directory that checkpoints are in.
  private func establish() throws {
    try files.makeDirectories(groupPath)
    if isEstablished { return }
    // Also what an earlier process made and did not live to sync.
    var below = groupPath
    while let above = parentPath(below) {
      // A directory that we may not read is not one that we made.
      do { try files.syncDirectory(above) } catch { if !error.isDenied { throw error } }
      below = above
    }
    isEstablished = true
  }

  private func begin(_ name: String) throws {
    do { try files.makeDirectory(directory(name)) } catch {
      guard error.isExisting else {
        // The directory may have been removed under us; look again next time.
        isEstablished = false
        throw error
      }
      // What an attempt under the same name left behind.
      let content = try files.list(directory(name))
      guard !content.contains(Self.manifestName) else { throw CheckpointFailure("there is one of that name") }
      for file in content { try files.remove("\(directory(name))/\(file)") }
    }
  }

  private func fill(
    _ manifest: CheckpointManifest, _ contents: [SectionContent]
  ) throws -> CheckpointManifest {
    var manifest = manifest
    let directory = directory(manifest.name)
    let writer = StateFileWriter(files: files, directory: directory, fileBytes: fileBytes)
    manifest.sections = try contents.map { try writer.write($0) }
    try writer.finishFile()
    try files.syncDirectory(directory)
    try files.syncDirectory(groupPath)

    let draft = "\(directory)/\(Self.draftName)"
    let file = try files.create(draft)
    defer { files.close(file) }
    let bytes = try ManifestCoding.encode(manifest)
    try bytes.withUnsafeBytes { try files.append($0, to: file) }
    try files.sync(file)
    try files.rename(draft, to: "\(directory)/\(Self.manifestName)")
    try files.syncDirectory(directory)
    return manifest
  }

  /// Removes traces of writes that failed, as far as the disk lets us.
  private func removeAbandoned() {
    for name in abandoned.sorted() {
      do {
        try remove(name)
        abandoned.remove(name)
      } catch {
        // Tried again before the next write; until then `survey` passes over it.
      }
    }
  }

  /// The manifest goes first: a checkpoint with half its files must not look like one, after a crash neither. What
  /// another daemon has removed meanwhile is as good as removed.
  private func remove(_ name: String) throws(FileSystemFailure) {
    let directory = directory(name)
    var content: [String] = []
    try unlessMissing { () throws(FileSystemFailure) in content = try files.list(directory) }
    if content.contains(Self.manifestName) {
      try unlessMissing { () throws(FileSystemFailure) in
        try files.remove("\(directory)/\(Self.manifestName)")
        try files.syncDirectory(directory)
      }
    }
    for file in content where file != Self.manifestName {
      try unlessMissing { () throws(FileSystemFailure) in try files.remove("\(directory)/\(file)") }
    }
    try unlessMissing { () throws(FileSystemFailure) in
      try files.removeDirectory(directory)
      try files.syncDirectory(groupPath)
    }
  }

  private func unlessMissing(_ body: () throws(FileSystemFailure) -> Void) throws(FileSystemFailure) {
    do { try body() } catch { if !error.isMissing { throw error } }
  }

  // MARK: Looking

  private func names() throws -> [String] {
    do { return try files.list(groupPath) } catch {
      if error.isMissing { return [] }
      throw error
    }
  }

  public func survey() throws -> [SurveyedCheckpoint] {
    try attempt("the checkpoints in \(groupPath) cannot be listed") {
      var found: [SurveyedCheckpoint] = []
      for name in try names()
      where isCheckpointName(name) && !name.hasPrefix(Self.trashPrefix) && !abandoned.contains(name) {
        var entry = SurveyedCheckpoint(name: name)
        do {
          guard let manifest = try load(name) else {
            // Gone meanwhile, a stray file, or not finished.
            if (try? files.list(directory(name))) != nil { found.append(entry) }
            continue
          }
          entry.manifest = manifest
        } catch let damage as CheckpointFailure {
          entry.problem = damage.description
        }
        found.append(entry)
      }
      func number(_ entry: SurveyedCheckpoint) -> UInt64 {
        entry.manifest?.number ?? checkpointNumber(entry.name) ?? 0
      }
      return found.sorted { (number($0), $0.name) < (number($1), $1.name) }
    }
  }

  /// Nil when there is none; `CheckpointFailure` for a damaged one, `FileSystemFailure` for what the disk says.
  private func load(_ name: String) throws -> CheckpointManifest? {
    let path = "\(directory(name))/\(Self.manifestName)"
    let bytes: [UInt8]
    do {
      guard try files.size(path) <= ManifestCoding.bytesMax else { throw CheckpointFailure("the manifest is too long") }
      bytes = try files.read(path, offset: 0, count: ManifestCoding.bytesMax + 1)
    } catch let failure as FileSystemFailure {
      if failure.isMissing { return nil }
      throw failure
    }
    let manifest = try ManifestCoding.decode(bytes)
    guard manifest.name == name else { throw CheckpointFailure("the manifest is that of \(manifest.name)") }
    return manifest
  }

  public func manifest(named name: String) throws -> CheckpointManifest? {
    guard isCheckpointName(name), !abandoned.contains(name) else { return nil }
    return try attempt("checkpoint \(name) cannot be read") { try load(name) }
  }

  public func readStored(
    _ section: StoredSection, of manifest: CheckpointManifest, _ take: (UnsafeRawBufferPointer) throws -> Void
  ) throws {
    let path = try statePath(section.file, of: manifest)
    try checkHeader(path)
    guard section.offset >= StateFileWriter.header.count, section.storedBytes >= 0 else {
      throw CheckpointFailure("the manifest says where no section can be")
    }
    var done = 0
    while done < section.storedBytes {
      let piece = try files.read(
        path, offset: section.offset + done, count: min(Self.pieceBytes, section.storedBytes - done))
      guard !piece.isEmpty else { return }
      try piece.withUnsafeBytes(take)
      done += piece.count
    }
  }

  private func statePath(_ file: String, of manifest: CheckpointManifest) throws(CheckpointFailure) -> String {
    guard StateFileWriter.isName(file), isCheckpointName(manifest.name) else {
      throw CheckpointFailure("the manifest names a file that is none of ours")
    }
    return "\(directory(manifest.name))/\(file)"
  }

  private func checkHeader(_ path: String) throws {
    let header = try files.read(path, offset: 0, count: StateFileWriter.header.count)
    guard header.starts(with: StateFileWriter.header.prefix(8)) else {
      throw CheckpointFailure("this is no state file")
    }
    guard header == StateFileWriter.header else {
      throw CheckpointFailure("this program does not know the file's version, or its header is damaged")
    }
  }

  public func damage(around manifest: CheckpointManifest) throws -> [String] {
    var problems: [String] = []
    let ends = Dictionary(grouping: manifest.sections, by: \.file).mapValues { sections in
      sections.reduce(StateFileWriter.header.count) { max($0, $1.offset + $1.storedBytes) }
    }
    for (file, end) in ends.sorted(by: { $0.key < $1.key }) {
      do {
        let path = try statePath(file, of: manifest)
        try checkHeader(path)
        let size = try files.size(path)
        if size != end { problems.append("\(file) has \(size) bytes instead of \(end)") }
      } catch {
        problems.append("\(file): \(error)")
      }
    }
    let content = try attempt("checkpoint \(manifest.name) cannot be read") {
      try files.list(directory(manifest.name))
    }
    for file in content where file != Self.manifestName && ends[file] == nil {
      problems.append("\(file) is no part of the checkpoint")
    }
    return problems
  }

  // MARK: Removing

  public func prune(keep: Int, alive: Set<String>) throws {
    removeAbandoned()
    let known = try survey()
    let complete = known.compactMap(\.manifest)
    var problem: (any Error)?
    // One that cannot be removed must not keep the others.
    func attemptAll(_ names: [String], _ body: (String) throws -> Void) {
      for name in names {
        do { try body(name) } catch { problem = problem ?? error }
      }
    }
    attemptAll(prunable(complete, keep: keep, alive: alive).map(\.name), remove)
    if let newest = complete.map(\.number).max() {
      let left = known.filter { entry in
        entry.manifest == nil && entry.problem == nil && !alive.contains(entry.name)
          && checkpointNumber(entry.name).map { $0 < newest } ?? false
      }
      attemptAll(left.map(\.name), removeUnfinished)
    }
    do { attemptAll(try names().filter { $0.hasPrefix(Self.trashPrefix) }, settleTrash) } catch {
      problem = problem ?? error
    }
    if let problem { throw CheckpointFailure("old checkpoints are not removed: \(problem)") }
  }

  /// What has no manifest and a newer complete checkpoint is left over from a crash; unless its writer, another daemon,
  /// is that slow. So it is moved away first: a writer that is still there then fails, and never believes to have
  /// stored what we are removing.
  private func removeUnfinished(_ name: String) throws {
    try unlessMissing { () throws(FileSystemFailure) in
      try files.rename(directory(name), to: directory(Self.trashPrefix + name))
    }
  }

  /// Removes what was moved away, and gives back what was finished in the last moment.
  private func settleTrash(_ trash: String) throws {
    let content = try files.list(directory(trash))
    if content.contains(Self.manifestName) {
      return try files.rename(directory(trash), to: directory(String(trash.dropFirst(Self.trashPrefix.count))))
    }
    try remove(trash)
  }
}
