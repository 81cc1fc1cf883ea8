import Testing

@testable import rulesd

/// What a command wrote, for a test to read.
final class CapturedOutput: TextOutput {
  let isTerminal: Bool
  private(set) var text = ""
  init(isTerminal: Bool = false) { self.isTerminal = isTerminal }
  func write(_ text: String) { self.text += text }
}

/// Runs a command line in this process.
func runCaptured(
  _ arguments: [String], commands: [Command] = allCommands
) -> (exit: ExitCode, output: String, errors: String) {
  let output = CapturedOutput()
  let errors = CapturedOutput()
  let environment = CommandEnvironment(
    standardOutput: output, standardError: errors, monotonicNanos: { 0 }, sleep: { _ in },
    epochNanos: { 0 })
  let exit = runCommandLine(arguments, commands: commands, environment)
  return (exit, output.text, errors.text)
}

/// A command with one of everything, that prints what it was given.
private let echoPage = CommandPage(
  name: "echo", summary: "for tests", positionals: "PATH…", positionalCount: 1...2, details: "",
  options: [
    .option("seed", "N", "a number"),
    .option("wait", "TIME", "a duration"),
    .option("mode", "NAME", "a choice"),
    .option("set", "NAME=VALUE", letter: "X", repeatable: true, "pairs"),
    .flag("quiet", letter: "q", "a flag"),
  ],
  examples: [CommandExample("rulesd echo --seed 1 a", "prints")])

private let echo = Command(echoPage) { arguments, environment in
  let seed = try arguments.integer("seed", 0...100).map { "\($0)" } ?? "-"
  let wait = try arguments.duration("wait").map { "\($0)" } ?? "-"
  let mode = try arguments.choice("mode", among: ["fast", "slow"]) ?? "-"
  let pairs = try arguments.pairs("set").map { "\($0.name)→\($0.value)" }
  let quiet = arguments.flag("quiet")
  try environment.say(
    "\(arguments.positionals) seed \(seed) wait \(wait) mode \(mode) set \(pairs) quiet \(quiet)")
  return .ok
}

