import CColumns
import Catalog
import Testing

@testable import Runtime

private func field(_ name: String, _ type: ValueType, _ absence: DecodedField.Absence = .null, hash: Bool = false)
  -> DecodedField
{
  DecodedField(name: name, path: [name], type: type, unit: .native, absence: absence, wantsHash: hash)
}

private func schema(_ fields: [DecodedField], index: Int = 0, topic: String = "in") -> SourceSchema {
  SourceSchema(
    name: topic, index: index, topic: topic, format: "simulated", fields: fields, timeField: 0, boundNanos: 0,
    idleNanos: 1, maxAheadNanos: .max)
}

private let plain = [field("ts", .timestamp, .reject), field("n", .int, .reject)]

/// A process that copies its input to its output, as an engine and a daemon would.
private final class Copier {
  let source: SimulatedSource
  let log: SimulatedLog
  let transactional: SimulatedTransactionalSink?
  let sink: any RecordSink
  var starts: [PartitionIdentity: PartitionStart] = [:]
  var positions: [PartitionIdentity: Int64] = [:]
  var epoch: UInt64 = 0
  var isPrepared = false
  var isDone = false
  let batch = RecordBatch(schema: schema(plain), capacity: 32)

  init(_ log: SimulatedLog, number: Int, isTransactional: Bool, ownership: SourceOwnership) {
    self.log = log
    var options = SimulatedSourceOptions(group: "g", format: SimulatedFormat(columns: ["ts", "n"]))
    options.ownership = ownership
    options.sessionSteps = 12
    options.rowsMax = 5
    source = SimulatedSource(schema: schema(plain), log: log, options: options)
    if isTransactional {
      // Who stands by takes over the leader's name; who shares has one of its own.
      let name = ownership == .shared ? "copier-\(number)" : "copier"
      let sink = SimulatedTransactionalSink(
        log: log, topic: "out", transactionalID: name, timeoutSteps: 40, patienceSteps: 10)
      transactional = sink
      self.sink = sink
    } else {
      transactional = nil
      sink = SimulatedSink(log: log, topic: "out", patienceSteps: 10, deliverySteps: 30)
    }
  }

  /// What was written since the last commit does not count: back to what did.
  private func restart() {
    transactional?.abort()
    isPrepared = false
    starts = [:]
    positions = [:]
    source.restart()
  }

  private func commit() throws {
    epoch += 1
    sink.barrier(epoch)
    let points = positions.keys.sorted().map {
      CommitPoint(partition: $0, offset: positions[$0] ?? 0, metadata: "\(epoch)")
    }
    if let transactional {
      let offsets = points.isEmpty ? [] : [SourceOffsets(source: 0, points: points, group: try source.groupHandle())]
      try transactional.commit(epoch, offsets)
    } else {
      try sink.complete(epoch)
      try source.commit(points)
    }
    positions = [:]
  }

  func turn(_ random: inout SimulatedRandom) throws {
    if transactional != nil, !isPrepared, source.holdsLead {
      guard (try? transactional?.prepare()) != nil else { return }
      // Read before the predecessor was fenced: not to be believed.
      if !starts.isEmpty {
        starts = [:]
        positions = [:]
        source.restart()
      }
      isPrepared = true
    }
    for change in source.poll(timeoutMillis: 0) {
      switch change {
      case .assigned(let fresh): for start in fresh { starts[start.reader.identity] = start }
      case .revoked(let partitions):
        let isCommitted = (try? commit()) != nil
        for partition in partitions {
          starts[partition] = nil
          positions[partition] = nil
        }
        source.released(partitions)
        if !isCommitted { restart() }
      }
    }
    guard transactional == nil || isPrepared else { return }
    for identity in starts.keys.sorted() where random.upTo(2) > 0 {
      guard let reader = starts[identity]?.reader, try reader.read(into: batch) == .records else { continue }
      var out = OutputBatch()
      for row in 0..<batch.rowCount {
        let payload = batch.payloads[row]
        out.entries.append(
          .init(
            kind: .row, rule: 0, topic: -1, start: out.bytes.count, length: Int(payload.length), keyStart: 0,
            keyLength: 0))
        out.bytes += UnsafeBufferPointer(start: payload.data, count: Int(payload.length))
      }
      try sink.write(out)
      positions[identity] = batch.nextOffset
    }
    guard random.upTo(3) == 0, !starts.isEmpty else { return }
    do { try commit() } catch is SinkFenced {
      isDone = true
      source.close()
    } catch { restart() }
  }
}

