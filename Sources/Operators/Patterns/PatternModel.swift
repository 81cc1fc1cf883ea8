import CColumns
import Runtime

/// 64-bit hashes of texts, the same in every run and on every machine.
enum PatternHash {
  static func of(_ bytes: [UInt8]) -> UInt64 { rd_hash64(bytes, UInt32(bytes.count)) }
}

/// The patterns of one key's lines: streaming, one pass, bounded memory. After Drain (He et al., ICWS 2017), with these
/// differences:
///
/// - Tokens have roles (`LineToken.Role`): words of language must agree, names may differ, values are wildcards from the start.
/// - A line whose words, names and marks are those of a template is found by one look into a table, however many
///   templates there are. Only other lines are compared, and with no more than `comparedMax` templates.
/// - Comparing does not refresh a template's age; matching does. So eviction takes what no line has matched for longest.
/// - A template's id is the hash of its text at birth: the same on every machine and in every run.
/// - A word in which many templates differ, and in nothing else, becomes a wildcard (`PatternOptions.siblings`).
public final class PatternModel {
  /// What became of a line.
  public struct Match: BitwiseCopyable {
    /// Place of the template; valid until templates are next created.
    public var index: Int32
    /// Whether this line created the template.
    public var isNew: Bool
    /// Whether this line made a word of the template a wildcard.
    public var isChanged: Bool
  }

  /// Templates with the same first tokens that a line is compared with, the newest first.
  public static let comparedMax = 256

  struct Template {
    var id: UInt64
    /// Hash over the tokens' symbols: lines with the same belong to it without a comparison.
    var signature: UInt64
    /// Hash over the number of tokens and the first of them.
    var prefix: UInt64
    /// Templates born before this one, ever.
    var birth: UInt64
    var lines: UInt64
    var tokens: UnsafeMutablePointer<TemplateToken>
    var tokenCount: Int32
    /// Tokens that are words or names.
    var wordCount: Int32
    /// Of the bytes at `text`.
    var textLength: Int32
    /// The 16 digits of the id, and the template's text behind them.
    var text: UnsafeMutablePointer<UInt8>
    // Neighbours in the lists, -1 for none.
    var newer: Int32 = -1
    var older: Int32 = -1
    var nextBySignature: Int32 = -1
    var nextByPrefix: Int32 = -1
    /// The next free place, for a place that is free.
    var isFree = false
  }

  struct TemplateToken: BitwiseCopyable {
    var symbol: UInt64
    var role: LineToken.Role
    var hasSpace: Bool
    /// Of the token's bytes behind the tokens.
    var length: UInt16
    var offset: UInt32
  }

  public let options: PatternOptions
  var templates: ContiguousArray<Template> = []
  private var free: [Int32] = []
  public private(set) var count = 0
  var births: UInt64 = 0
  /// Templates that made room for others.
  public internal(set) var evicted: UInt64 = 0
  /// The template matched last, and the one not matched for longest.
  private(set) var newest: Int32 = -1
  private(set) var oldest: Int32 = -1
  private var bySignature: [Int32] = Array(repeating: -1, count: 64)
  private var byPrefix: [Int32] = Array(repeating: -1, count: 64)
  /// Losses are counted in tenths of a word: what a line may lose for each word of the template, in ten thousandths.
  private let lossPerWord: Int
  /// Texts that rows at hand may still point to.
  private var retired: [UnsafeMutablePointer<UInt8>] = []
  public private(set) var bytes = 0

  public init(_ options: PatternOptions) {
    self.options = options
    lossPerWord = Int(((1 - options.similarity) * 10_000).rounded())
  }

  deinit {
    for template in templates where !template.isFree { release(template) }
    releaseRetired()
  }

  /// The same patterns, independent of these.
  public func copy() -> PatternModel {
    let copy = PatternModel(options)
    copy.templates = templates
    for slot in templates.indices where !templates[slot].isFree {
      let template = templates[slot]
      // The bytes behind the tokens are as many as at birth: what later became wildcards is still among them.
      var textBytes = 0
      for index in 0..<Int(template.tokenCount) where template.tokens[index].length > 0 {
        textBytes = max(textBytes, Int(template.tokens[index].offset) + Int(template.tokens[index].length))
      }
      let size = Self.tokenBytes(Int(template.tokenCount), textBytes)
      let tokens = Self.makeTokens(Int(template.tokenCount), textBytes)
      UnsafeMutableRawPointer(tokens).copyMemory(from: template.tokens, byteCount: size)
      let text = UnsafeMutablePointer<UInt8>.allocate(capacity: 16 + Int(template.textLength))
      text.update(from: template.text, count: 16 + Int(template.textLength))
      copy.templates[slot].tokens = tokens
      copy.templates[slot].text = text
    }
    copy.free = free
    copy.count = count
    copy.births = births
    copy.evicted = evicted
    copy.newest = newest
    copy.oldest = oldest
    copy.bySignature = bySignature
    copy.byPrefix = byPrefix
    copy.bytes = bytes
    return copy
  }

