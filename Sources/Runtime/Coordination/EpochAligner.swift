import Synchronization

/// One sink for several engines: what an engine writes behind a barrier waits until all engines have passed it.
final class EpochAligner: Sendable {
  private struct State {
    var isPast: [Bool]
    var behind: [[OutputBatch]]
    var isFailed = false
  }
  private let state: Mutex<State>
  private let sink: SinkBox

  // @unchecked: `write` and `barrier` are called under `state`'s lock; `complete` and `problem` may be at any time.
  private final class SinkBox: @unchecked Sendable {
    let sink: any RecordSink
    init(_ sink: any RecordSink) { self.sink = sink }
  }

  init(sink: any RecordSink, parties: Int) {
    self.sink = SinkBox(sink)
    state = Mutex(
      State(isPast: Array(repeating: false, count: parties), behind: Array(repeating: [], count: parties)))
  }

  func write(_ batch: OutputBatch, from party: Int) throws {
    try state.withLock { state in
      if state.isFailed { throw SourceFailure("the sink has failed") }
      if state.isPast[party] { return state.behind[party].append(batch) }
      try sink.sink.write(batch)
    }
  }

  func barrier(_ epoch: UInt64, from party: Int) {
    state.withLock { state in
      state.isPast[party] = true
      guard state.isPast.allSatisfy({ $0 }) else { return }
      sink.sink.barrier(epoch)
      for party in state.isPast.indices { state.isPast[party] = false }
      let behind = state.behind
      state.behind = behind.map { _ in [] }
      for batches in behind {
        for batch in batches {
          // A sink that fails says so again at the next write, where it can be thrown.
          do { try sink.sink.write(batch) } catch { state.isFailed = true }
        }
      }
    }
  }

  func flush() throws { try sink.sink.flush() }
  func complete(_ epoch: UInt64) throws {
    if state.withLock({ $0.isFailed }) { throw SourceFailure("the sink has failed") }
    try sink.sink.complete(epoch)
  }
  var problem: String? { sink.sink.problem }
}

/// An engine's side of the aligner. Closing the sink is for who made it.
final class AlignedSink: RecordSink, @unchecked Sendable {
  // @unchecked: constants.
  private let aligner: EpochAligner
  private let party: Int
  init(_ aligner: EpochAligner, _ party: Int) {
    self.aligner = aligner
    self.party = party
  }
  func write(_ batch: OutputBatch) throws { try aligner.write(batch, from: party) }
  func barrier(_ epoch: UInt64) { aligner.barrier(epoch, from: party) }
  func complete(_ epoch: UInt64) throws { try aligner.complete(epoch) }
  func flush() throws { try aligner.flush() }
  var problem: String? { aligner.problem }
  func close() {}
}
