/// A command line taken apart by a command's option table. Values are read, and judged, by the accessors.
struct ParsedArguments {
  private(set) var positionals: [String] = []
  private var values: [String: [String]] = [:]
  private(set) var wantsHelp = false

  /// Throws a usage failure for what the command does not have.
  init(_ arguments: [String], for command: CommandPage) throws(CommandFailure) {
    var index = 0
    var onlyPositionals = false
    while index < arguments.count {
      let argument = arguments[index]
      index += 1
      if onlyPositionals || argument == "-" || !argument.hasPrefix("-") {
        positionals.append(argument)
        continue
      }
      if argument == "--" {
        onlyPositionals = true
        continue
      }
      if argument == "--help" || argument == "-h" {
        wantsHelp = true
        continue
      }
      let (option, attached) = try Self.find(argument, in: command)
      if option.value == nil {
        guard attached == nil else { throw .usage("--\(option.name) takes no value") }
        values[option.name] = []
        continue
      }
      let value: String
      if let attached {
        value = attached
      } else {
        guard index < arguments.count else {
          throw .usage("--\(option.name) needs a value: --\(option.name) \(option.value ?? "")")
        }
        value = arguments[index]
        index += 1
      }
      if !option.isRepeatable, values[option.name] != nil {
        throw .usage("--\(option.name) is given twice")
      }
      values[option.name, default: []].append(value)
    }
    if wantsHelp { return }
    if positionals.count < command.positionalCount.lowerBound {
      throw .usage("\(command.name) needs \(command.positionals)")
    }
    if positionals.count > command.positionalCount.upperBound {
      throw .usage("unexpected argument `\(positionals[command.positionalCount.upperBound])`")
    }
  }

  private static func find(
    _ argument: String, in command: CommandPage
  ) throws(CommandFailure) -> (OptionSpec, attached: String?) {
    guard argument.hasPrefix("--") else {
      // `-X value` and `-Xvalue`, as librdkafka's own tools read it.
      let letter = argument[argument.index(after: argument.startIndex)]
      guard let option = command.options.first(where: { $0.letter == letter }) else {
        throw .usage("unknown option `\(argument)`", hint: "rulesd \(command.name) --help lists them")
      }
      let rest = argument.dropFirst(2)
      return (option, rest.isEmpty ? nil : String(rest))
    }
    let parts = argument.dropFirst(2).split(
      separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    let name = String(parts[0])
    if let option = command.options.first(where: { $0.name == name }) {
      return (option, parts.count == 2 ? String(parts[1]) : nil)
    }
    let meant = closest(to: name, among: command.options.map(\.name) + ["help"])
    throw .usage(
      "unknown option `--\(name)`",
      hint: meant.map { "did you mean `--\($0)`?" } ?? "rulesd \(command.name) --help lists them")
  }

  func flag(_ name: String) -> Bool { values[name] != nil }

  func all(_ name: String) -> [String] { values[name] ?? [] }

  func text(_ name: String) -> String? { values[name]?.first }

  func integer(
    _ name: String, _ range: ClosedRange<Int>
  ) throws(CommandFailure) -> Int? {
    guard let text = text(name) else { return nil }
    guard let value = Int(text), range.contains(value) else {
      throw .usage(
        "--\(name): `\(text)` is not a whole number from \(range.lowerBound) to \(range.upperBound)")
    }
    return value
  }

  func number(
    _ name: String, _ range: ClosedRange<Double>
  ) throws(CommandFailure) -> Double? {
    guard let text = text(name) else { return nil }
    guard let value = Double(text), range.contains(value) else {
      throw .usage("--\(name): `\(text)` is not a number from \(range.lowerBound) to \(range.upperBound)")
    }
    return value
  }

  /// Nanoseconds.
  func duration(_ name: String) throws(CommandFailure) -> Int64? {
    guard let text = text(name) else { return nil }
    guard let nanos = durationNanos(text) else {
      throw .usage("--\(name): `\(text)` is not a duration", hint: "write 90s, 40m or 1h30m")
    }
    return nanos
  }

  func choice(_ name: String, among choices: [String]) throws(CommandFailure) -> String? {
    guard let text = text(name) else { return nil }
    if choices.contains(text) { return text }
    let meant = closest(to: text, among: choices).map { "did you mean `\($0)`?" }
    throw .usage(
      "--\(name): there is no `\(text)`", hint: meant ?? "one of \(choices.joined(separator: ", "))")
  }

  /// `NAME=VALUE` pairs of a repeatable option, in order.
  func pairs(_ name: String) throws(CommandFailure) -> [(name: String, value: String)] {
    var pairs: [(name: String, value: String)] = []
    for text in all(name) {
      let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2, !parts[0].isEmpty else {
        throw .usage("--\(name): `\(text)` is not of the form NAME=VALUE")
      }
      pairs.append((String(parts[0]), String(parts[1])))
    }
    return pairs
  }
}
