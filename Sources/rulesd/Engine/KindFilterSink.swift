import Connectors
import Glibc
import Runtime

/// Passes on only some kinds of records.
final class KindFilterSink: RecordSink {
  private let sink: any RecordSink
  private let kinds: Set<RecordKind>

  init(_ sink: any RecordSink, keeping kinds: Set<RecordKind>) {
    self.sink = sink
    self.kinds = kinds
  }

  func write(_ batch: OutputBatch) throws {
    if kinds.count == RecordKind.allCases.count { return try sink.write(batch) }
    var kept = batch
    kept.entries.removeAll { !kinds.contains($0.kind) }
    if !kept.entries.isEmpty { try sink.write(kept) }
  }

  func flush() throws { try sink.flush() }
  func barrier(_ epoch: UInt64) { sink.barrier(epoch) }
  func adopt(topics: [String]) { sink.adopt(topics: topics) }
  func complete(_ epoch: UInt64) throws { try sink.complete(epoch) }
  var problem: String? { sink.problem }
  func close() { sink.close() }
}

/// Processors that this process may run on.
func coreCount() -> Int { max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }

/// Records as lines on standard output (`-`) or in a file.
/// A daemon appends, so that a restart does not take away what was written before.
func openLines(_ path: String, appends: Bool = false) throws -> JSONLinesSink {
  path == "-" ? JSONLinesSink() : try JSONLinesSink(path: path, appends: appends)
}
