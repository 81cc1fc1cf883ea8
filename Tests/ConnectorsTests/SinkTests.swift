import Foundation
import Glibc
import Runtime
import Testing

@testable import Connectors

@Suite struct SinkTests {
  @Test func fileInOrder() throws {
    let scratch = try Scratch()
    let sink = try JSONLinesSink(path: scratch.path("out"), syncs: true)
    var expected = ""
    for round in 0..<200 {
      var batch = OutputBatch()
      for number in 0..<50 {
        let json =
          "{\"round\":\(round),\"number\":\(number),\"pad\":\"\(String(repeating: "p", count: number))\"}"
        batch.add(.metric, json, key: "")
        expected += json + "\n"
      }
      try sink.write(batch)
    }
    try sink.flush()
    let written = try Data(contentsOf: URL(fileURLWithPath: scratch.path("out")))
    #expect(String(decoding: written, as: UTF8.self) == expected)
    #expect(sink.recordCount == 10_000 && sink.byteCount == expected.utf8.count)
    sink.close()
    let more = try JSONLinesSink(path: scratch.path("out"), appends: true)
    var batch = OutputBatch()
    batch.add(.row, "{}", key: "")
    try more.write(batch)
    more.close()
    let both = try Data(contentsOf: URL(fileURLWithPath: scratch.path("out")))
    #expect(String(decoding: both, as: UTF8.self) == expected + "{}\n")
  }

  @Test func aFullDiskThrows() throws {
    let sink = try JSONLinesSink(path: "/dev/full")
    var batch = OutputBatch()
    batch.add(.metric, "{}", key: "")
    try sink.write(batch)
    #expect(throws: SinkFailure.self) { try sink.flush() }
    #expect(throws: SinkFailure.self) { try JSONLinesSink(path: "/no/such/folder/file") }
  }

  @Test func aClosedPipeIsToldApart() throws {
    _ = JSONLinesSink()  // ignores SIGPIPE
    var ends: [Int32] = [0, 0]
    pipe(&ends)
    let sink = try JSONLinesSink(path: "/proc/self/fd/\(ends[1])")
    close(ends[1])
    close(ends[0])
    var batch = OutputBatch()
    batch.add(.metric, "{}", key: "")
    try sink.write(batch)
    do {
      try sink.flush()
      Issue.record("written")
    } catch let failure as SinkFailure { #expect(failure.isClosedPipe) }
  }

  @Test func fanOut() throws {
    let a = CollectingSink()
    let b = CollectingSink(keeps: false)
    let sink = FanOutSink([a, b])
    var batch = OutputBatch()
    batch.add(.alert, "{\"n\":1}", key: "k")
    try sink.write(batch)
    try sink.flush()
    #expect(a.records == [.init(kind: .alert, rule: 0, json: "{\"n\":1}")])
    #expect(b.records.isEmpty && b.recordCount == 1 && b.byteCount == 7 && b.flushCount == 1)
  }
}