@Suite struct CommandLineTests {
  @Test(arguments: [
    (["a"], #"["a"] seed - wait - mode - set [] quiet false"#),
    (["--seed", "7", "a", "b", "-q"], #"["a", "b"] seed 7 wait - mode - set [] quiet true"#),
    (["--seed=7", "a"], #"["a"] seed 7 wait - mode - set [] quiet false"#),
    (
      ["a", "-X", "x=1", "-Xy=2=3", "--set", "z="],
      #"["a"] seed - wait - mode - set ["x→1", "y→2=3", "z→"] quiet false"#
    ),
    (["--wait", "1h30m", "a"], #"["a"] seed - wait 5400000000000 mode - set [] quiet false"#),
    (["--mode", "fast", "--", "--seed"], #"["--seed"] seed - wait - mode fast set [] quiet false"#),
    (["-"], #"["-"] seed - wait - mode - set [] quiet false"#),
  ])
  func reads(_ arguments: [String], as expected: String) {
    let result = runCaptured(["echo"] + arguments, commands: [echo])
    #expect(result.output == expected + "\n")
    #expect(result.exit == .ok)
    #expect(result.errors.isEmpty)
  }

  @Test(arguments: [
    ([], "there is no command", ""),
    (["ehco", "a"], "there is no command `ehco`", "did you mean `echo`?"),
    (["echo"], "echo needs PATH…", ""),
    (["echo", "a", "b", "c"], "unexpected argument `c`", ""),
    (["echo", "a", "--sede", "1"], "unknown option `--sede`", "did you mean `--seed`?"),
    (["echo", "a", "--sede=1"], "unknown option `--sede`", "did you mean `--seed`?"),
    (["echo", "a", "--zzz"], "unknown option `--zzz`", "rulesd echo --help lists them"),
    (["echo", "a", "-z"], "unknown option `-z`", "rulesd echo --help lists them"),
    (["echo", "a", "--seed"], "--seed needs a value: --seed N", ""),
    (["echo", "a", "--quiet=1"], "--quiet takes no value", ""),
    (["echo", "a", "--seed", "1", "--seed", "2"], "--seed is given twice", ""),
    (["echo", "a", "--seed", "101"], "--seed: `101` is not a whole number from 0 to 100", ""),
    (["echo", "a", "--seed", "99999999999999999999"], "is not a whole number", ""),
    (["echo", "a", "--wait", "5x"], "--wait: `5x` is not a duration", "write 90s"),
    (["echo", "a", "--mode", "fsat"], "--mode: there is no `fsat`", "did you mean `fast`?"),
    (["echo", "a", "--set", "novalue"], "--set: `novalue` is not of the form NAME=VALUE", ""),
    (["--versoin"], "unknown option `--versoin`", "did you mean `--version`?"),
  ])
  func refuses(_ arguments: [String], saying message: String, hint: String) {
    let result = runCaptured(arguments, commands: [echo])
    #expect(result.exit == .usage)
    #expect(result.output.isEmpty)
    if arguments.isEmpty {
      #expect(result.errors.contains("usage: rulesd COMMAND"))
    } else {
      #expect(result.errors.contains(message))
      #expect(hint.isEmpty || result.errors.contains(hint))
    }
  }

  @Test(arguments: allCommands.map(\.page.name))
  func everyCommandHasHelpWithAnExample(_ name: String) throws {
    let command = try #require(allCommands.first { $0.page.name == name }?.page)
    let result = runCaptured([name, "--help"])
    #expect(result.exit == .ok)
    #expect(result.output.contains("usage: rulesd \(name)"))
    #expect(!command.examples.isEmpty)
    for option in command.options { #expect(result.output.contains("--\(option.name)")) }
    #expect(runCaptured(["help", name]).output == result.output)
    #expect(result.output.split(separator: "\n").allSatisfy { $0.count <= 118 })
  }

  /// The option tables must take the examples that the help shows.
  @Test(arguments: allCommands.flatMap(\.page.examples).map(\.line))
  func everyExampleParses(_ line: String) throws {
    let stage = line.split(separator: "|").last { $0.contains("rulesd ") } ?? ""
    let words = stage.split(separator: " ").map(String.init)
    let start = try #require(words.firstIndex(of: "rulesd"))
    let command = try #require(allCommands.first { $0.page.name == words[start + 1] }?.page)
    let arguments = words[(start + 2)...].prefix { $0 != ">" && $0 != "&&" }
    _ = try ParsedArguments(Array(arguments), for: command)
  }

  @Test func versionAndOverview() {
    #expect(runCaptured(["--version"]).output == "rulesd \(versionText)\n")
    let help = runCaptured(["--help"])
    for command in allCommands { #expect(help.output.contains("  \(command.page.name)")) }
    #expect(help.exit == .ok)
  }

  @Test(
    arguments: [
      ("250ms", 250_000_000), ("90s", 90_000_000_000), ("1h30m", 5_400_000_000_000),
      ("2d", 172_800_000_000_000),
      ("0s", 0), ("", nil), ("5", nil), ("s", nil), ("-5s", nil), ("1.5h", nil), ("9999999999h", nil),
      ("٣s", nil),
    ] as [(String, Int64?)])
  func durations(_ text: String, _ nanos: Int64?) {
    #expect(durationNanos(text) == nanos)
  }

  @Test(
    arguments: [
      ("2026-11-21T03:00:00Z", 1_795_230_000_000_000_000), ("1970-01-01", 0),
      ("2000-02-29T23:59:59Z", 951_868_799_000_000_000), ("2026-11-21T03:00:00", nil), ("2026-13-01", nil),
      ("9999-01-01", nil), ("now", nil), ("", nil), ("2026-11-21T24:00:00Z", nil),
      ("1970-01-01T00:00:01.5Z", 1_500_000_000),
      ("1970-01-01T00:00:00.000000001Z", 1), ("1970-01-01T00:00:00.Z", nil), ("1970-01-01T00:00:00.1x", nil),
    ] as [(String, Int64?)])
  func timestamps(_ text: String, _ nanos: Int64?) {
    #expect(timestampNanos(text) == nanos)
  }

  @Test func progressIsForTerminalsOnly() {
    var now: Int64 = 0
    for isTerminal in [true, false] {
      now = 0
      let errors = CapturedOutput(isTerminal: isTerminal)
      let environment = CommandEnvironment(
        standardOutput: CapturedOutput(), standardError: errors, monotonicNanos: { now }, sleep: { _ in },
        epochNanos: { 0 })
      var line = ProgressLine("records", environment)
      for step in 1...100 {
        now = Int64(step) * 20_000_000
        line.update(count: step * 1_000, share: Double(step) / 100)
      }
      line.finish()
      let shown = errors.text.components(separatedBy: "records,").count - 1
      #expect(shown == (isTerminal ? 10 : 0))
      if isTerminal { #expect(errors.text.contains("50 %  50,000 records, 50,000/s, 0:01 left")) }
    }
  }
}
