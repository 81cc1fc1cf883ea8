/// A partition as commits and checkpoints know it, whatever the rules' order of sources.
public struct PartitionKey: Sendable, Hashable {
  public var source: String
  public var topic: String
  public var partition: Int32
  public init(source: String, topic: String, partition: Int32) {
    self.source = source
    self.topic = topic
    self.partition = partition
  }
}

extension StoredPartition {
  var key: PartitionKey { PartitionKey(source: source, topic: topic, partition: partition) }
}

/// A checkpoint in memory.
struct LoadedCheckpoint {
  var manifest: CheckpointManifest
  var sections: [RestoredState.Section]

  /// The next offset of a partition; nil when the checkpoint does not know it.
  func offset(_ key: PartitionKey) -> Int64? {
    manifest.partitions.first { $0.key == key && $0.offset >= 0 }?.offset
  }
}

/// How the partitions of a source go on.
enum Resumption {
  /// No checkpoint was committed: from the committed offsets, or from the beginning.
  case committed
  /// From a checkpoint's state and offsets.
  case checkpoint(LoadedCheckpoint)
  /// The checkpoint that was committed is lost: by reading again from where its state can be rebuilt.
  case reread(lost: String)

  /// Where a partition has to be read from; nil where its start is right as it is.
  func offset(of key: PartitionKey, resume: ResumePoint?) -> Int64? {
    switch self {
    case .committed: nil
    case .checkpoint(let loaded): loaded.offset(key)
    case .reread: resume?.rereadOffset
    }
  }
}

/// The store of a checkpoint does not answer now.
struct StoreAway: Error {
  var description: String
}

/// Reads checkpoints by name, each once.
struct CheckpointLoader {
  let store: (any CheckpointStore)?
  /// Whether a store that does not answer is waited for: then loading throws `StoreAway`. Otherwise the checkpoint counts
  /// as lost, as one that is missing or damaged does at once.
  let isPatient: Bool
  private var known: [String: LoadedCheckpoint?] = [:]
  /// Why a checkpoint could not be read.
  private(set) var problems: [String] = []

  init(store: (any CheckpointStore)?, isPatient: Bool) {
    self.store = store
    self.isPatient = isPatient
  }

  mutating func load(_ name: String) throws(StoreAway) -> LoadedCheckpoint? {
    if let before = known[name] { return before }
    let loaded = try read(name)
    known[name] = .some(loaded)
    return loaded
  }

  private mutating func read(_ name: String) throws(StoreAway) -> LoadedCheckpoint? {
    guard let store else {
      problems.append("checkpoint \(name) was committed, and there is no checkpoint store to read it from")
      return nil
    }
    do {
      guard let manifest = try store.manifest(named: name) else {
        problems.append("checkpoint \(name) was committed, and is not in the store")
        return nil
      }
      return LoadedCheckpoint(
        manifest: manifest,
        sections: try manifest.sections.map { section in
          RestoredState.Section(
            operatorID: section.operatorID, scope: section.scope, bytes: try store.read(section, of: manifest))
        })
    } catch {
      let problem = "checkpoint \(name) cannot be read: \(error)"
      if isPatient, CheckpointFailure.mayPass(error) { throw StoreAway(description: problem) }
      problems.append(problem)
      return nil
    }
  }

  /// How partitions that were committed together go on. The newest checkpoint that one of them names counts for
  /// all (a commit may have reached some of them only); when one of the names cannot be read, all read again.
  mutating func resumption(of starts: [PartitionStart]) throws(StoreAway) -> Resumption {
    let names = Set(starts.compactMap { ResumePoint(metadata: $0.metadata)?.checkpoint })
    guard !names.isEmpty else { return .committed }
    var newest: LoadedCheckpoint?
    for name in names.sorted() {
      guard let loaded = try load(name) else { return .reread(lost: name) }
      if newest == nil || loaded.manifest.number > newest!.manifest.number { newest = loaded }
    }
    return newest.map { .checkpoint($0) } ?? .committed
  }
}

/// Waiting for a store that does not answer when state is to be restored: reading everything again would take longer than
/// most restarts of a database, but not longer than some never come back.
struct StoreWait {
  /// The first attempt that failed.
  let began: Int64
  private(set) var nextAttempt: Int64
  private(set) var problem: String
  private var pauseNanos: Int64 = 250_000_000
  private static let pauseNanosMax: Int64 = 10_000_000_000

  init(_ away: StoreAway, now: Int64) {
    began = now
    nextAttempt = now + pauseNanos
    problem = away.description
  }

  mutating func failedAgain(_ away: StoreAway, now: Int64) {
    pauseNanos = min(pauseNanos * 2, Self.pauseNanosMax)
    nextAttempt = now + pauseNanos
    problem = away.description
  }
}