  private func release(_ template: Template) {
    template.tokens.deallocate()
    template.text.deallocate()
  }

  /// Frees texts that have been replaced. Nobody may hold a text from before.
  public func releaseRetired() {
    for text in retired { text.deallocate() }
    retired.removeAll(keepingCapacity: true)
  }

  /// The id, as 16 hexadecimal digits: bytes that stay until `releaseRetired`.
  public func id(_ index: Int32) -> rd_string {
    templates.withUnsafeBufferPointer { rd_string(data: $0[Int(index)].text, length: 16, hash: 0) }
  }

  /// The text, `<*>` for wildcards: bytes that stay until `releaseRetired`.
  public func text(_ index: Int32) -> rd_string {
    templates.withUnsafeBufferPointer {
      let template = $0[Int(index)]
      return rd_string(data: template.text + 16, length: UInt32(truncatingIfNeeded: template.textLength), hash: 0)
    }
  }

  /// How many lines have matched.
  public func lines(_ index: Int32) -> UInt64 { templates[Int(index)].lines }

  /// Whether a token of the template is a wildcard.
  public func isWildcard(_ index: Int32, token: Int) -> Bool {
    templates[Int(index)].tokens[token].role == .value
  }

  // MARK: Lines

  /// Puts a line into its pattern, a new one where there is none. The tokens are those of the line scanned last.
  public func add(_ line: LineScanner) -> Match {
    let signature = Self.signature(line)
    let found = find(signature, line)
    if found >= 0 {
      touch(found)
      return Match(index: found, isNew: false, isChanged: false)
    }
    let prefix = self.prefix(line)
    let similar = mostSimilar(prefix, line)
    if similar >= 0 {
      let isChanged = generalise(similar, line)
      touch(similar)
      return Match(index: similar, isNew: false, isChanged: isChanged)
    }
    return Match(index: create(prefix, line), isNew: true, isChanged: false)
  }

  @inline(__always)
  private static func signature(_ line: LineScanner) -> UInt64 {
    let tokens = line.tokens
    let count = line.count
    var hash = UInt64(truncatingIfNeeded: count)
    for index in 0..<count { hash = rd_mix(hash ^ tokens[index].symbol, 0xe703_7ed1_a0b4_28db) &+ hash }
    return hash
  }

  static func signature(_ tokens: UnsafeMutablePointer<TemplateToken>, _ count: Int) -> UInt64 {
    var hash = UInt64(truncatingIfNeeded: count)
    for index in 0..<count { hash = rd_mix(hash ^ tokens[index].symbol, 0xe703_7ed1_a0b4_28db) &+ hash }
    return hash
  }

  /// The path through Drain's tree as one number: how many tokens, and the first ones; a name or value is no branch.
  private func prefix(_ line: LineScanner) -> UInt64 {
    var hash = UInt64(truncatingIfNeeded: line.count) &* 0x9e37_79b9_7f4a_7c15
    for index in 0..<min(options.depth, line.count) {
      let token = line.tokens[index]
      let symbol = token.role == .word || token.role == .mark ? token.symbol : LineToken.valueSymbol
      hash = rd_mix(hash ^ symbol, 0xa076_1d64_78bd_642f) &+ hash
    }
    return hash
  }

  /// The oldest template with these very tokens.
  @inline(__always)
  private func find(_ signature: UInt64, _ line: LineScanner) -> Int32 {
    templates.withUnsafeBufferPointer { templates in
      var index = bySignature[Int(truncatingIfNeeded: signature) & (bySignature.count - 1)]
      var best: Int32 = -1
      while index >= 0 {
        let template = templates[Int(index)]
        if template.signature == signature, best < 0 || template.birth < templates[Int(best)].birth { best = index }
        index = template.nextBySignature
      }
      return best
    }
  }

