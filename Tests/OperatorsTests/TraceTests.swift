import Testing

@testable import Operators

/// What is said of a trace, against definitions written down naively; and traces that no one would make on purpose.
@Suite struct TraceTests {
  struct Span {
    var id: String
    var parent = ""
    var service = "a"
    var start: Int64
    var duration: Int64
    var failed = false
  }

  private func trace(_ spans: [Span]) -> TraceSpans {
    let trace = TraceSpans(at: 0)
    func text(_ text: String) -> SpanRecord.Text {
      let bytes = Array(text.utf8)
      return bytes.withUnsafeBufferPointer { trace.append($0.baseAddress, $0.count) }
    }
    for span in spans {
      trace.spans.append(
        SpanRecord(
          start: span.start, duration: span.duration, id: text(span.id), parent: text(span.parent),
          service: text(span.service), name: SpanRecord.Text(), flags: span.failed ? 1 : 0))
    }
    return trace
  }

  private func analysis(_ spans: [Span]) -> TraceAnalysis {
    let analysis = TraceAnalysis()
    analysis.run(trace(spans), needsPaths: true)
    return analysis
  }

  private func path(_ analysis: TraceAnalysis) -> String {
    var bytes: [UInt8] = []
    analysis.appendCriticalPath(to: &bytes) { nanos, bytes in bytes.append(contentsOf: "\(nanos)".utf8) }
    return String(decoding: bytes, as: UTF8.self)
  }

  // MARK: Against definitions

  /// Time in which a span ran and none of its children did, tick by tick.
  private func selfTime(_ index: Int, _ nodes: [TraceAnalysis.Node]) -> Int64 {
    let children = nodes.indices.filter { Int(nodes[$0].parent) == index }
    return Int64(
      (nodes[index].start..<nodes[index].end).count { tick in
        !children.contains { nodes[$0].start <= tick && tick < nodes[$0].end }
      })
  }

  /// The critical path by its recursive definition.
  private func criticalPath(
    _ index: Int, _ from: Int64, _ to: Int64, _ nodes: [TraceAnalysis.Node], _ shares: inout [Int: Int64]
  ) {
    var reached = to
    var left = nodes.indices.filter { Int(nodes[$0].parent) == index }
    var own: Int64 = 0
    while true {
      // The last to end by then, of those that took time; of equal ends the last to start, then the first that came.
      var last: Int?
      for child in left {
        let (start, end) = (max(nodes[child].start, from), min(nodes[child].end, to))
        guard start < end, end <= reached else { continue }
        guard let known = last else {
          last = child
          continue
        }
        let knownEnd = min(nodes[known].end, to)
        if end > knownEnd || end == knownEnd && nodes[child].start > nodes[known].start { last = child }
      }
      guard let child = last else { break }
      let (start, end) = (max(nodes[child].start, from), min(nodes[child].end, to))
      own += reached - end
      reached = start
      left.removeAll { $0 == child }
      criticalPath(child, start, end, nodes, &shares)
    }
    shares[index] = own + reached - from
  }

