import CColumns
import Runtime

extension PatternModel {
  private static let version: UInt16 = 1

  /// Writes everything that decides what becomes of later lines. The same state gives the same bytes.
  public func encode(into writer: StateWriter) {
    writer.append(Self.version)
    writer.append(options.fingerprint)
    writer.append(births)
    writer.append(evicted)
    // By age, the longest unmatched first, so that they are matched in this order again.
    writer.append(UInt32(truncatingIfNeeded: count))
    var index = oldest
    while index >= 0 {
      let template = templates[Int(index)]
      writer.append(template.birth)
      writer.append(template.id)
      writer.append(template.prefix)
      writer.append(template.lines)
      writer.append(UInt16(truncatingIfNeeded: template.tokenCount))
      let texts = UnsafeRawPointer(template.tokens + Int(template.tokenCount))
      for position in 0..<Int(template.tokenCount) {
        let token = template.tokens[position]
        writer.append(token.role.rawValue << 1 | (token.hasSpace ? 1 : 0))
        guard token.role != .value else { continue }
        writer.append(token.length)
        writer.append(raw: UnsafeRawBufferPointer(start: texts + Int(token.offset), count: Int(token.length)))
      }
      index = template.newer
    }
  }

  /// Reads what `encode` wrote into a model without templates, of the same options. Throws for anything else, and
  /// the model must not be used then.
  public func restore(from reader: inout StateReader) throws(StateCorruption) {
    precondition(count == 0 && births == 0, "a model is restored before its first line")
    try reader.expect(version: Self.version, of: "log patterns")
    guard try reader.integer(UInt64.self) == options.fingerprint else {
      throw StateCorruption("the state of log patterns was made with other options")
    }
    let births = try reader.integer(UInt64.self)
    evicted = try reader.integer(UInt64.self)
    let templateCount = Int(try reader.integer(UInt32.self))
    guard templateCount <= options.limit, UInt64(templateCount) <= births, templateCount <= reader.left / 34 else {
      throw StateCorruption("the state names \(templateCount) log patterns, more than there can be")
    }
    var read: [Template] = []
    read.reserveCapacity(templateCount)
    do throws(StateCorruption) {
      var seen = Set<UInt64>()
      for _ in 0..<templateCount {
        let template = try readTemplate(&reader)
        read.append(template)
        guard template.birth > 0, template.birth <= births, seen.insert(template.birth).inserted, template.id != 0 else {
          throw StateCorruption("a log pattern of the state has an impossible number")
        }
      }
    } catch {
      for template in read { template.tokens.deallocate() }
      throw error
    }
    self.births = births
    adopt(read)
  }

  private func readTemplate(_ reader: inout StateReader) throws(StateCorruption) -> Template {
    let birth = try reader.integer(UInt64.self)
    let id = try reader.integer(UInt64.self)
    let prefix = try reader.integer(UInt64.self)
    let lines = try reader.integer(UInt64.self)
    let tokenCount = Int(try reader.integer(UInt16.self))
    guard tokenCount <= LineScanner.tokensMax + 4 else {
      throw StateCorruption("a log pattern of the state has \(tokenCount) tokens")
    }
    var parts: [TemplateToken] = []
    var texts: [UInt8] = []
    var words: Int32 = 0
    for _ in 0..<tokenCount {
      let flags = try reader.integer(UInt8.self)
      guard let role = LineToken.Role(rawValue: flags >> 1) else {
        throw StateCorruption("a log pattern of the state has a token of kind \(flags >> 1)")
      }
      var token = TemplateToken(
        symbol: LineToken.valueSymbol, role: role, hasSpace: flags & 1 == 1, length: 0, offset: 0)
      if role != .value {
        let length = Int(try reader.integer(UInt16.self))
        guard length > 0, length <= LineScanner.bytesMax else {
          throw StateCorruption("a log pattern of the state has a word of \(length) bytes")
        }
        token.length = UInt16(length)
        token.offset = UInt32(texts.count)
        for _ in 0..<length { texts.append(try reader.integer(UInt8.self)) }
        let offset = Int(token.offset)
        token.symbol =
          role == .mark
          ? LineToken.markSymbol(texts[offset])
          : texts.withUnsafeBufferPointer { rd_hash64($0.baseAddress! + offset, UInt32(length)) }
        if role != .mark { words += 1 }
      }
      parts.append(token)
    }
    let tokens = Self.makeTokens(tokenCount, texts.count)
    for (index, part) in parts.enumerated() { (tokens + index).initialize(to: part) }
    UnsafeMutableRawPointer(tokens + tokenCount).copyMemory(from: texts, byteCount: texts.count)
    return Template(
      id: id, signature: Self.signature(tokens, tokenCount), prefix: prefix, birth: birth, lines: lines, tokens: tokens,
      tokenCount: Int32(tokenCount), wordCount: words, textLength: 0, text: ByteClass.nothing)
  }
}
