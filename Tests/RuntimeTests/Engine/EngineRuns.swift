import Catalog
import Foundation
import Operators
import Planner
import RuleLang
import Synchronization
import Testing

@testable import Runtime

let minute: Int64 = 60_000_000_000
let second: Int64 = 1_000_000_000
/// 2026-11-21T03:00:00Z
let testEpoch: Int64 = 1_795_230_000_000_000_000

/// The head of a test source: all fields, lateness bound and idle time-out.
func testSource(_ name: String, watermark: String = "10s", idle: String = "30s") -> String {
  """
  source \(name) {
    time ts  watermark \(watermark)  idle \(idle)
    fields { ts: timestamp(ns), key: string, value: float?, counter: float, seq: int }
    require seq >= 0 else "negative"
  }

  """
}

/// Compiles rules to a graph.
func graph(_ rules: String) throws -> Graph {
  let catalog = makeCatalog(formats: [FormatSpec(name: "json", summary: "JSON")])
  let result = compileRules([SourceFile(path: "test.rules", text: rules)], catalog: catalog)
  let program = try #require(result.program, "\(result.diagnostics.map(\.message))")
  return buildPlan(program).lower()
}

func log(
  _ source: Int, _ partition: Int32, _ records: [TestRecord], topic: String? = nil, visible: Int? = nil,
  atEnd: ReadOutcome = .end
) -> MemoryLog {
  MemoryLog(
    PartitionIdentity(source: source, topic: topic ?? "topic\(source)", partition: partition), records,
    visible: visible, atEnd: atEnd)
}

/// What an engine writes over recordings.
func runRecorded(
  _ graph: Graph, _ logs: [MemoryLog], workers: Int = 1, batchRows: Int = 4_096, order: OutputOrder = .total
) throws -> [String] {
  let sink = MemorySink()
  let engine = Engine(
    graph: graph, options: EngineOptions(workers: workers, batchRows: batchRows, order: order),
    partitions: logs.map { $0.start() }, sink: sink)
  try engine.start()
  try engine.wait()
  return sink.lines
}

/// Waits until something holds; a test that waits in vain fails.
func eventually(_ what: String, seconds: Int = 20, _ condition: () -> Bool) throws {
  for _ in 0..<seconds * 500 {
    if condition() { return }
    sleepMillis(2)
  }
  Issue.record("in vain: \(what)")
  throw SourceFailure("in vain: \(what)")
}

/// A clock that a test moves.
final class TestClock: Sendable {
  private let nanos: Atomic<Int64>
  init(_ start: Int64) { nanos = Atomic(start) }
  var now: Int64 { nanos.load(ordering: .relaxed) }
  func advance(_ by: Int64) { nanos.add(by, ordering: .relaxed) }
}

/// Rows in some disorder: times go forward by random steps, some rows lie behind, a few too far behind.
func randomRecords(
  _ count: Int, from start: Int64, keys: Int, stepNanosMax: Int64, boundNanos: Int64, lateOneIn: Int,
  garbageOneIn: Int, random: inout SeededRandom
) -> [TestRecord] {
  var records: [TestRecord] = []
  var front = start
  var counters = [Double](repeating: 0, count: keys)
  for index in 0..<count {
    if garbageOneIn > 0, Int.random(in: 0..<garbageOneIn, using: &random) == 0 {
      records.append(.garbage())
      continue
    }
    front += Int64.random(in: 0...stepNanosMax, using: &random)
    if Int.random(in: 0..<200, using: &random) == 0 { front += 5 * stepNanosMax }
    var time = front
    if lateOneIn > 0, Int.random(in: 0..<lateOneIn, using: &random) == 0 {
      time -= boundNanos + Int64.random(in: 1...minute, using: &random)
    } else if Bool.random(using: &random) {
      time -= Int64.random(in: 0...boundNanos, using: &random)
    }
    let key = Int.random(in: 0..<keys, using: &random)
    counters[key] =
      Int.random(in: 0..<20, using: &random) == 0
      ? 0 : counters[key] + Double(Int.random(in: 0...50, using: &random))
    let isNegative = garbageOneIn > 0 && Int.random(in: 0..<50, using: &random) == 0
    records.append(
      TestRecord(
        time: max(0, time), key: "k\(key)",
        value: Int.random(in: 0..<10, using: &random) == 0
          ? nil : Double(Int.random(in: -1_000...1_000, using: &random)) / 8,
        counter: counters[key], seq: isNegative ? -1 : Int64(index)))
  }
  return records
}

/// How many random histories a property is tried on: `RULESD_SEEDS` asks for more.
func seedCount(_ usual: Int) -> Int {
  ProcessInfo.processInfo.environment["RULESD_SEEDS"].flatMap(Int.init) ?? usual
}
