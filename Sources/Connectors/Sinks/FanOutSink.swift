import Runtime

/// Hands every record to several sinks, one after the other. The first that fails ends the call.
public final class FanOutSink: RecordSink {
  private let sinks: [any RecordSink]
  public init(_ sinks: [any RecordSink]) { self.sinks = sinks }

  public func write(_ batch: OutputBatch) throws { for sink in sinks { try sink.write(batch) } }

  public func flush() throws { for sink in sinks { try sink.flush() } }

  public func barrier(_ epoch: UInt64) { for sink in sinks { sink.barrier(epoch) } }

  public func adopt(topics: [String]) { for sink in sinks { sink.adopt(topics: topics) } }

  public func complete(_ epoch: UInt64) throws { for sink in sinks { try sink.complete(epoch) } }

  public var problem: String? {
    for sink in sinks { if let problem = sink.problem { return problem } }
    return nil
  }

  public func close() { for sink in sinks { sink.close() } }
}

/// Hands every record to a transactional sink and to others that know no transactions. Those get records at least
/// once: what an aborted transaction held has gone out there already.
public final class TransactionalFanOutSink: TransactionalSink {
  private let transactional: any TransactionalSink
  private let others: FanOutSink

  public init(_ transactional: any TransactionalSink, others: [any RecordSink]) {
    self.transactional = transactional
    self.others = FanOutSink(others)
  }

  public func write(_ batch: OutputBatch) throws {
    try others.write(batch)
    try transactional.write(batch)
  }

  public func flush() throws {
    try others.flush()
    try transactional.flush()
  }

  public func barrier(_ epoch: UInt64) {
    others.barrier(epoch)
    transactional.barrier(epoch)
  }

  public func adopt(topics: [String]) {
    others.adopt(topics: topics)
    transactional.adopt(topics: topics)
  }

  /// For the others alone: a transaction is completed by `commit`.
  public func complete(_ epoch: UInt64) throws { try others.complete(epoch) }

  public func prepare() throws { try transactional.prepare() }

  /// The others first: once the offsets are committed nobody writes these records again.
  public func commit(_ epoch: UInt64, _ offsets: [SourceOffsets]) throws {
    try others.complete(epoch)
    try transactional.commit(epoch, offsets)
  }

  public func abort() { transactional.abort() }

  public var problem: String? { transactional.problem ?? others.problem }

  public func close() {
    others.close()
    transactional.close()
  }
}
