import Connectors
import Glibc
import Planner
import RuleLang
import Runtime
import Synchronization

/// Puts changed rules in the place of those that run: compiles what the rule paths hold now when a signal, a
/// request or the files themselves ask for it, and hands it over only when it compiles.
final class Reloader: @unchecked Sendable {
  // @unchecked: everything but `asked` is the control thread's.

  /// What became of a request.
  enum Answer: Sendable {
    case accepted(revision: String)
    case unchanged(revision: String)
    /// The old rules run on; the text says why.
    case refused(String)
  }

  private struct Asked {
    var isWaiting = false
    var peer: HTTPPeer?
    var number = 0
    var answered = 0
    var answer: Answer?
  }

  private let paths: [String]
  private let keyLimit: Int
  private var watcher: RuleWatcher?
  private var nextLookNanos: Int64 = 0
  private let board: StatusBoard
  private let environment: CommandEnvironment
  private let audit: AuditLog?
  private let check: (TypedProgram) throws -> Void
  private let asked = Mutex(Asked())
  private var program: TypedProgram
  private(set) var revision: String
  /// Who asked for what is being put in place.
  private var pendingPeer: HTTPPeer?
  private var pendingProgram: TypedProgram?
  /// What was refused last: it is not tried again before it changes.
  private var refusedRevision: String?
  /// How long a request over HTTP waits for its answer.
  private static let answerNanos: Int64 = 10_000_000_000

  /// `check` refuses programs that compile but cannot run here.
  init(
    paths: [String], program: TypedProgram, revision: String, watches: Bool, keyLimit: Int, board: StatusBoard,
    environment: CommandEnvironment, audit: AuditLog?, check: @escaping (TypedProgram) throws -> Void
  ) {
    self.paths = paths
    self.keyLimit = keyLimit
    self.program = program
    self.revision = revision
    self.board = board
    self.environment = environment
    self.audit = audit
    self.check = check
    watcher = watches ? RuleWatcher(paths: paths, revision: revision) : nil
  }

  /// From the HTTP face's thread: asks, and waits for what became of it.
  func request(by peer: HTTPPeer) -> Answer {
    let number = asked.withLock { asked in
      asked.isWaiting = true
      asked.peer = peer
      asked.number += 1
      return asked.number
    }
    let deadline = monotonicNanos() + Self.answerNanos
    while monotonicNanos() < deadline {
      if let answer = asked.withLock({ $0.answered >= number ? $0.answer : nil }) { return answer }
      sleepMillis(5)
    }
    return .refused("the daemon is busy; it will look at the rules as soon as it can")
  }

  /// The control thread's turn: rules to be put in place, if there are any.
  func next() -> RunningRules? {
    let (isAsked, peer) = asked.withLock { asked in
      defer {
        asked.isWaiting = false
        asked.peer = nil
      }
      return (asked.isWaiting, asked.peer)
    }
    let isSignalled = reloadSignal.exchange(false, ordering: .relaxed)
    let isChanged = looksForChange()
    guard isAsked || isSignalled || isChanged else { return nil }
    let (answer, rules) = compile(by: peer, isExplicit: isAsked || isSignalled)
    if isAsked {
      asked.withLock { asked in
        asked.answered = asked.number
        asked.answer = answer
      }
    }
    return rules
  }

  private func looksForChange() -> Bool {
    let now = monotonicNanos()
    guard now >= nextLookNanos else { return false }
    nextLookNanos = now + RuleWatcher.intervalNanos
    return watcher?.poll() != nil
  }

  private func compile(by peer: HTTPPeer?, isExplicit: Bool) -> (Answer, RunningRules?) {
    do {
      let loaded = try loadRules(paths)
      if loaded.revision == revision {
        refusedRevision = nil
        board.noteRulesCurrent()
        return (.unchanged(revision: revision), nil)
      }
      if loaded.revision == refusedRevision, !isExplicit { return (.refused("not changed since it was refused"), nil) }
      guard let program = loaded.program else {
        let text = loaded.text(useColor: false)
        return (refuse("the rules have \(counted(loaded.errorCount, "error"))\n\(text)", loaded.revision, by: peer), nil)
      }
      try check(program)
      let change = RuleSetChange(from: self.program, to: program)
      environment.note("reload: \(change.countsText)")
      pendingPeer = peer
      pendingProgram = program
      revision = loaded.revision
      refusedRevision = nil
      return (
        .accepted(revision: loaded.revision),
        RunningRules(graph: buildPlan(program).lower(keyLimit: keyLimit), revision: loaded.revision)
      )
    } catch {
      return (refuse((error as? CommandFailure)?.message ?? "\(error)", nil, by: peer), nil)
    }
  }

  private func refuse(_ reason: String, _ refused: String?, by peer: HTTPPeer?) -> Answer {
    refusedRevision = refused
    board.noteFailedReload(reason)
    environment.note("reload refused, the old rules run on: \(reason)")
    audit?.record(.reload, by: peer, revision: refused ?? revision, rules: names(program), .refused(reason))
    return .refused(reason)
  }

  /// What the coordinator did with the rules.
  func note(_ event: CoordinatorEvent) {
    switch event {
    case .reloaded(let rules):
      if let next = pendingProgram { program = next }
      pendingProgram = nil
      environment.note("reload: revision \(rules.revision) runs")
      audit?.record(.reload, by: pendingPeer, revision: rules.revision, rules: names(program), .done())
    case .reloadFailed(let reason):
      environment.note("reload failed, the old rules run on: \(reason)")
      audit?.record(.reload, by: pendingPeer, revision: revision, rules: names(program), .failed(reason))
      // So that the same files are tried again when somebody asks.
      pendingProgram = nil
      revision = board.current.rules?.revision ?? ""
    case .engineStarted, .checkpoint, .checkpointFailed, .committed, .commitFailed, .rereads, .restoreDelayed, .barrier,
      .transactionAborted, .engineEnded:
      return
    }
  }

  /// Rules that run, by name. For the control thread.
  var ruleNames: [String] { names(program) }

  private func names(_ program: TypedProgram) -> [String] {
    program.metrics.map(\.name) + program.alerts.map(\.name) + program.patterns.map(\.name) + program.anomalies.map(\.name)
  }
}
