import Runtime

/// Hands every record to several sinks, one after the other. The first that fails ends the call.
public final class FanOutSink: RecordSink {
  private let sinks: [any RecordSink]
  public init(_ sinks: [any RecordSink]) { self.sinks = sinks }

  public func write(_ batch: OutputBatch) throws { for sink in sinks { try sink.write(batch) } }

  public func flush() throws { for sink in sinks { try sink.flush() } }

  public var problem: String? {
    for sink in sinks { if let problem = sink.problem { return problem } }
    return nil
  }

  public func close() { for sink in sinks { sink.close() } }
}
