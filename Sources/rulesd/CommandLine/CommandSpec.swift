/// What a process answers its caller with.
enum ExitCode: Int32, Sendable {
  case ok = 0
  /// The rules or the data say no: a diagnostic, a failed test, a difference.
  case refused = 1
  /// The command line or the environment says no: an unknown option, a file that cannot be read.
  case usage = 2
  /// `plan`: a deploy would lose state.
  case losesState = 3
}

/// One option of a command: `--name VALUE`, or a flag when it takes no value.
struct OptionSpec: Sendable {
  /// Without the dashes.
  let name: String
  /// One letter for `-X`; nil for none.
  let letter: Character?
  /// What the help calls the value; nil for a flag.
  let value: String?
  let isRepeatable: Bool
  let help: String

  static func option(
    _ name: String, _ value: String, letter: Character? = nil, repeatable: Bool = false, _ help: String
  ) -> OptionSpec {
    OptionSpec(name: name, letter: letter, value: value, isRepeatable: repeatable, help: help)
  }

  static func flag(_ name: String, letter: Character? = nil, _ help: String) -> OptionSpec {
    OptionSpec(name: name, letter: letter, value: nil, isRepeatable: false, help: help)
  }
}

/// A command line that works, with what it does.
struct CommandExample: Sendable {
  let line: String
  let meaning: String

  init(_ line: String, _ meaning: String) {
    self.line = line
    self.meaning = meaning
  }
}

/// A command as its user meets it: what the help page shows and the arguments are read by.
struct CommandPage: Sendable {
  let name: String
  /// One line for the list of commands.
  let summary: String
  /// The positional arguments as the usage line shows them: `PATH…`. Empty for none.
  let positionals: String
  /// How many positional arguments there may be.
  let positionalCount: ClosedRange<Int>
  /// What the summary does not say; may be empty.
  let details: String
  let options: [OptionSpec]
  let examples: [CommandExample]

  static let unlimited = 1_000_000
}

/// A command and the function behind it.
struct Command: Sendable {
  let page: CommandPage
  let run: @Sendable (ParsedArguments, CommandEnvironment) throws -> ExitCode

  init(
    _ page: CommandPage,
    run: @escaping @Sendable (ParsedArguments, CommandEnvironment) throws -> ExitCode
  ) {
    self.page = page
    self.run = run
  }
}

/// What ends a command before its work is done. The message names what is wrong and, where it can, what to
/// do.
struct CommandFailure: Error {
  let exitCode: ExitCode
  let message: String
  /// What would mend it; nil for none.
  let hint: String?

  /// The command line is wrong.
  static func usage(_ message: String, hint: String? = nil) -> CommandFailure {
    CommandFailure(exitCode: .usage, message: message, hint: hint)
  }

  /// Nobody reads the output any more (`rulesd … | head`); there is nobody to tell.
  static let readerGone = CommandFailure(exitCode: .usage, message: "", hint: nil)

  /// The machine says no: a file, a broker, a port.
  static func environment(_ message: String, hint: String? = nil) -> CommandFailure {
    CommandFailure(exitCode: .usage, message: message, hint: hint)
  }
}
