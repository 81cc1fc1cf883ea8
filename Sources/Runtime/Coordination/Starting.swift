// How engines begin: from what was committed, from a checkpoint, or from what the engines before left in memory.

extension Coordinator {
  /// Whether there are partitions to start with, and no others are expected soon.
  var isReadyToStart: Bool {
    guard waiting.keys.contains(where: { isWhole($0.source) }) else { return false }
    return rules.graph.sources.indices.allSatisfy { isAssigned[$0] || absent.contains(name($0)) }
      || now - waitingSince > options.assignmentNanos
  }

  private func name(_ source: Int) -> String { rules.graph.sources[source].schema.name }

  /// Whether a source and all whose rows meet its own have their partitions. They go on from one cut, and a join without
  /// one of its sides would take its silence for the truth.
  private func isWhole(_ source: Int) -> Bool { rules.graph.joinedSources(of: source).allSatisfy { isAssigned[$0] } }

  /// Sources that have partitions and are not read, and what they wait for.
  func waitingForOthers() -> [(source: String, missing: String)] {
    rules.graph.sources.indices.compactMap { source in
      guard isAssigned[source],
        let missing = rules.graph.joinedSources(of: source).sorted().first(where: { !isAssigned[$0] })
      else { return nil }
      return (name(source), name(missing))
    }
  }

  /// Starts engines over the partitions that are waiting; or asks for them again, where they must be read from
  /// somewhere else.
  func startUnits() throws {
    if let storeWait, now < storeWait.nextAttempt { return }
    var loader = CheckpointLoader(
      store: store, isPatient: storeWait.map { now - $0.began < options.storeWaitNanos } ?? true)
    let starts = waiting.values.filter { isWhole($0.reader.identity.source) }
      .sorted { $0.reader.identity < $1.reader.identity }
    let groups = options.isShared ? starts.map { [$0] } : [starts]
    var beginnings: [Beginning] = []
    do {
      for group in groups { beginnings.append(try beginning(group, &loader)) }
    } catch let away as StoreAway {
      if storeWait == nil { storeWait = StoreWait(away, now: now) } else { storeWait?.failedAgain(away, now: now) }
      return observe(.restoreDelayed(away.description))
    }
    for problem in loader.problems { tellReread(problem) }
    wanted = [:]
    for beginning in beginnings {
      for start in beginning.starts {
        guard let offset = beginning.offsets[start.reader.identity], offset != start.committedOffset else { continue }
        wanted[key(start.reader.identity)] = offset
      }
    }
    if !wanted.isEmpty {
      moves += 1
      guard moves <= 3 else { throw SourceFailure("partitions cannot be read from where their state belongs") }
      // Those that are right already must stay so.
      for beginning in beginnings {
        for (identity, offset) in beginning.offsets { wanted[key(identity)] = offset }
      }
      return restartSources()
    }
    moves = 0
    absent = Set(rules.graph.sources.indices.filter { !isAssigned[$0] }.map(name))
    storeWait = nil
    rereadsTold = []
    waiting = [:]
    isForced = false
    carried = nil
    let aligner = EpochAligner(sink: sink, parties: beginnings.count)
    for (number, beginning) in beginnings.enumerated() {
      try start(beginning, sink: AlignedSink(aligner, number))
    }
    phase = .running
    scheduleFirst()
  }

  /// Once a start, which asks twice where partitions must be read from somewhere else.
  private func tellReread(_ problem: String) {
    if rereadsTold.insert(problem).inserted { observe(.rereads(problem)) }
  }

  /// Partitions of one engine, and what they go on from.
  private struct Beginning {
    var starts: [PartitionStart]
    var restored: [RestoredState?]
    var name: String?
    /// Where each partition has to be read from; none where its start is right as it is.
    var offsets: [PartitionIdentity: Int64] = [:]
    var bases: [PartitionKey: (name: String, offset: Int64)] = [:]
    var lost: Set<PartitionKey> = []
  }

