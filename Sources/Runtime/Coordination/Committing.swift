// How an epoch becomes durable, and what is committed for each partition.

extension Coordinator {
  enum CommitOutcome {
    case done
    /// Nothing is committed, and nothing is lost: the next commit, or this one later, does it.
    case failed(mayPass: Bool)
    /// Everything goes back to the last commit; the engines are gone.
    case takenBack
  }

  /// The records are out, but a source's offsets were refused for reasons that pass, such as a rebalance.
  private struct OffsetsDelayed: Error, CustomStringConvertible {
    var description: String
  }

  /// Makes an epoch durable and commits it.
  @discardableResult
  func commit(_ epoch: UInt64, _ stands: [PartitionStand]) throws -> CommitOutcome {
    let points = stands.compactMap(point)
    do {
      try makeDurable(epoch, points)
      commitProblem = nil
      var isNew = false
      for point in points {
        let name = ResumePoint(metadata: point.metadata)?.checkpoint
        let key = key(point.partition)
        if namesCommitted[key] != name {
          namesCommitted[key] = name
          isNew = true
        }
      }
      observe(.committed)
      if isNew { prune() }
      return .done
    } catch let failure as SinkFenced {
      throw failure
    } catch let failure as GroupFenced where failure.isFinal {
      throw failure
    } catch let failure where failure is TransactionAborted || failure is GroupFenced || failure is RecordsLost {
      takeBack("\(failure)")
      // Who is told to stop, and finds that the group has gone on already, has nothing left to commit.
      if isStopping, !(failure is GroupFenced) { stopProblem = commitProblem }
      return .takenBack
    } catch {
      commitProblem = "offsets are not committed: \(error)"
      observe(.commitFailed("\(error)"))
      // A transaction that is not committed now has no later: what it holds would leave with no offsets.
      if sink is any TransactionalSink {
        takeBack(commitProblem ?? "")
        if isStopping { stopProblem = commitProblem }
        return .takenBack
      }
      return .failed(mayPass: error is OffsetsDelayed)
    }
  }

  /// How long a checkpoint of a shared group is spared although nobody names it: its daemon may be about to.
  private static let sparedNanos: Int64 = 600_000_000_000

  /// Removes checkpoints that nobody names any more.
  private func prune() {
    var alive = Set(namesCommitted.values).union(bases.values.map(\.name))
    guard options.isShared else {
      // For a source that these engines do without, a daemon before this one may have committed a checkpoint.
      writer?.prune(keep: options.checkpointsKept, alive: alive, sparingBefore: absent.isEmpty ? nil : firstNumber)
      return
    }
    for source in sources {
      // Without knowing what others have committed nothing is removed; there will be another time.
      guard let committed = try? source.committedMetadata() else { return }
      alive.formUnion(committed.compactMap { ResumePoint(metadata: $0)?.checkpoint })
    }
    writer?.prune(
      keep: options.checkpointsKept, alive: alive, sparingSince: options.engine.clock() - Self.sparedNanos)
  }

  /// With a transactional sink: fences who wrote before us, then asks for the committed offsets anew, since until
  /// then they could still move. Answers whether that is done.
  func takesOver() -> Bool {
    guard let sink = sink as? any TransactionalSink, !isPrepared else { return true }
    guard now >= nextPreparation else { return false }
    do {
      try sink.prepare()
      isPrepared = true
      commitProblem = nil
      restartSources()
    } catch {
      commitProblem = "transactions cannot be begun: \(error)"
      nextPreparation = now + options.commitNanos
    }
    return false
  }

  /// Nothing since the last commit counts: engines end, and what follows begins from what was committed.
  private func takeBack(_ reason: String) {
    commitProblem = reason
    observe(.transactionAborted(reason))
    (sink as? any TransactionalSink)?.abort()
    isPrepared = false
    pending = nil
    endUnits()
    settleRevoked()
    restartSources()
  }

  private func makeDurable(_ epoch: UInt64, _ points: [CommitPoint]) throws {
    if let sink = sink as? any TransactionalSink {
      var offsets: [SourceOffsets] = []
      for (number, source) in sources.enumerated() {
        let own = points.filter { $0.partition.source == number }
        if own.isEmpty { continue }
        offsets.append(SourceOffsets(source: number, points: own, group: try source.groupHandle()))
      }
      return try sink.commit(epoch, offsets)
    }
    try sink.complete(epoch)
    for (number, source) in sources.enumerated() {
      do {
        try source.commit(points.filter { $0.partition.source == number })
      } catch let failure as GroupFenced {
        throw failure
      } catch {
        throw OffsetsDelayed(description: "\(error)")
      }
    }
  }

  /// What is committed for a partition: its offset in the newest checkpoint, what has been written since, and how to
  /// do without the checkpoint. Nil while there is nothing to go back to.
  private func point(_ stand: PartitionStand) -> CommitPoint? {
    let own = key(stand.identity)
    var offset: Int64
    var name: String
    if let base = bases[own] {
      (name, offset) = base
    } else if let other = checkpointOfOthers(own, stand.identity.source) {
      // The checkpoint has nothing of this partition: from its first record on everything is to be read again.
      guard stand.firstOffset >= 0 else { return nil }
      (name, offset) = (other, stand.firstOffset)
    } else {
      return rules.graph.learns && writer != nil ? firstPoint(stand) : heldBack(stand).rereadPoint
    }
    var resume = stand.resume
    resume.checkpoint = name
    resume.rereadOffset = stand.rereadOffset
    return CommitPoint(partition: stand.identity, offset: offset, metadata: resume.metadata)
  }

  /// The checkpoint that holds the state which a partition shares with others.
  private func checkpointOfOthers(_ own: PartitionKey, _ source: Int) -> String? {
    guard let unit = units.first(where: { $0.keys.contains(own) }) else { return nil }
    let sharing = Set(rules.graph.joinedSources(of: source).map { rules.graph.sources[$0].schema.name })
    return unit.keys.lazy.filter { sharing.contains($0.source) }.compactMap { self.bases[$0]?.name }.first
  }

  /// Where operators that learn have to begin again, until their first checkpoint is stored: with the first row that they saw,
  /// as if it had not been read, but knowing what has been written. Nil when there was no row.
  private func firstPoint(_ stand: PartitionStand) -> CommitPoint? {
    guard stand.firstOffset >= 0 else { return nil }
    let first = firstResume[key(stand.identity)]
    var held = stand
    held.rereadOffset = stand.firstOffset
    held.resume.watermark = first?.watermark ?? beforeAllTime
    held.resume.neededSince = first?.neededSince ?? beforeAllTime
    return held.rereadPoint
  }

  /// While the first checkpoint of a partition is being stored, commits do not pass it: the next one names it, and must not
  /// go back behind what has been committed, since the topic may have let go of that. Reading from further in front than
  /// is needed leads to the same state.
  private func heldBack(_ stand: PartitionStand) -> PartitionStand {
    guard let storing else { return stand }
    // What the checkpoint does not know will be read from its first record on.
    let limit = storing[key(stand.identity)] ?? (stand.firstOffset, beforeAllTime)
    guard limit.offset >= 0, limit.offset < stand.rereadOffset else { return stand }
    var held = stand
    held.rereadOffset = limit.offset
    held.resume.watermark = limit.watermark
    return held
  }
}
