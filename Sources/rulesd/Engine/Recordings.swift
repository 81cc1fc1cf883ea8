import Connectors
import Planner
import RuleLang
import Runtime

/// `--input SOURCE=FILE` options as readers of the graph's sources.
struct Recordings {
  var starts: [PartitionStart] = []
  /// For the progress line: the files whose size is known.
  var readers: [RecordingReader] = []

  /// Throws a usage failure for a source that the rules do not have, and an environment failure for a file
  /// that cannot be opened. Inputs of a source that no rule reads are passed over with a note.
  init(
    _ inputs: [(name: String, value: String)], program: TypedProgram, graph: Graph,
    _ environment: CommandEnvironment
  ) throws {
    let declared = program.sources.map(\.name)
    var paths: [String: [String]] = [:]
    for input in inputs {
      guard declared.contains(input.name) else {
        let meant = closest(to: input.name, among: declared).map { "did you mean `\($0)`?" }
        throw CommandFailure.usage(
          "--input: the rules have no source `\(input.name)`",
          hint: meant ?? "they have \(declared.joined(separator: ", "))")
      }
      paths[input.name, default: []].append(input.value)
    }
    for node in graph.sources where paths[node.schema.name] == nil {
      environment.note("note: source `\(node.schema.name)` has no --input: its rules see no records")
    }
    for name in declared where paths[name] != nil {
      guard let node = graph.sources.first(where: { $0.schema.name == name }) else {
        environment.note("note: no metric or alert reads source `\(name)`: its --input is not read")
        continue
      }
      for reader in try openRecordings(paths: paths[name] ?? [], schema: node.schema) {
        starts.append(PartitionStart(reader: reader, committedOffset: nil, metadata: ""))
        if let recording = reader as? RecordingReader { readers.append(recording) }
      }
    }
  }

  /// Which part of the files has been read, where their sizes are known.
  var share: Double? {
    var total = 0
    var done = 0
    for reader in readers {
      guard let size = reader.bytesTotal else { return nil }
      total += size
      done += reader.bytesConsumed
    }
    return total > 0 ? Double(done) / Double(total) : nil
  }
}
