@testable import Runtime

/// How long a process lives: so many calls to the world outside. The call at which it dies may or may not have been
/// done; no later one is.
final class Life {
  struct Dead: Error {}
  enum Moment { case elsewhere, readingState, writingState, writingManifest }
  private(set) var isOver = false
  /// In the middle of what it ended; nil when somebody else ended it.
  private(set) var endedIn: Moment?
  private var left: Int
  let limit: Int

  init(calls: Int) {
    left = calls
    limit = calls
  }

  func end() { isOver = true }

  /// It ends within so many calls.
  func shorten(to calls: Int) { left = min(left, calls) }

  /// Before and after each effect.
  func pass(_ moment: Moment = .elsewhere) throws {
    if isOver { throw Dead() }
    left -= 1
    if left <= 0 {
      isOver = true
      endedIn = moment
      throw Dead()
    }
  }

  func around<T>(_ effect: () throws -> T) throws -> T {
    try pass()
    let result = try effect()
    try pass()
    return result
  }
}

/// Runs jobs when the scheduler says so.
final class QueuedExecutor: BackgroundExecutor, @unchecked Sendable {
  // @unchecked: a simulation has one thread.
  private var jobs: [@Sendable () -> Void] = []
  func run(_ job: @escaping @Sendable () -> Void) { jobs.append(job) }
  var isIdle: Bool { jobs.isEmpty }
  /// Answers whether there was one.
  func runNext() -> Bool {
    if jobs.isEmpty { return false }
    jobs.removeFirst()()
    return true
  }
}

final class MortalSource: LiveSource {
  let inner: SimulatedSource
  private let life: Life
  /// What the process is made to believe that was committed.
  private let readsMetadata: (String) -> String

  init(_ inner: SimulatedSource, _ life: Life, readsMetadata: @escaping (String) -> String) {
    self.inner = inner
    self.life = life
    self.readsMetadata = readsMetadata
  }

  var schema: SourceSchema { inner.schema }
  func poll(timeoutMillis: Int) -> [AssignmentChange] {
    guard (try? life.pass()) != nil else { return [] }
    return inner.poll(timeoutMillis: timeoutMillis).map { change in
      guard case .assigned(var starts) = change else { return change }
      for index in starts.indices { starts[index].metadata = readsMetadata(starts[index].metadata) }
      return .assigned(starts)
    }
  }
  func released(_ partitions: [PartitionIdentity]) { if !life.isOver { inner.released(partitions) } }
  func restart() { if !life.isOver { inner.restart() } }
  func adopt(_ schema: SourceSchema) { inner.adopt(schema) }
  func committedMetadata() throws -> [String] { try life.around { try inner.committedMetadata() } }
  func commit(_ points: [CommitPoint]) throws { try life.around { try inner.commit(points) } }
  func groupHandle() throws -> any ConsumerGroupHandle { try inner.groupHandle() }
  var problem: String? { inner.problem }
  func lagRecords() -> [PartitionIdentity: Int64] { [:] }
  var holdsLead: Bool { inner.holdsLead }
  func setLeading(_ isLeading: Bool) { if !life.isOver { inner.setLeading(isLeading) } }
  func close() { if !life.isOver { inner.close() } }
}

/// At least once.
final class MortalSink: RecordSink {
  private let inner: SimulatedSink
  private let life: Life
  private let waits: Bool

  private var late: OutputBatch?

  /// `waits` false: says that records are durable without looking, and sends them when the next ones come, or when the
  /// engine ends in peace.
  init(_ inner: SimulatedSink, _ life: Life, waits: Bool) {
    self.inner = inner
    self.life = life
    self.waits = waits
  }

  func write(_ batch: OutputBatch) throws {
    guard !waits else { return try life.around { try inner.write(batch) } }
    try life.around { if let late { try inner.write(late) } }
    late = batch
  }
  func flush() throws {
    if let late { try life.around { try inner.write(late) } }
    late = nil
    try life.around { try inner.flush() }
  }
  func barrier(_ epoch: UInt64) { if !life.isOver { inner.barrier(epoch) } }
  func complete(_ epoch: UInt64) throws { if waits { try life.around { try inner.complete(epoch) } } }
  var problem: String? { nil }
  func close() {}
}

/// Exactly once.
final class MortalTransactionalSink: TransactionalSink {
  private let inner: SimulatedTransactionalSink
  private let life: Life
  /// Commits offsets outside of the transaction.
  private let commitsApart: (([CommitPoint], Int) throws -> Void)?

  init(
    _ inner: SimulatedTransactionalSink, _ life: Life, commitsApart: (([CommitPoint], Int) throws -> Void)?
  ) {
    self.inner = inner
    self.life = life
    self.commitsApart = commitsApart
  }

  func prepare() throws { try life.around { try inner.prepare() } }
  func commit(_ epoch: UInt64, _ offsets: [SourceOffsets]) throws {
    guard let commitsApart else { return try life.around { try inner.commit(epoch, offsets) } }
    try life.around { try inner.commit(epoch, []) }
    for source in offsets { try life.around { try commitsApart(source.points, source.source) } }
  }
  func abort() { if !life.isOver { inner.abort() } }
  func write(_ batch: OutputBatch) throws { try life.around { try inner.write(batch) } }
  func flush() throws { try life.around { try inner.flush() } }
  func barrier(_ epoch: UInt64) { if !life.isOver { inner.barrier(epoch) } }
  func complete(_ epoch: UInt64) {}
  var problem: String? { nil }
  func close() {}
}

