// How engines end, and what their successors go on with: after a rebalance, a change of the rules, or at the end.

extension Coordinator {
  /// Between two attempts of a last commit.
  private static let commitRetryNanos: Int64 = 100_000_000

  /// Everything that was captured has been stored, or cannot be.
  func finish(_ handOver: HandOver) throws {
    switch try commit(handOver.epoch, handOver.stands) {
    case .done: break
    case .failed(let mayPass):
      // A group that is rebalancing takes no offsets. What is not committed now is written twice by whoever comes next.
      if mayPass, now < handOver.deadline {
        var later = handOver
        later.nextAttempt = now + Self.commitRetryNanos
        phase = .handingOver(later)
        return
      }
    case .takenBack:
      // The purpose stands; it is served by the engines that come next.
      if case .reload(let next) = handOver.purpose { reloadRequest = reloadRequest ?? next }
      return
    }
    let isStored = store == nil || checkpointProblem == nil
    endUnits()
    switch handOver.purpose {
    case .stop:
      let problem = commitProblem
      finish()
      if let problem { throw SourceFailure(problem) }
    case .rebalance:
      settleRevoked()
      restartSources()
    case .reload(let next):
      let state = Carried(
        offsets: Dictionary(
          handOver.stands.map { (key($0.identity), $0.position) }, uniquingKeysWith: { first, _ in first }),
        sections: RestoredState.encoded(handOver.sections))
      let isWhole = revoked.isEmpty
      settleRevoked()
      if isStored {
        try swap(to: next, carrying: isWhole ? state : nil)
      } else {
        // Nothing is lost if the new rules wait until they can be started from a checkpoint.
        observe(.reloadFailed("the state cannot be stored before the change: \(checkpointProblem ?? "")"))
        carried = isWhole ? state : nil
        restartSources()
      }
    }
  }

  /// A barrier that must be the last does not come: something hangs. What was not committed is read again.
  func giveUp(_ pending: Pending) throws {
    self.pending = nil
    commitProblem = "the output does not take what is written: \(sink.problem ?? "no answer")"
    observe(.commitFailed(commitProblem ?? ""))
    endUnits()
    if case .stop = pending.purpose {
      let problem = commitProblem ?? ""
      finish()
      throw SourceFailure(problem)
    }
    settleRevoked()
    restartSources()
  }

  /// Engines are over: their counts go on in the totals.
  func endUnits() {
    for unit in units {
      unit.engine.stop()
      try? unit.engine.wait()
      observe(.engineEnded(unit.engine.status, rules.graph))
    }
    units = []
    phase = .waiting
  }

  /// Ends at once; what was not committed is read again by whoever comes next.
  public func close() {
    if case .finished = phase { return }
    finish()
  }

  func finish() {
    endUnits()
    phase = .finished
    for source in sources { source.close() }
  }

  /// Gives away what the group has taken; no reader of it is in use. A lead that is lost is lost with its
  /// transactions.
  func settleRevoked() {
    isChanged = false
    for (number, partitions) in revoked {
      for partition in partitions {
        waiting[partition] = nil
        bases[key(partition)] = nil
        namesCommitted[key(partition)] = nil
      }
      // Whoever gets them may commit further than what is carried here.
      if !partitions.isEmpty { carried = nil }
      sources[number].released(partitions)
    }
    revoked = [:]
  }

  /// Asks every source for its partitions anew: from where they were committed, or where `startOffset` says.
  func restartSources() {
    waiting = [:]
    waitingSince = now
    isAssigned = sources.map { _ in false }
    lastNumber = nil
    for source in sources { source.restart() }
  }

  /// Puts other rules in the place of the old ones; sources that stay keep their place in the group.
  func swap(to next: RunningRules, carrying state: Carried?) throws {
    reloadRequest = nil
    var made: [any LiveSource] = []
    var kept: Set<ObjectIdentifier> = []
    for node in next.graph.sources {
      let same = sources.first {
        $0.schema.name == node.schema.name && $0.schema.topic == node.schema.topic
          && !kept.contains(ObjectIdentifier($0))
      }
      if let same {
        kept.insert(ObjectIdentifier(same))
        made.append(same)
      } else {
        made.append(try makeSource(node))
      }
    }
    for source in sources where !kept.contains(ObjectIdentifier(source)) { source.close() }
    for (source, node) in zip(made, next.graph.sources) where kept.contains(ObjectIdentifier(source)) {
      source.adopt(node.schema)
    }
    sources = made
    rules = next
    sink.adopt(topics: next.graph.topics)
    carried = state
    restartSources()
    observe(.reloaded(next))
  }
}
