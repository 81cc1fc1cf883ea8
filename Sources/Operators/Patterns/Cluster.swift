import CColumns
import Catalog
import Runtime

/// `cluster message by keys`: the pattern of each row's message, one model a key.
public struct Cluster: OrderedOperator {
  /// A column that rows gain.
  public enum Output: Sendable, Hashable {
    /// 16 hexadecimal digits.
    case templateID
    case template
    case isNew
    case isChanged
    /// All values of the line: a JSON array of `{"mask":"value"}`.
    case parameters
    /// The `number`th value (from 1) that a mask found; of all values when `mask` is nil.
    case parameter(mask: String?, number: Int)

    /// Masks whose values are numbers with a unit.
    public var type: ValueType {
      switch self {
      case .templateID, .template, .parameters: .string
      case .isNew, .isChanged: .bool
      case .parameter(let mask, _): Cluster.valueTypes[mask ?? ""] ?? .string
      }
    }
  }

  /// What the values of the built-in masks are; the user's are strings.
  public static let valueTypes: [String: ValueType] = Dictionary(
    uniqueKeysWithValues: MaskKind.allCases.map { kind in
      switch kind {
      case .number: (kind.name, .float)
      case .duration: (kind.name, .duration)
      case .size: (kind.name, .bytes)
      default: (kind.name, .string)
      }
    })

  public var options: PatternOptions
  /// Index of the message among the columns that rows take along.
  public var message: Int
  public var outputs: [Output]

  public init(options: PatternOptions, message: Int, outputs: [Output]) {
    self.options = options
    self.message = message
    self.outputs = outputs
  }

  public var outputTypes: [PhysicalType] { outputs.map(\.type.physical) }

  public func makeTask(batchRows: Int) -> OrderedOperatorTask { ClusterTask(self) }

  public static let spec = ClusterSpec(
    valueTypes: valueTypes, problemWithMask: { UserMasks.problem(with: $0) },
    limits: ClusterSpec.Limits(
      similarity: PatternOptions.similarityRange, depth: PatternOptions.depthRange,
      templates: PatternOptions.limitRange, masksMax: PatternOptions.masksMax))
}

final class ClusterState: OrderedState, @unchecked Sendable {
  // @unchecked: as OrderedState says.
  let model: PatternModel
  init(_ model: PatternModel) { self.model = model }
  override func encode(into writer: StateWriter) { model.encode(into: writer) }
  override func copy() -> OrderedState { ClusterState(model.copy()) }
  override var bytes: Int { model.bytes }
}

private final class ClusterTask: OrderedOperatorTask {
  private let definition: Cluster
  private let scanner: LineScanner
  /// Models whose replaced texts the rows of the last batch may point to.
  private var touched: [Int32: ClusterState] = [:]
  private var lists = ByteArena()
  private var list: [UInt8] = []

  init(_ definition: Cluster) {
    self.definition = definition
    scanner = LineScanner(definition.options)
  }

  override func makeState() -> OrderedState { ClusterState(PatternModel(definition.options)) }

  override func restoreState(from reader: inout StateReader) throws -> OrderedState {
    let model = PatternModel(definition.options)
    try model.restore(from: &reader)
    return ClusterState(model)
  }

  override func process(
    _ batch: Batch, firstOutput: Int, groups: UnsafePointer<Int32>, states: UnsafePointer<Unmanaged<OrderedState>>
  ) {
    for state in touched.values { state.model.releaseRetired() }
    touched.removeAll(keepingCapacity: true)
    lists = ByteArena()
    let message = batch.columns[definition.message]
    for output in definition.outputs.indices { batch.columns[firstOutput + output].hasNulls = false }
    for row in 0..<batch.rowCount {
      if message.hasNulls, message.validity[row] == 0 {
        for output in definition.outputs.indices { setNull(batch.columns[firstOutput + output], row) }
        continue
      }
      let line = message.strings[row]
      states[Int(groups[row])]._withUnsafeGuaranteedRef { state in
        let model = unsafeDowncast(state, to: ClusterState.self).model
        scanner.scan(line.data ?? UnsafePointer(ByteClass.nothing), Int(line.length))
        let match = model.add(scanner)
        for (index, output) in definition.outputs.enumerated() {
          fill(batch.columns[firstOutput + index], row, output, match, model, line)
        }
        if match.isNew || match.isChanged { touched[groups[row]] = unsafeDowncast(state, to: ClusterState.self) }
      }
    }
  }

  private func setNull(_ column: Column, _ row: Int) {
    if !column.hasNulls {
      column.hasNulls = true
      column.validity.update(repeating: 1, count: column.capacity)
    }
    column.validity[row] = 0
    if column.type == .string { column.strings[row] = rd_string() }
  }