  private func mostSimilar(_ prefix: UInt64, _ line: LineScanner) -> Int32 {
    templates.withUnsafeBufferPointer { templates in
      var index = byPrefix[Int(truncatingIfNeeded: prefix) & (byPrefix.count - 1)]
      var best: Int32 = -1
      var bestLoss = 0
      var bestSame = 0
      var compared = 0
      while index >= 0, compared < Self.comparedMax {
        let template = templates[Int(index)]
        if template.prefix == prefix, Int(template.tokenCount) == line.count {
          compared += 1
          let words = Int(template.wordCount)
          let loss = self.loss(template, line, most: words * lossPerWord / 1_000)
          if loss >= 0 {
            // Fewer losses a word; then more words in common; then the older template, which comes later.
            let same = words * 10 - loss
            let bestWords = bestSame + bestLoss
            let (left, right) = (loss * max(bestWords, 1), bestLoss * max(words * 10, 1))
            if best < 0 || left < right || left == right && same >= bestSame {
              best = index
              bestLoss = loss
              bestSame = same
            }
          }
        }
        index = template.nextByPrefix
      }
      return best
    }
  }

  /// What a line lacks of a template, in tenths of a word: 10 for a word that differs, 2 for a name; -1 for more than
  /// `most`, or other marks.
  @inline(__always)
  private func loss(_ template: Template, _ line: LineScanner, most: Int) -> Int {
    let mine = template.tokens
    let theirs = line.tokens
    var loss = 0
    for index in 0..<Int(template.tokenCount) {
      let a = mine[index]
      let b = theirs[index]
      if a.symbol == b.symbol { continue }
      if a.role == .mark || b.role == .mark { return -1 }
      if a.role == .value { continue }
      if a.role == .word {
        loss += b.role == .name ? 6 : 10
      } else {
        loss += b.role == .word ? 6 : 2
      }
      if loss > most { return -1 }
    }
    return loss
  }

  // MARK: Templates

  /// Makes wildcards of the template's words that the line does not have.
  private func generalise(_ index: Int32, _ line: LineScanner) -> Bool {
    let slot = Int(index)
    let tokens = templates[slot].tokens
    var isChanged = false
    for position in 0..<line.count where tokens[position].role != .value {
      if tokens[position].symbol == line.tokens[position].symbol { continue }
      tokens[position].symbol = LineToken.valueSymbol
      tokens[position].role = .value
      bytes -= Int(tokens[position].length)
      tokens[position].length = 0
      templates[slot].wordCount -= 1
      isChanged = true
    }
    guard isChanged else { return false }
    unlinkSignature(index)
    templates[slot].signature = Self.signature(tokens, Int(templates[slot].tokenCount))
    linkSignature(index)
    retired.append(templates[slot].text)
    render(slot)
    return true
  }

  /// Writes id and text anew.
  private func render(_ slot: Int) {
    let template = templates[slot]
    let source = UnsafeRawPointer(template.tokens + Int(template.tokenCount)).assumingMemoryBound(to: UInt8.self)
    var length = 0
    for index in 0..<Int(template.tokenCount) {
      let token = template.tokens[index]
      length += (token.hasSpace && index > 0 ? 1 : 0) + (token.role == .value ? 3 : Int(token.length))
    }
    let text = UnsafeMutablePointer<UInt8>.allocate(capacity: 16 + length)
    var at = 16
    for index in 0..<Int(template.tokenCount) {
      let token = template.tokens[index]
      if token.hasSpace, index > 0 {
        text[at] = 32
        at += 1
      }
      if token.role == .value {
        text[at] = UInt8(ascii: "<")
        text[at + 1] = UInt8(ascii: "*")
        text[at + 2] = UInt8(ascii: ">")
        at += 3
      } else {
        (text + at).update(from: source + Int(token.offset), count: Int(token.length))
        at += Int(token.length)
      }
    }
    templates[slot].textLength = Int32(truncatingIfNeeded: length)
    templates[slot].text = text
    // At birth the id is made of the text.
    if templates[slot].id == 0 { templates[slot].id = max(rd_hash64(text + 16, UInt32(truncatingIfNeeded: length)), 1) }
    Self.writeID(templates[slot].id, to: text)
  }

  private static func writeID(_ id: UInt64, to text: UnsafeMutablePointer<UInt8>) {
    for digit in 0..<16 {
      let nibble = UInt8(truncatingIfNeeded: id >> UInt64(60 - digit * 4)) & 15
      text[digit] = nibble < 10 ? 48 + nibble : 87 + nibble
    }
  }