  @Test(arguments: 0..<300) func agreesWithDefinitions(_ seed: Int) {
    var state = UInt64(seed) &* 0x9E37_79B9_7F4A_7C15 &+ 12_345
    func random(_ range: ClosedRange<Int>) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return range.lowerBound + Int((state >> 33) % UInt64(range.count))
    }
    let count = random(1...14)
    var spans: [Span] = []
    for index in 0..<count {
      var parent = ""
      switch random(0...20) {
      case 0: parent = "s\(random(0...count - 1))"
      case 1: parent = "nobody"
      default: if index > 0 { parent = "s\(random(0...index - 1))" }
      }
      spans.append(
        Span(
          id: "s\(index)", parent: parent, service: ["a", "b", "c"][random(0...2)], start: Int64(random(100...160)),
          duration: Int64(random(0...40)), failed: random(0...3) == 0))
    }
    let found = analysis(spans)
    let nodes = (0..<found.nodes.count).map { found.nodes[$0] }
    #expect(found.errors == spans.count { $0.failed })
    #expect(found.services.count == Set(spans.map(\.service)).count)
    // One tree: every way up leads to the root.
    for index in 0..<count {
      var place = index
      for _ in 0...count where place != found.root { place = Int(nodes[place].parent) }
      #expect(place == found.root, "\(spans)")
    }
    for index in nodes.indices { #expect(nodes[index].selfNanos == selfTime(index, nodes), "span \(index) of \(spans)") }
    var shares: [Int: Int64] = [:]
    criticalPath(found.root, nodes[found.root].start, nodes[found.root].end, nodes, &shares)
    for index in nodes.indices { #expect(nodes[index].pathNanos == shares[index] ?? 0, "path of \(index) of \(spans)") }
    // The path covers the root, tick for tick.
    #expect(nodes.reduce(0) { $0 + $1.pathNanos } == nodes[found.root].end - nodes[found.root].start)
  }

  // MARK: Examples

  @Test func thePathGoesThroughWhoEndedLast() {
    let found = analysis([
      Span(id: "g", service: "gateway", start: 0, duration: 18),
      Span(id: "c", parent: "g", service: "carts", start: 2, duration: 15),
      Span(id: "d", parent: "c", service: "db", start: 3, duration: 13),
      Span(id: "e", parent: "c", service: "cache", start: 3, duration: 2),
    ])
    #expect(path(found) == "gateway 3 > carts 2 > db 13")
    #expect(found.slowest == 2 && found.root == 0 && !found.isRootMissing)
  }

  @Test func aMissingRootIsMade() {
    let found = analysis([
      Span(id: "b", parent: "a", service: "x", start: 10, duration: 5), Span(id: "c", parent: "a", service: "y", start: 20, duration: 5),
    ])
    #expect(found.isRootMissing && found.orphans == 2)
    #expect(path(found) == "(missing) 5 > x 5 > y 5")
  }

  @Test func clocksArePutRight() {
    let found = analysis([
      Span(id: "a", service: "x", start: 1_000, duration: 100), Span(id: "b", parent: "a", service: "y", start: 50, duration: 60),
      Span(id: "c", parent: "b", service: "y", start: 60, duration: 10),
    ])
    #expect(found.skewed == 1)
    #expect(found.nodes[1].start == 1_020 && found.nodes[2].start == 1_030)
    #expect(found.end - found.start == 100)
  }

  @Test func timesAtTheEndsOfTimeStay() {
    let found = analysis([
      Span(id: "a", service: "x", start: eventTimeEnd, duration: SpanRecord.durationNanosMax),
      Span(id: "b", parent: "a", service: "y", start: 0, duration: 10),
      Span(id: "c", parent: "b", service: "y", start: eventTimeEnd, duration: 10),
    ])
    #expect(found.end > found.start)
  }
  private let eventTimeEnd: Int64 = 7_258_118_400_000_000_000

  @Test func loopsAreCut() {
    let alone = analysis([Span(id: "a", parent: "a", start: 1, duration: 5)])
    #expect(alone.loops == 1 && alone.isRootMissing)
    let pair = analysis([
      Span(id: "r", start: 0, duration: 9), Span(id: "a", parent: "b", start: 2, duration: 5),
      Span(id: "b", parent: "a", start: 1, duration: 7),
    ])
    #expect(pair.loops == 1 && pair.root == 0 && pair.nodes[2].parent == 0 && pair.nodes[1].parent == 2)
  }

  /// 50,000 spans one below another, side by side, and in a circle.
  @Test(arguments: ["chain", "fan", "loop"]) func manySpans(_ shape: String) {
    let count = 50_000
    let spans = (0..<count).map { index in
      Span(
        id: "s\(index)",
        parent: index == 0 ? (shape == "loop" ? "s\(count - 1)" : "") : shape == "fan" ? "s0" : "s\(index - 1)",
        service: "service \(index % 7)", start: Int64(index), duration: Int64(2 * (count - index)))
    }
    let found = analysis(spans)
    #expect(found.spanCount == count && found.services.count == 7)
    #expect(found.loops == (shape == "loop" ? 1 : 0))
    let root = found.nodes[found.root]
    var covered: Int64 = 0
    for index in 0..<found.nodes.count { covered += found.nodes[index].pathNanos }
    #expect(covered == root.end - root.start)
  }
}
