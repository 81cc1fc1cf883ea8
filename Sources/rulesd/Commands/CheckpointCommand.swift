import Connectors
import Runtime

let checkpointPage = CommandPage(
  name: "checkpoint",
  summary: "look into stored state: list, show, verify, export, restore",
  positionals: "ACTION …", positionalCount: 1...3,
  details: """
    list                 one line a checkpoint, the oldest first
    show NAME            its partitions with offsets and watermarks, its operators with keys and bytes
    verify [NAME]        reads every section of one, or of all; exit code 1 says what is wrong and where
    export NAME FILE     one file with everything, to keep or to carry elsewhere
    restore FILE         brings an exported one into a store, as its newest and as a savepoint

    Daemons may run meanwhile. A savepoint is never removed by a daemon.
    """,
  options: [
    .option(
      "checkpoints", "PLACE",
      "as the daemon has it: a directory or postgresql://…; default $STATE_DIRECTORY or ~/.local/state/rulesd"),
    .option("group", "NAME", "the consumer group that they belong to; default rulesd"),
    .option("format", "NAME", "of list and show: text or json; default text"),
  ],
  examples: [
    CommandExample("rulesd checkpoint list --checkpoints /var/lib/rulesd", "what is there"),
    CommandExample(
      "rulesd checkpoint export c-0000000042-5f3a90c1 before-deploy.ckpt --checkpoints /var/lib/rulesd",
      "a copy that outlives the store"),
    CommandExample(
      "rulesd checkpoint restore before-deploy.ckpt --checkpoints postgresql://rulesd@db/state --group pages",
      "into a database, for another group"),
  ])

private let actions: [(name: String, arguments: ClosedRange<Int>, usage: String)] = [
  ("list", 0...0, "list"), ("show", 1...1, "show NAME"), ("verify", 0...1, "verify [NAME]"),
  ("export", 2...2, "export NAME FILE"), ("restore", 1...1, "restore FILE"),
]

let checkpointCommand = Command(checkpointPage) { arguments, environment in
  let word = arguments.positionals[0]
  guard let action = actions.first(where: { $0.name == word }) else {
    throw CommandFailure.usage(
      "there is no `checkpoint \(word)`",
      hint: closest(to: word, among: actions.map(\.name)).map { "did you mean `\($0)`?" }
        ?? "one of \(actions.map(\.name).joined(separator: ", "))")
  }
  let operands = Array(arguments.positionals.dropFirst())
  guard action.arguments.contains(operands.count) else {
    throw CommandFailure.usage("this action is `rulesd checkpoint \(action.usage)`")
  }
  let format = try arguments.choice("format", among: ["text", "json"]) ?? "text"
  if format == "json", !["list", "show"].contains(word) {
    throw CommandFailure.usage("--format is for list and show")
  }
  let place = arguments.text("checkpoints") ?? defaultStatePlace()
  if place == "none" {
    throw CommandFailure.usage("--checkpoints none keeps nothing", hint: "name the daemon's directory or database")
  }
  let group = arguments.text("group") ?? "rulesd"
  let shelf = CheckpointShelf(archive: try openCheckpointStore(place, group: group), group: group)
  switch word {
  case "list": return try listCheckpoints(shelf, asJSON: format == "json", environment)
  case "show":
    let manifest = try shelf.manifest(named: operands[0])
    try environment.standardOutput.write(format == "json" ? manifestText(manifest) : checkpointText(manifest))
    return .ok
  case "verify": return try verifyCheckpoints(shelf, name: operands.first, environment)
  case "export":
    let manifest = try shelf.manifest(named: operands[0])
    try ExportedCheckpoint.write(manifest, of: shelf.archive, to: operands[1])
    environment.note("checkpoint \(manifest.name) is in \(operands[1]): \(byteText(manifest.storedBytes)) of state")
    return .ok
  default:
    let exported = try ExportedCheckpoint(reading: operands[0])
    let restored = try exported.restore(into: shelf.archive, group: group, suffix: .random(in: 0...UInt32.max))
    try environment.say(restored.name)
    environment.note(
      "checkpoint \(exported.manifest.name), taken \(formatTimestamp(exported.manifest.createdNanos)), "
        + "is a savepoint of group \(group) in \(shelf.archive.place)")
    return .ok
  }
}

/// The checkpoints of a group, as somebody asks for them by name.
struct CheckpointShelf {
  let archive: any CheckpointArchive
  let group: String

  /// Throws, with what was probably meant, when there is none of that name.
  func manifest(named name: String) throws -> CheckpointManifest {
    if let manifest = try archive.manifest(named: name) { return manifest }
    let known = try archive.survey().map(\.name)
    throw CommandFailure.usage(
      known.contains(name)
        ? "checkpoint \(name) is not finished: it is being written, or a crash left it"
        : "group \(group) has no checkpoint `\(name)` in \(archive.place)",
      hint: closest(to: name, among: known.filter { $0 != name }).map { "did you mean `\($0)`?" }
        ?? "rulesd checkpoint list shows what is there")
  }
}

private func listCheckpoints(
  _ shelf: CheckpointShelf, asJSON: Bool, _ environment: CommandEnvironment
) throws -> ExitCode {
  let found = try shelf.archive.survey()
  if found.isEmpty { environment.note("group \(shelf.group) has no checkpoints in \(shelf.archive.place)") }
  if asJSON {
    for entry in found { try environment.say(checkpointJSON(entry)) }
  } else {
    try environment.standardOutput.write(checkpointTable(found))
  }
  return .ok
}

private func verifyCheckpoints(
  _ shelf: CheckpointShelf, name: String?, _ environment: CommandEnvironment
) throws -> ExitCode {
  var damagedCount = 0
  let entries: [SurveyedCheckpoint]
  if let name {
    // One whose manifest is damaged is not there for others, but it is what was asked about.
    let known = try shelf.archive.survey().filter { $0.name == name && $0.problem != nil }
    entries = try known.isEmpty ? [SurveyedCheckpoint(name: name, manifest: shelf.manifest(named: name))] : known
  } else {
    entries = try shelf.archive.survey()
  }
  for entry in entries {
    guard let manifest = entry.manifest else {
      if entry.problem != nil { damagedCount += 1 }
      try environment.say(
        "\(entry.name)  "
          + (entry.problem.map { "damaged: \($0)" } ?? "unfinished: it is being written, or a crash left it"))
      continue
    }
    let problems = try shelf.archive.problems(of: manifest)
    if problems.isEmpty {
      try environment.say(
        "\(entry.name)  good: \(counted(manifest.sections.count, "section")), \(byteText(manifest.storedBytes))")
    } else {
      damagedCount += 1
      for problem in problems { try environment.say("\(entry.name)  damaged: \(problem)") }
    }
  }
  if entries.isEmpty { environment.note("group \(shelf.group) has no checkpoints in \(shelf.archive.place)") }
  return damagedCount == 0 ? .ok : .refused
}
