import Runtime
import Synchronization

/// Tells alerts as they come, and keeps them.
final class DemoSink: RecordSink, @unchecked Sendable {
  // @unchecked: `environment` is only written to, and only under the engine's lock; all else is under
  // `state`'s.
  struct Contents {
    var timeline: AlertTimeline
    /// The alert records, without their line ends.
    var alerts: [String] = []
  }
  private struct State {
    var contents: Contents
    var lastWrittenNanos: Int64 = 0
  }
  private let environment: CommandEnvironment
  private let state: Mutex<State>

  init(_ environment: CommandEnvironment) {
    self.environment = environment
    let timeline = AlertTimeline(useColor: environment.standardOutput.isTerminal)
    state = Mutex(State(contents: Contents(timeline: timeline)))
  }

  var contents: Contents { state.withLock { $0.contents } }

  /// When a record of any kind came last, on the environment's forward-running clock; 0 before the first.
  var lastWrittenNanos: Int64 { state.withLock { $0.lastWrittenNanos } }

  func write(_ batch: OutputBatch) throws {
    let now = environment.monotonicNanos()
    for entry in batch.entries where entry.kind == .alert {
      let bytes = batch.bytes[entry.start..<entry.start + entry.length]
      let lines = state.withLock { state in
        state.contents.alerts.append(String(decoding: bytes, as: UTF8.self))
        return JSONValue(bytes).flatMap { state.contents.timeline.lines(for: $0) }
      }
      if let lines { try environment.say(lines) }
    }
    state.withLock { $0.lastWrittenNanos = now }
  }

  func flush() {}
  var problem: String? { nil }
  func close() {}
}
