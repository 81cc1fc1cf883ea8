extension Diagnostic {
  /// One JSON object without a line break: `code`, `severity`, `title`, `message`, `file`, `line`,
  /// `column`, `start`, `end`, `label`, `context` and `hint`. Lines and columns start at 1, `start`
  /// and `end` are UTF-8 offsets.
  public var json: String {
    var json = "{\"code\":\"\(code.rawValue)\",\"severity\":\"\(severity.rawValue)\""
    json += ",\"title\":\(jsonText(code.title)),\"message\":\(jsonText(message)),"
    json += primary.jsonMembers
    json += ",\"context\":[\(context.map { "{\($0.jsonMembers)}" }.joined(separator: ","))]"
    json += ",\"hint\":\(hint.map(jsonText) ?? "null")}"
    return json
  }

  /// A workflow command of GitHub Actions, which shows it beside the line of a pull request.
  public var github: String {
    let range = primary.range
    var body = message
    if !primary.text.isEmpty { body += "\n\(primary.text)" }
    if let hint { body += "\nhint: \(hint)" }
    let file = Self.githubText(range.file, isProperty: true)
    let title = Self.githubText("\(code.rawValue): \(code.title)", isProperty: true)
    return "::\(severity.rawValue) file=\(file),line=\(range.line),col=\(range.column),title=\(title)"
      + "::\(Self.githubText(body, isProperty: false))"
  }

  /// Escaped as `@actions/core` does.
  private static func githubText(_ text: String, isProperty: Bool) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "%": result += "%25"
      case "\r": result += "%0D"
      case "\n": result += "%0A"
      case ":" where isProperty: result += "%3A"
      case "," where isProperty: result += "%2C"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}

extension Diagnostic.Label {
  fileprivate var jsonMembers: String {
    "\"file\":\(jsonText(range.file)),\"line\":\(range.line),\"column\":\(range.column),"
      + "\"start\":\(range.start),\"end\":\(range.end),\"label\":\(jsonText(text))"
  }
}

private func jsonText(_ text: String) -> String {
  var result = "\""
  for scalar in text.unicodeScalars {
    switch scalar {
    case "\"": result += "\\\""
    case "\\": result += "\\\\"
    case "\n": result += "\\n"
    case "\r": result += "\\r"
    case "\t": result += "\\t"
    default:
      if scalar.value < 0x20 {
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits
      } else {
        result.unicodeScalars.append(scalar)
      }
    }
  }
  return result + "\""
}
