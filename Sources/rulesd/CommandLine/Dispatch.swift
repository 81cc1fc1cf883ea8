/// Runs a command line, without the program's name in front, and says how it ended. Never exits the process
/// itself.
func runCommandLine(
  _ arguments: [String], commands: [Command] = allCommands, _ environment: CommandEnvironment
) -> ExitCode {
  do {
    guard let first = arguments.first else {
      try environment.standardError.write(overviewHelp(commands.map(\.page)))
      return .usage
    }
    if ["--help", "-h", "help"].contains(first) {
      if first == "help", arguments.count > 1 {
        try environment.standardOutput.write(commandHelp(try find(arguments[1], among: commands).page))
      } else {
        try environment.standardOutput.write(overviewHelp(commands.map(\.page)))
      }
      return .ok
    }
    if first == "--version" || first == "-V" {
      try environment.say("rulesd \(versionText)")
      return .ok
    }
    let command = try find(first, among: commands)
    let parsed = try ParsedArguments(Array(arguments.dropFirst()), for: command.page)
    if parsed.wantsHelp {
      try environment.standardOutput.write(commandHelp(command.page))
      return .ok
    }
    return try command.run(parsed, environment)
  } catch let failure as CommandFailure {
    if !failure.message.isEmpty { environment.note("rulesd: \(failure.message)") }
    if let hint = failure.hint { environment.note("hint: \(hint)") }
    return failure.exitCode
  } catch {
    environment.note("rulesd: \(error)")
    return .usage
  }
}

private func find(_ name: String, among commands: [Command]) throws(CommandFailure) -> Command {
  if let command = commands.first(where: { $0.page.name == name }) { return command }
  let meant = closest(to: name, among: commands.map(\.page.name) + ["--help", "--version"])
  throw .usage(
    name.hasPrefix("-") ? "unknown option `\(name)`" : "there is no command `\(name)`",
    hint: meant.map { "did you mean `\($0)`?" } ?? "rulesd --help lists the commands")
}