  private func create(_ prefix: UInt64, _ line: LineScanner) -> Int32 {
    if count >= options.limit {
      remove(oldest)
      evicted += 1
    }
    let varied = options.siblings > 1 ? variedPositions(prefix, line) : []
    var textBytes = 0
    for index in 0..<line.count where line.tokens[index].role != .value {
      textBytes += Self.keptBytes(line.tokens[index])
    }
    let tokens = Self.makeTokens(line.count, textBytes)
    let texts = UnsafeMutableRawPointer(tokens + line.count).assumingMemoryBound(to: UInt8.self)
    var words: Int32 = 0
    var at = 0
    for index in 0..<line.count {
      let token = line.tokens[index]
      var made = TemplateToken(symbol: token.symbol, role: token.role, hasSpace: token.hasSpace, length: 0, offset: 0)
      if token.role != .value {
        let kept = Self.keptBytes(token)
        (texts + at).update(from: line.bytes + Int(token.start), count: kept)
        made.length = UInt16(truncatingIfNeeded: kept)
        made.offset = UInt32(truncatingIfNeeded: at)
        at += kept
        if varied.contains(index) {
          made.role = .value
          made.symbol = LineToken.valueSymbol
          made.length = 0
        } else if token.role != .mark {
          words += 1
        }
      }
      (tokens + index).initialize(to: made)
    }
    births += 1
    let template = Template(
      id: 0, signature: Self.signature(tokens, line.count), prefix: prefix, birth: births, lines: 1, tokens: tokens,
      tokenCount: Int32(truncatingIfNeeded: line.count), wordCount: words, textLength: 0, text: ByteClass.nothing)
    let index = insert(template)
    bytes += storedBytes(template)
    render(Int(index))
    return index
  }

  /// Of a drawn line three characters are kept. A word is no longer than a line that is looked at.
  private static func keptBytes(_ token: LineToken) -> Int {
    let length = Int(token.end - token.start)
    return token.role == .mark ? min(length, 3) : length
  }

  static func tokenBytes(_ count: Int, _ textBytes: Int) -> Int {
    count * MemoryLayout<TemplateToken>.stride + textBytes
  }

  static func makeTokens(_ count: Int, _ textBytes: Int) -> UnsafeMutablePointer<TemplateToken> {
    UnsafeMutableRawPointer.allocate(
      byteCount: max(tokenBytes(count, textBytes), 1), alignment: MemoryLayout<TemplateToken>.alignment
    ).bindMemory(to: TemplateToken.self, capacity: count)
  }

  /// Positions in which `siblings` templates, the new one among them, differ and in nothing else.
  private func variedPositions(_ prefix: UInt64, _ line: LineScanner) -> [Int] {
    var differing: [Int: Int] = [:]
    var index = byPrefix[Int(truncatingIfNeeded: prefix) & (byPrefix.count - 1)]
    var compared = 0
    while index >= 0, compared < Self.comparedMax {
      let template = templates[Int(index)]
      index = template.nextByPrefix
      guard template.prefix == prefix, Int(template.tokenCount) == line.count else { continue }
      compared += 1
      if let position = onlyDifference(template, line) { differing[position, default: 0] += 1 }
    }
    return differing.filter { $0.value + 1 >= options.siblings }.map(\.key)
  }

  private func onlyDifference(_ template: Template, _ line: LineScanner) -> Int? {
    var found: Int?
    for index in 0..<line.count where template.tokens[index].symbol != line.tokens[index].symbol {
      let roles = (template.tokens[index].role, line.tokens[index].role)
      let areWords = (roles.0 == .word || roles.0 == .name) && (roles.1 == .word || roles.1 == .name)
      if found != nil || !areWords { return nil }
      found = index
    }
    return found
  }

  // MARK: Lists

  /// Adds a template as the one matched last.
  private func insert(_ template: Template) -> Int32 {
    let index: Int32
    if let place = free.popLast() {
      index = place
      templates[Int(index)] = template
    } else {
      index = Int32(truncatingIfNeeded: templates.count)
      templates.append(template)
    }
    count += 1
    if count > bySignature.count { growTables() } else { link(index) }
    pushNewest(index)
    return index
  }

