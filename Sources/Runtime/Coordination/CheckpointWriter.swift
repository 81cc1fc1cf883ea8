import Synchronization

/// Runs jobs one after the other, away from the caller: a thread, or the scheduler of a simulation.
public protocol BackgroundExecutor: AnyObject, Sendable {
  func run(_ job: @escaping @Sendable () -> Void)
}

/// A thread a job. There is one job at a time here, every few seconds.
public final class ThreadExecutor: BackgroundExecutor {
  private let running: Mutex<WorkerThread?> = Mutex(nil)
  public init() {}

  public func run(_ job: @escaping @Sendable () -> Void) {
    // A thread that cannot be had must not cost the checkpoint: then the caller waits for it.
    guard let thread = try? WorkerThread(job) else { return job() }
    let before = running.withLock { running in
      defer { running = thread }
      return running
    }
    before?.join()
  }

  /// Waits for the job at hand.
  public func wait() {
    let thread = running.withLock { running in
      defer { running = nil }
      return running
    }
    thread?.join()
  }
}

/// Stores checkpoints in the background, one at a time, and keeps what happened.
final class CheckpointWriter {
  /// What became of a checkpoint.
  struct Outcome: Sendable {
    /// Nil when it failed.
    var manifest: CheckpointManifest?
    var failure: String?
    var nanos: Int64
  }

  private let store: any CheckpointStore
  private let executor: any BackgroundExecutor
  private let slot = OutcomeSlot()
  private(set) var isBusy = false

  // @unchecked: the store is used by one job at a time, and by others only while there is none.
  private struct Job: @unchecked Sendable {
    let store: any CheckpointStore
    let manifest: CheckpointManifest
    let sections: [StateSection]
    let slot: OutcomeSlot
  }

  private final class OutcomeSlot: Sendable {
    let outcome: Mutex<Outcome?> = Mutex(nil)
  }

  init(store: any CheckpointStore, executor: any BackgroundExecutor) {
    self.store = store
    self.executor = executor
  }

  func write(_ manifest: CheckpointManifest, _ sections: [StateSection]) {
    precondition(!isBusy, "one checkpoint at a time")
    isBusy = true
    let job = Job(store: store, manifest: manifest, sections: sections, slot: slot)
    executor.run {
      let began = monotonicNanos()
      var outcome = Outcome(nanos: 0)
      do { outcome.manifest = try job.store.write(job.manifest, job.sections) } catch { outcome.failure = "\(error)" }
      outcome.nanos = monotonicNanos() - began
      let done = outcome
      job.slot.outcome.withLock { $0 = done }
    }
  }

  /// What became of the checkpoint at hand, once.
  func take() -> Outcome? {
    guard isBusy else { return nil }
    let outcome = slot.outcome.withLock { outcome in
      defer { outcome = nil }
      return outcome
    }
    if outcome != nil { isBusy = false }
    return outcome
  }

  /// Removes old checkpoints, in the background as well; what cannot be removed now is removed later.
  /// `youngest` spares what was made since, by whomever: another daemon may be about to commit it. `number` spares what
  /// was there before that checkpoint.
  func prune(
    keep: Int, alive: Set<String>, sparingSince youngest: Int64? = nil, sparingBefore number: UInt64? = nil
  ) {
    guard !isBusy else { return }
    isBusy = true
    let job = Job(
      store: store, manifest: CheckpointManifest(name: "", number: 0, createdNanos: 0, group: "", revision: "", workers: 0),
      sections: [], slot: slot)
    executor.run {
      var outcome = Outcome(nanos: 0)
      do {
        var alive = alive
        if youngest != nil || number != nil {
          for one in try job.store.list()
          where one.createdNanos >= youngest ?? .max || one.number < number ?? 0 { alive.insert(one.name) }
        }
        try job.store.prune(keep: keep, alive: alive)
      } catch { outcome.failure = "\(error)" }
      let done = outcome
      job.slot.outcome.withLock { $0 = done }
    }
  }
}