/// A disk that a process loses with its life, between any two operations.
final class MortalFileSystem: FileSystem {
  private let inner: SimulatedFileSystem
  private let life: Life
  private var paths: [WritableFile: String] = [:]
  /// Directories whose manifest this process has put in its place.
  private(set) var manifests: [String] = []

  init(_ inner: SimulatedFileSystem, _ life: Life) {
    self.inner = inner
    self.life = life
  }

  private func check(_ path: String, _ moment: Life.Moment = .elsewhere) throws(FileSystemFailure) {
    do { try life.pass(moment) } catch { throw FileSystemFailure(operation: "reach", path: path, code: 5) }
  }

  private func moment(writing path: String) -> Life.Moment {
    path.contains("/manifest") ? .writingManifest : .writingState
  }

  func create(_ path: String) throws(FileSystemFailure) -> WritableFile {
    try check(path)
    let file = try inner.create(path)
    paths[file] = path
    return file
  }
  func append(_ bytes: UnsafeRawBufferPointer, to file: WritableFile) throws(FileSystemFailure) {
    let path = paths[file] ?? ""
    let wasAlive = !life.isOver
    do { try check(path, moment(writing: path)) } catch {
      // The kernel had taken half of it.
      if wasAlive { try inner.append(UnsafeRawBufferPointer(rebasing: bytes.prefix(bytes.count / 2)), to: file) }
      throw error
    }
    try inner.append(bytes, to: file)
  }
  func sync(_ file: WritableFile) throws(FileSystemFailure) {
    let path = paths[file] ?? ""
    try check(path, moment(writing: path))
    try inner.sync(file)
  }
  func close(_ file: WritableFile) { inner.close(file) }
  func syncDirectory(_ path: String) throws(FileSystemFailure) {
    try check(path)
    try inner.syncDirectory(path)
  }
  func rename(_ from: String, to: String) throws(FileSystemFailure) {
    try check(from)
    try inner.rename(from, to: to)
    if to.hasSuffix("/manifest"), let name = to.split(separator: "/").dropLast().last { manifests.append(String(name)) }
  }
  func remove(_ path: String) throws(FileSystemFailure) {
    try check(path)
    try inner.remove(path)
  }
  func removeDirectory(_ path: String) throws(FileSystemFailure) {
    try check(path)
    try inner.removeDirectory(path)
  }
  func makeDirectory(_ path: String) throws(FileSystemFailure) {
    try check(path)
    try inner.makeDirectory(path)
  }
  func list(_ path: String) throws(FileSystemFailure) -> [String] {
    try check(path)
    return try inner.list(path)
  }
  func read(_ path: String, offset: Int, count: Int) throws(FileSystemFailure) -> [UInt8] {
    try check(path, .readingState)
    return try inner.read(path, offset: offset, count: count)
  }
  func size(_ path: String) throws(FileSystemFailure) -> Int {
    try check(path)
    return try inner.size(path)
  }
}

/// Stores that break the protocol on purpose.
final class BrokenStore: CheckpointStore {
  private let inner: any CheckpointStore
  private let mutation: Mutation?
  private var late: (manifest: CheckpointManifest, sections: [StateSection])?

  init(_ inner: any CheckpointStore, _ mutation: Mutation?) {
    self.inner = inner
    self.mutation = mutation
  }

  func write(_ manifest: CheckpointManifest, _ sections: [StateSection]) throws -> CheckpointManifest {
    guard mutation == .commitsBeforeManifest else { return try inner.write(manifest, sections) }
    if let late { _ = try inner.write(late.manifest, late.sections) }
    late = (manifest, sections)
    return manifest
  }
  func list() throws -> [CheckpointManifest] { try inner.list() }
  func manifest(named name: String) throws -> CheckpointManifest? { try inner.manifest(named: name) }
  func read(_ section: StoredSection, of manifest: CheckpointManifest) throws -> [UInt8] {
    try inner.read(section, of: manifest)
  }
  func prune(keep: Int, alive: Set<String>) throws {
    if mutation == .prunesWhatIsNamed { return try inner.prune(keep: 0, alive: []) }
    try inner.prune(keep: keep, alive: alive)
  }
}

/// Deliberate mistakes in the protocol, which the simulation must notice by what is committed in the end.
enum Mutation: String, CaseIterable, Sendable {
  /// An offset names a checkpoint that is not stored yet.
  case commitsBeforeManifest
  /// Offsets are committed before the records before them are on the brokers.
  case commitsBeforeRecords
  /// Workers capture as soon as they hear of a barrier.
  case barrierNotAligned
  /// A start goes on from the committed offset, whatever its metadata says.
  case metadataNotRead
  /// What had been written since the checkpoint is written once more.
  case writtenNotRemembered
  /// Offsets are committed beside the transaction.
  case offsetsOutsideTransaction
  /// Old checkpoints are removed although an offset names them.
  case prunesWhatIsNamed

  /// Whether the code with the mistake runs in such a history at all.
  func concerns(_ plan: HistoryPlan) -> Bool {
    switch self {
    // With transactions there is nothing else to wait for.
    case .commitsBeforeRecords: !plan.isExactlyOnce
    case .offsetsOutsideTransaction: plan.isExactlyOnce
    // There is one worker to an engine where partitions are shared out.
    case .barrierNotAligned: !plan.isShared
    // Who may write twice may do that.
    case .writtenNotRemembered: plan.isExactlyOnce
    case .commitsBeforeManifest, .metadataNotRead, .prunesWhatIsNamed: true
    }
  }
}