  private func beginning(_ starts: [PartitionStart], _ loader: inout CheckpointLoader) throws -> Beginning {
    var result = Beginning(
      starts: starts, restored: Array(repeating: nil, count: rules.graph.sources.count), name: nil)
    let only = options.isShared ? starts.first.map { key($0.reader.identity) } : nil
    for source in rules.graph.sources.indices {
      let own = starts.filter { $0.reader.identity.source == source }
      guard !own.isEmpty else { continue }
      if let carried, own.contains(where: { carried.offsets[key($0.reader.identity)] != nil }) {
        result.restored[source] = RestoredState(fitted(carried.sections, to: only))
        for start in own { result.offsets[start.reader.identity] = carried.offsets[key(start.reader.identity)] }
        for start in own { result.bases[key(start.reader.identity)] = bases[key(start.reader.identity)] }
        result.name = own.lazy.compactMap { self.bases[self.key($0.reader.identity)]?.name }.first ?? result.name
        continue
      }
      // Sources whose rows meet go on from one cut.
      let joined = rules.graph.joinedSources(of: source)
      var resumption = try loader.resumption(of: starts.filter { joined.contains($0.reader.identity.source) })
      if isForced, let name = options.restore {
        guard let loaded = try loader.load(name) else {
          throw SourceFailure(loader.problems.last ?? "there is no checkpoint \(name)")
        }
        resumption = .checkpoint(loaded)
      }
      // One that was taken without these sources says nothing of them, not even that they had no state.
      let names = Set(joined.map(name))
      if case .checkpoint(let loaded) = resumption, !loaded.manifest.partitions.contains(where: { names.contains($0.source) })
      {
        resumption = .committed
      }
      if case .checkpoint(let loaded) = resumption, only == nil, loaded.isShared(by: Self.sharedSuffix) {
        // Each partition has come as far as its daemon: one engine over all of them would be too early for some and too
        // late for others.
        throw SourceFailure(
          "the offsets of group \(options.group) were committed by daemons that shared the partitions, each with the "
            + "state of its own (checkpoint \(loaded.manifest.name)); this run reads them all together and cannot go on "
            + "from there: give it another --group")
      }
      if case .checkpoint(let loaded) = resumption, only != nil, loaded.isKeyed {
        let name = loaded.manifest.name
        resumption = .reread(lost: name)
        tellReread("checkpoint \(name) was taken by one daemon for all partitions; its state cannot be shared out")
      }
      for start in own {
        let identity = start.reader.identity
        let offset = resumption.offset(of: key(identity), resume: ResumePoint(metadata: start.metadata))
        result.offsets[identity] = offset
        switch resumption {
        case .checkpoint(let loaded):
          if let offset {
            result.bases[key(identity)] = (loaded.manifest.name, offset)
          } else {
            result.lost.insert(key(identity))
          }
        case .committed, .reread: result.lost.insert(key(identity))
        }
      }
      if case .checkpoint(let loaded) = resumption {
        result.restored[source] = RestoredState(fitted(loaded.sections, to: only))
        result.name = loaded.manifest.name
      }
    }
    return result
  }

  private func start(_ beginning: Beginning, sink: AlignedSink) throws {
    var engineOptions = options.engine
    if options.isShared { engineOptions.workers = 1 }
    for start in beginning.starts {
      let isRestored = beginning.restored[start.reader.identity.source] != nil
      firstResume[key(start.reader.identity)] = isRestored ? nil : ResumePoint(metadata: start.metadata)
    }
    for key in beginning.lost { bases[key] = nil }
    for (key, base) in beginning.bases { bases[key] = base }
    let engine = Engine(
      graph: rules.graph, options: engineOptions,
      partitions: beginning.starts.map { start in
        var start = start
        // The metadata of a forced restoration belongs to another state.
        if options.restore != nil, beginning.name == options.restore,
          ResumePoint(metadata: start.metadata)?.checkpoint != options.restore
        {
          start.metadata = ""
        }
        return start
      }, restored: beginning.restored, sink: sink)
    if options.runsByHand { try engine.begin() } else { try engine.start() }
    units.append(Unit(engine: engine, keys: beginning.starts.map { key($0.reader.identity) }))
    observe(
      .engineStarted(partitions: beginning.starts.count, restored: beginning.name, without: absent.sorted()))
  }

  // MARK: Shared partitions

  /// State by key of an engine that has one partition goes with that partition.
  func portable(_ sections: [StateSection], of unit: Unit) -> [StateSection] {
    guard options.isShared, let key = unit.keys.first else { return sections }
    return sections.map { section in
      guard case .keys = section.scope else { return section }
      var section = section
      section.operatorID += Self.sharedSuffix
      section.scope = .partition(source: key.source, topic: key.topic, partition: key.partition)
      return section
    }
  }

  /// The sections that an engine restores: all, or those of its only partition.
  private func fitted(_ sections: [RestoredState.Section], to only: PartitionKey?) -> [RestoredState.Section] {
    sections.compactMap { section in
      var section = section
      if let only {
        guard section.scope == .partition(source: only.source, topic: only.topic, partition: only.partition) else {
          return nil
        }
      }
      if section.operatorID.hasSuffix(Self.sharedSuffix) {
        section.operatorID.removeLast(Self.sharedSuffix.count)
        section.scope = .keys(0..<KeyGroup.count)
      }
      return section
    }
  }

  private static let sharedSuffix = "@partition"
}

extension LoadedCheckpoint {
  /// Whether its state was kept for each partition by itself.
  fileprivate func isShared(by suffix: String) -> Bool { sections.contains { $0.operatorID.hasSuffix(suffix) } }

  /// Whether its state is by key over all partitions.
  fileprivate var isKeyed: Bool {
    sections.contains { section in
      if case .keys = section.scope { true } else { false }
    }
  }
}
