let versionText = "0.1.0"

/// The page that `rulesd --help` prints.
func overviewHelp(_ commands: [CommandPage]) -> String {
  let width = (commands.map(\.name.count).max() ?? 0) + 2
  var text = """
    rulesd \(versionText): rules over streams, compiled into one graph that runs on Kafka and on recordings

    usage: rulesd COMMAND …

    commands:

    """
  for command in commands {
    text += "  \(padded(command.name, width))\(command.summary)\n"
  }
  text += """

    rulesd COMMAND --help   its options, with an example
    rulesd --version        the version
    exit code               0 all is well, 1 the rules or the data say no, 2 usage or environment

    """
  return text
}

/// The page that `rulesd COMMAND --help` prints.
func commandHelp(_ command: CommandPage) -> String {
  var text = "\(command.summary)\n\nusage: rulesd \(command.name)"
  if !command.positionals.isEmpty { text += " \(command.positionals)" }
  text += " [options]\n"
  if !command.details.isEmpty { text += "\n\(command.details)\n" }
  let options = command.options + [.flag("help", letter: "h", "this page")]
  text += "\noptions:\n"
  for option in options {
    var left = option.letter.map { "-\($0), " } ?? ""
    left += "--\(option.name)"
    if let value = option.value { left += " \(value)" }
    if option.isRepeatable { left += " …" }
    let help = wrapped(option.help, width: 72)
    text += left.count <= 24 ? "  \(padded(left, 26))" : "  \(left)\n" + padded("", 28)
    text += help.joined(separator: "\n" + padded("", 28)) + "\n"
  }
  text += "\nexamples:\n"
  for example in command.examples {
    text += "  \(example.line)\n      \(example.meaning)\n"
  }
  return text
}

private func padded(_ text: String, _ width: Int) -> String {
  text + String(repeating: " ", count: max(0, width - text.count))
}

private func wrapped(_ text: String, width: Int) -> [String] {
  var lines: [String] = [""]
  for word in text.split(separator: " ") {
    if lines[lines.count - 1].count + word.count + 1 > width { lines.append("") }
    lines[lines.count - 1] += lines[lines.count - 1].isEmpty ? String(word) : " \(word)"
  }
  return lines
}