/// Sources and sinks over a log with faults: a process that reads, writes and commits, killed, hung and replaced.
@Suite struct SimulatedClientTests {
  private static let inputCount = 200

  private func run(seed: UInt64, isTransactional: Bool, ownership: SourceOwnership) throws -> (SimulatedLog, [String]) {
    var faults = SimulatedFaults()
    faults.requestLost = 0.05
    faults.answerLost = 0.05
    faults.delayStepsMax = 3
    faults.goesDown = 0.01
    faults.downStepsMax = 10
    let log = SimulatedLog(seed: seed, faults: faults)
    log.createTopic("in", partitions: 3)
    log.createTopic("out", partitions: 1)
    var random = SimulatedRandom(seed: seed &+ 99)
    var expected: [String] = []
    for number in 0..<Self.inputCount {
      let value = SimulatedFormat.payload(["\(number)", "\(number)"])
      log.append(SimulatedPlace("in", Int32(random.upTo(2))), value: value)
      expected.append(String(decoding: value, as: UTF8.self))
    }
    var number = 0
    func fresh() -> Copier {
      number += 1
      return Copier(log, number: number, isTransactional: isTransactional, ownership: ownership)
    }
    var running = [fresh(), fresh()]
    /// Hung, and back later.
    var hanging: [(copier: Copier, until: Int)] = []
    func isFinished() -> Bool {
      (0..<3).allSatisfy { partition in
        let place = SimulatedPlace("in", Int32(partition))
        return (log.committedOffset("g", place)?.offset ?? 0) >= log.endOffset(place)
      }
    }
    var turns = 0
    while !isFinished() {
      turns += 1
      // Nothing kills for ever.
      if turns == 3_000 { log.faults = .none }
      try #require(turns < 20_000)
      for place in running.indices {
        if turns < 3_000, random.upTo(60) == 0 {
          if random.upTo(1) == 0 {
            running[place].source.kill()
          } else {
            running[place].source.isHanging = true
            hanging.append((running[place], log.step + random.upTo(60)))
          }
          running[place] = fresh()
        }
        try running[place].turn(&random)
        if running[place].isDone { running[place] = fresh() }
      }
      for (copier, until) in hanging where log.step >= until {
        // A zombie goes on as if nothing had happened, then stays or dies.
        copier.source.isHanging = false
        for _ in 0..<random.upTo(6) where !copier.isDone { try copier.turn(&random) }
        copier.source.kill()
      }
      hanging.removeAll { log.step >= $0.until }
      log.advance()
    }
    log.faults = .none
    // What transactions the dead left open.
    log.advance(60)
    return (log, expected)
  }

  @Test(arguments: 0..<40, [SourceOwnership.shared, .standby(leads: true)])
  func exactlyOnceIsExact(_ seed: UInt64, _ ownership: SourceOwnership) throws {
    let (log, expected) = try run(seed: seed, isTransactional: true, ownership: ownership)
    let written = log.records(SimulatedPlace("out", 0)).map { String(decoding: $0.value, as: UTF8.self) }
    #expect(written.sorted() == expected.sorted())
  }

  @Test(arguments: 0..<40, [SourceOwnership.shared, .standby(leads: true)])
  func atLeastOnceLosesNothing(_ seed: UInt64, _ ownership: SourceOwnership) throws {
    let (log, expected) = try run(seed: seed, isTransactional: false, ownership: ownership)
    let written = log.records(SimulatedPlace("out", 0)).map { String(decoding: $0.value, as: UTF8.self) }
    #expect(Set(written) == Set(expected))
  }

