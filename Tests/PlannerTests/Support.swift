import CColumns
import Catalog
import Foundation
import Operators
import Planner
import RuleLang
import Runtime
import Synchronization
import Testing

let testFolder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()

/// A program of rules that have no error.
func program(_ text: String) throws -> TypedProgram {
  let file = SourceFile(path: "a.rules", text: text)
  let result = compileRules(
    [file], catalog: makeCatalog(formats: [FormatSpec(name: "json", summary: "JSON objects")]))
  let printed = DiagnosticTextRenderer(files: [file]).render(
    result.diagnostics.filter { $0.severity == .error })
  return try #require(result.program, "\(printed)")
}

/// Rows in memory as a source's partition.
final class MemoryReader: PartitionReader {
  typealias Row = [String: Value]
  let identity: PartitionIdentity
  private let rows: [Row]
  private var next = 0
  /// Strings by text, alive as long as the reader.
  private var strings: [String: rd_string] = [:]

  init(source: Int, partition: Int32, rows: [Row]) {
    identity = PartitionIdentity(source: source, topic: "memory", partition: partition)
    self.rows = rows
  }

  deinit { for string in strings.values { string.data?.deallocate() } }

  func read(into batch: RecordBatch) -> ReadOutcome {
    batch.clear()
    guard next < rows.count else { return .end }
    while next < rows.count, batch.rowCount < batch.capacity {
      let row = batch.rowCount
      for (field, column) in zip(batch.schema.fields, batch.columns) {
        set(column, row, rows[next][field.name] ?? .null)
      }
      batch.offsets[row] = Int64(next)
      batch.payloads[row] = rd_string()
      batch.rowCount += 1
      next += 1
    }
    batch.nextOffset = Int64(next)
    return .records
  }

  private func set(_ column: Column, _ row: Int, _ value: Value) {
    if value == .null, !column.hasNulls {
      column.hasNulls = true
      column.validity.update(repeating: 1, count: column.capacity)
    }
    if column.hasNulls { column.validity[row] = value == .null ? 0 : 1 }
    switch value {
    case .null: break
    case .bool(let flag): column.bools[row] = flag ? 1 : 0
    case .int(let number), .timestamp(let number): column.ints[row] = number
    case .float(let number), .duration(let number), .bytes(let number), .ratio(let number):
      column.doubles[row] = number
    case .string(let text): column.strings[row] = string(text)
    }
  }

  private func string(_ text: String) -> rd_string {
    if let known = strings[text] { return known }
    let bytes = Array(text.utf8)
    let copy = UnsafeMutablePointer<UInt8>.allocate(capacity: max(bytes.count, 1))
    copy.update(from: bytes, count: bytes.count)
    let length = UInt32(bytes.count)
    let string = rd_string(data: copy, length: length, hash: rd_hash_bytes(copy, length))
    strings[text] = string
    return string
  }
}

/// Keeps the metrics and alerts that an engine writes, a line each.
final class LineSink: RecordSink, Sendable {
  private let kept: Mutex<[String]> = Mutex([])
  var lines: [String] { kept.withLock { $0 } }

  func write(_ batch: OutputBatch) {
    let lines = batch.entries.filter { $0.kind == .metric || $0.kind == .alert }.map {
      String(decoding: batch.bytes[$0.start..<$0.start + $0.length], as: UTF8.self)
    }
    kept.withLock { $0 += lines }
  }

  func flush() {}
  var problem: String? { nil }
  func close() {}
}

/// What rules write over partitions of the sources that they read, by the source's name.
func output(
  _ rules: String, sources: [String: [[MemoryReader.Row]]], workers: Int = 1, batchRows: Int = 4_096
) throws -> [String] {
  let graph = buildPlan(try program(rules)).lower()
  let sink = LineSink()
  var partitions: [PartitionStart] = []
  for (source, node) in graph.sources.enumerated() {
    for (number, rows) in (sources[node.schema.name] ?? []).enumerated() {
      partitions.append(
        PartitionStart(
          reader: MemoryReader(source: source, partition: Int32(number), rows: rows), committedOffset: nil,
          metadata: ""))
    }
  }
  let engine = Engine(
    graph: graph, options: EngineOptions(workers: workers, batchRows: batchRows), partitions: partitions, sink: sink)
  try engine.start()
  try engine.wait()
  return sink.lines
}

/// What rules write over partitions of the one source that they read.
func output(
  _ rules: String, _ partitions: [[MemoryReader.Row]], workers: Int = 1, batchRows: Int = 4_096
) throws -> [String] {
  let graph = buildPlan(try program(rules)).lower()
  let sink = LineSink()
  let engine = Engine(
    graph: graph, options: EngineOptions(workers: workers, batchRows: batchRows),
    partitions: partitions.enumerated().map { number, rows in
      PartitionStart(
        reader: MemoryReader(source: 0, partition: Int32(number), rows: rows), committedOffset: nil,
        metadata: "")
    }, sink: sink)
  try engine.start()
  try engine.wait()
  return sink.lines
}

/// Compares what stands between the marks `name:begin` and `name:end` in docs/language.md; `RULESD_REWRITE_CASES=1 swift test`
/// writes it.
func expectTables(_ name: String, _ tables: String) throws {
  let page = testFolder.appendingPathComponent("../../docs/language.md")
  let text = try String(contentsOf: page, encoding: .utf8)
  let begin = try #require(text.range(of: "<!-- \(name):begin -->\n"))
  let end = try #require(text.range(of: "<!-- \(name):end -->"))
  let expected = text[..<begin.upperBound] + tables + text[end.lowerBound...]
  if ProcessInfo.processInfo.environment["RULESD_REWRITE_CASES"] != nil {
    try expected.write(to: page, atomically: true, encoding: .utf8)
  } else {
    #expect(text == expected)
  }
}

/// A row of a table in Markdown.
func tableRow(_ cells: [String]) -> String {
  "| \(cells.map { $0.replacingOccurrences(of: "|", with: "\\|") }.joined(separator: " | ")) |\n"
}
