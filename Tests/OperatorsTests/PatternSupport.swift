import CColumns

@testable import Operators
@testable import Runtime

/// Lines through one model, as texts.
final class PatternRun {
  struct Seen: Hashable {
    var id: String
    var text: String
    var isNew: Bool
    var isChanged: Bool
  }
  let options: PatternOptions
  let scanner: LineScanner
  var model: PatternModel

  init(_ options: PatternOptions = PatternOptions()) {
    self.options = options
    scanner = LineScanner(options)
    model = PatternModel(options)
  }

  func add(_ line: String) -> Seen { add(Array(line.utf8)) }

  func add(_ line: [UInt8]) -> Seen {
    // A copy of exactly this size, so that a read behind its end is seen by the sanitizer.
    line.withUnsafeBufferPointer { bytes in
      scanner.scan(bytes.baseAddress ?? UnsafePointer(ByteClass.nothing), bytes.count)
      let match = model.add(scanner)
      let seen = Seen(
        id: text(model.id(match.index)), text: text(model.text(match.index)), isNew: match.isNew, isChanged: match.isChanged)
      model.releaseRetired()
      return seen
    }
  }

  /// The values of a line: mask names and texts.
  func values(_ line: String) -> [String] {
    let bytes = Array(line.utf8)
    return bytes.withUnsafeBufferPointer { p in
      scanner.scan(p.baseAddress ?? UnsafePointer(ByteClass.nothing), p.count)
      return (0..<scanner.count).filter { scanner[$0].role == .value }.map {
        let token = scanner[$0]
        let name = scanner.name(ofKind: token.kind)
        return name + ":" + String(decoding: bytes[Int(token.start)..<Int(token.end)], as: UTF8.self)
      }
    }
  }

  private func text(_ string: rd_string) -> String {
    String(decoding: UnsafeBufferPointer(start: string.data, count: Int(string.length)), as: UTF8.self)
  }
}

/// The slow obvious version of `PatternModel`: no tables, no lists, texts compared as texts; every template is looked at
/// for every line.
struct ReferencePatterns {
  struct Token: Hashable {
    var role: LineToken.Role
    /// Empty for a value; one character for a mark.
    var text: String
  }
  struct Template {
    var id: Int
    var tokens: [Token]
    var birthWords: [Token]
    var lastUsed: Int
  }
  var options: PatternOptions
  var templates: [Template] = []
  var clock = 0
  var births = 0

  init(_ options: PatternOptions) { self.options = options }

  static func tokens(_ scanner: LineScanner, _ line: [UInt8]) -> [Token] {
    (0..<scanner.count).map { index in
      let token = scanner[index]
      switch token.role {
      case .value: return Token(role: .value, text: "")
      case .mark: return Token(role: .mark, text: String(decoding: [line[Int(token.start)]], as: UTF8.self))
      case .word, .name:
        return Token(role: token.role, text: String(decoding: line[Int(token.start)..<Int(token.end)], as: UTF8.self))
      }
    }
  }

  /// The number of the template that the line belongs to, in the order of births.
  mutating func add(_ line: [Token]) -> (id: Int, isNew: Bool, isChanged: Bool) {
    clock += 1
    func branch(_ tokens: [Token]) -> [Token] {
      tokens.prefix(options.depth).map { $0.role == .word || $0.role == .mark ? $0 : Token(role: .value, text: "") }
    }
    func isSame(_ a: Token, _ b: Token) -> Bool { a.text == b.text && (a.role == .mark) == (b.role == .mark) }
    var best: (index: Int, similarity: Double, same: Double)?
    for (index, template) in templates.enumerated() {
      guard template.tokens.count == line.count, template.birthWords == branch(line) else { continue }
      var same = 0.0
      var words = 0.0
      var fits = true
      for (mine, theirs) in zip(template.tokens, line) {
        if mine.role == .word || mine.role == .name { words += 1 }
        if isSame(mine, theirs) {
          if mine.role == .word || mine.role == .name { same += 1 }
        } else if mine.role == .mark || theirs.role == .mark {
          fits = false
        } else {
          switch (mine.role, theirs.role) {
          case (.name, .name), (.name, .value): same += 0.8
          case (.name, .word), (.word, .name): same += 0.4
          default: break
          }
        }
      }
      let similarity = words == 0 ? 1 : same / words
      guard fits, similarity > options.similarity - 1e-9 else { continue }
      let isBetter =
        best == nil || similarity > best!.similarity + 1e-9
        || abs(similarity - best!.similarity) < 1e-9 && same > best!.same + 1e-9
      if isBetter { best = (index, similarity, same) }
    }
    if let best {
      var isChanged = false
      for index in line.indices {
        let mine = templates[best.index].tokens[index]
        if mine.role != .value, !isSame(mine, line[index]) {
          templates[best.index].tokens[index] = Token(role: .value, text: "")
          isChanged = true
        }
      }
      templates[best.index].lastUsed = clock
      return (templates[best.index].id, false, isChanged)
    }
    if templates.count == options.limit {
      templates.remove(at: templates.indices.min { templates[$0].lastUsed < templates[$1].lastUsed }!)
    }
    var made = line
    if options.siblings > 1 {
      for index in line.indices where line[index].role == .word || line[index].role == .name {
        let siblings = templates.filter { template in
          template.tokens.count == line.count && template.birthWords == branch(line)
            && (template.tokens[index].role == .word || template.tokens[index].role == .name)
            && line.indices.allSatisfy { isSame(template.tokens[$0], line[$0]) != ($0 == index) }
        }
        if siblings.count + 1 >= options.siblings { made[index] = Token(role: .value, text: "") }
      }
    }
    births += 1
    templates.append(Template(id: births, tokens: made, birthWords: branch(line), lastUsed: clock))
    return (births, true, false)
  }
}
