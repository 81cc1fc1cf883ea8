import Catalog

@testable import Operators
@testable import Runtime

/// Lines in the order in which they were seen.
final class SeenLines: @unchecked Sendable {
  // @unchecked: a test's one thread.
  var lines: [String] = []
}

/// Writes a line for each row that it is given, and for windows that ended or were skipped.
struct RowCollecting: RowTaskDefinition {
  let seen: SeenLines
  /// A row's time and its columns.
  let line: @Sendable (Int64, [String]) -> String
  /// What a window is called by its end; nil where nobody asks.
  var window: (@Sendable (Int64) -> String)?

  func makeTask(_ context: TaskContext) -> RowTask { Task(self) }

  private final class Task: RowTask {
    let definition: RowCollecting
    init(_ definition: RowCollecting) { self.definition = definition }

    override func process(_ batch: Batch, _ selection: Selection) {
      for index in 0..<selection.count {
        let row = Int(selection.rows[index])
        definition.seen.lines.append(definition.line(batch.times[row], batch.columns.map { "\($0[row])" }))
      }
    }
    override func windowEnded(_ end: Int64) { note(end, "ended") }
    override func windowSkipped(_ end: Int64) { note(end, "skipped") }
    private func note(_ end: Int64, _ what: String) {
      if let window = definition.window { definition.seen.lines.append("\(window(end)) \(what)") }
    }
  }
}