  @inline(__always)
  private func fill(
    _ column: Column, _ row: Int, _ output: Cluster.Output, _ match: PatternModel.Match, _ model: PatternModel,
    _ line: rd_string
  ) {
    if column.hasNulls { column.validity[row] = 1 }
    switch output {
    case .templateID: column.strings[row] = model.id(match.index)
    case .template: column.strings[row] = model.text(match.index)
    case .isNew: column.bools[row] = match.isNew ? 1 : 0
    case .isChanged: column.bools[row] = match.isChanged ? 1 : 0
    case .parameters: column.strings[row] = parameters(match, model, line)
    case .parameter(let mask, let number): fillParameter(column, row, mask, number, match, model, line)
    }
  }

  private func name(_ token: LineToken) -> String {
    token.role == .value ? scanner.name(ofKind: token.kind) : MaskKind.word.name
  }

  private func slice(_ token: LineToken, _ line: rd_string) -> rd_string {
    rd_string(data: line.data.map { $0 + Int(token.start) }, length: token.end - token.start, hash: 0)
  }

  /// As a JSON array, in memory that lives until the next batch.
  private func parameters(_ match: PatternModel.Match, _ model: PatternModel, _ line: rd_string) -> rd_string {
    list.removeAll(keepingCapacity: true)
    list.append(UInt8(ascii: "["))
    for index in 0..<scanner.count where model.isWildcard(match.index, token: index) {
      if list.count > 1 { list.append(UInt8(ascii: ",")) }
      list.append(UInt8(ascii: "{"))
      list.append(jsonString: name(scanner[index]))
      list.append(UInt8(ascii: ":"))
      list.append(jsonString: slice(scanner[index], line))
      list.append(UInt8(ascii: "}"))
    }
    list.append(UInt8(ascii: "]"))
    let text = list.withUnsafeBufferPointer { lists.copy($0.baseAddress, $0.count) }
    return rd_string(data: text, length: UInt32(list.count), hash: 0)
  }

  private func fillParameter(
    _ column: Column, _ row: Int, _ mask: String?, _ number: Int, _ match: PatternModel.Match, _ model: PatternModel,
    _ line: rd_string
  ) {
    var left = number
    for index in 0..<scanner.count where model.isWildcard(match.index, token: index) {
      let token = scanner[index]
      if let mask, name(token) != mask { continue }
      left -= 1
      guard left == 0 else { continue }
      if column.type == .string {
        column.strings[row] = slice(token, line)
      } else if let value = MeasuredValue.parse(slice(token, line)) {
        column.doubles[row] = value
      } else {
        setNull(column, row)
      }
      return
    }
    setNull(column, row)
  }
}

/// Numbers in logs, with their units.
enum MeasuredValue {
  /// `-3.5`, `97%` (0.97 is not meant: 97), `12ms` in nanoseconds, `5.2 KB` in bytes; of several values the first. Nil for
  /// what is no number with a known unit, such as a time of day.
  static func parse(_ text: rd_string) -> Double? {
    guard let p = text.data else { return nil }
    let end = Int(text.length)
    var i = 0
    while i < end, p[i] == UInt8(ascii: "<") || p[i] == UInt8(ascii: ">") || p[i] == UInt8(ascii: "~") { i += 1 }
    var sign = 1.0
    if i < end, p[i] == UInt8(ascii: "-") || p[i] == UInt8(ascii: "+") {
      sign = p[i] == UInt8(ascii: "-") ? -1 : 1
      i += 1
    }
    var digits: [UInt8] = []
    while i < end, digits.count < 40 {
      if ValueScanners.isDigit(p[i]) || p[i] == UInt8(ascii: ".") {
        digits.append(p[i])
      } else if p[i] != UInt8(ascii: ",") || i + 1 == end || !ValueScanners.isDigit(p[i + 1]) {
        break
      }
      i += 1
    }
    guard let number = Double(String(decoding: digits, as: UTF8.self)) else { return nil }
    if i < end, p[i] == 32 { i += 1 }
    let first = i
    while i < end, ByteClass.of(p[i]) & (ByteClass.upper | ByteClass.lower) != 0 { i += 1 }
    if i == first { return i < end && p[i] == UInt8(ascii: ":") ? nil : sign * number }
    guard let factor = factor(String(decoding: UnsafeBufferPointer(start: p + first, count: i - first), as: UTF8.self))
    else { return nil }
    return sign * number * factor
  }

  /// To nanoseconds or bytes.
  private static func factor(_ unit: String) -> Double? {
    switch unit {
    case "B", "b", "byte", "bytes", "Bytes": return 1
    case "K", "KiB", "KB", "kB": return 1_024
    case "M", "MiB", "MB": return 1_048_576
    case "G", "GiB", "GB": return 1_073_741_824
    case "T", "TiB", "TB": return 1_099_511_627_776
    case "PiB", "PB": return 1_125_899_906_842_624
    default: break
    }
    switch unit.lowercased() {
    case "ns": return 1
    case "us": return 1e3
    case "ms", "msec", "msecs", "millis", "millisecond", "milliseconds": return 1e6
    case "s", "sec", "secs", "second", "seconds": return 1e9
    case "m", "min", "mins", "minute", "minutes": return 6e10
    case "h", "hr", "hrs", "hour", "hours": return 3.6e12
    case "d", "day", "days": return 8.64e13
    case "week", "weeks": return 6.048e14
    default: return nil
    }
  }
}