  /// Takes over templates in the order of their ages, the longest unmatched first. Lists of prefixes are in the order of
  /// births.
  func adopt(_ restored: [Template]) {
    templates = ContiguousArray(restored)
    count = restored.count
    while count > bySignature.count {
      bySignature += bySignature
      byPrefix += byPrefix
    }
    for index in indexesByBirth() { link(index) }
    for slot in templates.indices {
      pushNewest(Int32(truncatingIfNeeded: slot))
      bytes += storedBytes(templates[slot])
      render(slot)
    }
  }

  private func link(_ index: Int32) {
    linkSignature(index)
    let bucket = Int(truncatingIfNeeded: templates[Int(index)].prefix) & (byPrefix.count - 1)
    templates[Int(index)].nextByPrefix = byPrefix[bucket]
    byPrefix[bucket] = index
  }

  private func linkSignature(_ index: Int32) {
    let bucket = Int(truncatingIfNeeded: templates[Int(index)].signature) & (bySignature.count - 1)
    templates[Int(index)].nextBySignature = bySignature[bucket]
    bySignature[bucket] = index
  }

  private func unlinkSignature(_ index: Int32) {
    let bucket = Int(truncatingIfNeeded: templates[Int(index)].signature) & (bySignature.count - 1)
    if bySignature[bucket] == index {
      bySignature[bucket] = templates[Int(index)].nextBySignature
      return
    }
    var before = bySignature[bucket]
    while templates[Int(before)].nextBySignature != index { before = templates[Int(before)].nextBySignature }
    templates[Int(before)].nextBySignature = templates[Int(index)].nextBySignature
  }

  private func unlinkPrefix(_ index: Int32) {
    let bucket = Int(truncatingIfNeeded: templates[Int(index)].prefix) & (byPrefix.count - 1)
    if byPrefix[bucket] == index {
      byPrefix[bucket] = templates[Int(index)].nextByPrefix
      return
    }
    var before = byPrefix[bucket]
    while templates[Int(before)].nextByPrefix != index { before = templates[Int(before)].nextByPrefix }
    templates[Int(before)].nextByPrefix = templates[Int(index)].nextByPrefix
  }

  /// Lists of prefixes are in the order of births, the newest first, whatever was removed and restored.
  private func growTables() {
    bySignature = Array(repeating: -1, count: bySignature.count * 2)
    byPrefix = Array(repeating: -1, count: byPrefix.count * 2)
    for index in indexesByBirth() { link(index) }
  }

  /// All templates, the oldest by birth first.
  private func indexesByBirth() -> [Int32] {
    templates.indices.filter { !templates[$0].isFree }.map { Int32(truncatingIfNeeded: $0) }
      .sorted { templates[Int($0)].birth < templates[Int($1)].birth }
  }

  private func remove(_ index: Int32) {
    let slot = Int(index)
    unlinkSignature(index)
    unlinkPrefix(index)
    unlinkAge(index)
    let template = templates[slot]
    // Rows at hand may point to its text.
    retired.append(template.text)
    bytes -= storedBytes(template)
    template.tokens.deallocate()
    templates[slot].isFree = true
    free.append(index)
    count -= 1
  }

  private func storedBytes(_ template: Template) -> Int {
    var textBytes = 0
    for index in 0..<Int(template.tokenCount) { textBytes += Int(template.tokens[index].length) }
    return Self.tokenBytes(Int(template.tokenCount), textBytes)
  }

  /// The template has been matched: it is the last to be evicted now.
  @inline(__always)
  private func touch(_ index: Int32) {
    templates.withUnsafeMutableBufferPointer { $0[Int(index)].lines &+= 1 }
    guard index != newest else { return }
    unlinkAge(index)
    pushNewest(index)
  }

  private func unlinkAge(_ index: Int32) {
    let (newer, older) = templates.withUnsafeBufferPointer { ($0[Int(index)].newer, $0[Int(index)].older) }
    templates.withUnsafeMutableBufferPointer { templates in
      if newer >= 0 { templates[Int(newer)].older = older } else { newest = older }
      if older >= 0 { templates[Int(older)].newer = newer } else { oldest = newer }
    }
  }

  private func pushNewest(_ index: Int32) {
    templates.withUnsafeMutableBufferPointer { templates in
      templates[Int(index)].newer = -1
      templates[Int(index)].older = newest
      if newest >= 0 { templates[Int(newest)].newer = index } else { oldest = index }
    }
    newest = index
  }
}