  @Test func histories() throws {
    // The same seed is the same history, to the byte.
    let runs = try (0..<2).map { _ in try run(seed: 5, isTransactional: true, ownership: .shared).0 }
    #expect(runs[0].step == runs[1].step)
    #expect(
      runs[0].records(SimulatedPlace("out", 0), committed: false)
        == runs[1].records(SimulatedPlace("out", 0), committed: false))
  }

  @Test func payloadsBecomeRows() throws {
    let fields = [
      field("ts", .timestamp, .reject), field("name", .string, .defaultValue(.string("nobody")), hash: true),
      field("x", .float), field("ok", .bool), field("n", .int, .reject),
    ]
    let log = SimulatedLog(seed: 1)
    log.createTopic("in", partitions: 1)
    let place = SimulatedPlace("in", 0)
    for text in [
      "100,ada,1.5,1,-7", "200,,,,9223372036854775807", "x,ada,1,1,1", "300,ada,1.5x,1,1", "300,a,1,1", "400,b,2,0,",
      "500,b,-2e3,0,0",
    ] { log.append(place, value: Array(text.utf8), time: 77) }
    let reader = SimulatedReader(
      identity: PartitionIdentity(source: 0, topic: "in", partition: 0), log: log, schema: schema(fields),
      format: SimulatedFormat(columns: ["ts", "name", "x", "ok", "n"]), from: 0)
    let batch = RecordBatch(schema: schema(fields))
    #expect(try reader.read(into: batch) == .records)
    #expect(batch.rowCount == 3 && batch.nextOffset == 7)
    #expect((0..<3).map { batch.offsets[$0] } == [0, 1, 6])
    #expect((0..<3).map { batch.columns[0].ints[$0] } == [100, 200, 500])
    #expect((0..<3).map { batch.columns[4].ints[$0] } == [-7, .max, 0])
    let names = (0..<3).map { row in
      let name = batch.columns[1].strings[row]
      #expect(name.hash == rd_hash_bytes(name.data, name.length))
      return String(decoding: UnsafeBufferPointer(start: name.data, count: Int(name.length)), as: UTF8.self)
    }
    #expect(names == ["ada", "nobody", "b"])
    #expect(batch.columns[2].hasNulls && batch.columns[2].validity[1] == 0)
    #expect(batch.columns[2].doubles[0] == 1.5 && batch.columns[2].doubles[2] == -2_000)
    #expect(batch.columns[3].bools[0] == 1 && batch.columns[3].bools[2] == 0 && batch.columns[3].validity[1] == 0)
    #expect(batch.rejects.map(\.offset) == [2, 3, 4, 5] && batch.rejects.map(\.rowsBefore) == [2, 2, 2, 2])
    #expect(batch.rejects[2].reason == "expected 5 values, found 4" && batch.rejects[0].payload == Array("x,ada,1,1,1".utf8))
    #expect(try reader.read(into: batch) == .caughtUp)
  }

  @Test func whoStandsByTakesOver() throws {
    let log = SimulatedLog(seed: 3)
    log.createTopic("in", partitions: 4)
    var options = SimulatedSourceOptions(group: "g", format: SimulatedFormat(columns: ["ts", "n"]))
    options.ownership = .standby(leads: true)
    options.sessionSteps = 10
    let first = SimulatedSource(schema: schema(plain), log: log, options: options)
    let second = SimulatedSource(schema: schema(plain), log: log, options: options)
    func assigned(_ source: SimulatedSource) -> Int {
      source.poll(timeoutMillis: 0).reduce(0) { if case .assigned(let all) = $1 { $0 + all.count } else { $0 } }
    }
    #expect(assigned(first) == 4 && assigned(second) == 0)
    #expect(assigned(first) == 0 && first.holdsLead && !second.holdsLead)
    let identity = PartitionIdentity(source: 0, topic: "in", partition: 3)
    // Its partitions are not those that the group counts.
    try first.commit([CommitPoint(partition: identity, offset: 9, metadata: "c")])
    first.kill()
    log.advance(9)
    #expect(assigned(second) == 0)
    log.advance()
    #expect(assigned(second) == 4 && second.holdsLead)
    #expect(throws: GroupFenced.self) { try first.commit([CommitPoint(partition: identity, offset: 10, metadata: "")]) }
    #expect(log.committedOffset("g", SimulatedPlace("in", 3)) == CommittedOffset(offset: 9, metadata: "c"))
  }
}
