import Catalog
import Foundation
import Planner
import RuleLang
import Runtime
import Synchronization
import Testing

private let second: Int64 = 1_000_000_000
private let minute: Int64 = 60 * second

/// A clock that the test moves.
private final class PromiseClock: Sendable {
  private let nanos = Atomic<Int64>(PromiseInput.start + 86_400 * second)
  var now: Int64 { nanos.load(ordering: .relaxed) }
  func advance(_ by: Int64) { nanos.add(by, ordering: .relaxed) }
}

/// Jobs are done at once.
private final class InlineExecutor: BackgroundExecutor {
  func run(_ job: @escaping @Sendable () -> Void) { job() }
}

/// A record that rules have written.
struct WrittenRecord: Hashable {
  var line: String
  var kind: String
  var rule: String
  /// Nanoseconds; of what has a window its end.
  var time: Int64
  var windowNanos: Int64
  var state: String
  var severity: String
  /// `name=value`, sorted.
  var labels: [String]

  init(_ line: String) throws {
    self.line = line
    let object = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
    func time(_ value: Any?) throws -> Int64 { try Self.nanos(try #require(value as? String)) }
    kind = object["type"] as? String ?? ""
    rule = object["rule"] as? String ?? ""
    self.time = try time(object["time"])
    windowNanos = 0
    if let window = object["window"] as? [String: Any] {
      windowNanos = try time(window["end"]) - time(window["start"])
    }
    state = object["state"] as? String ?? ""
    severity = object["severity"] as? String ?? ""
    labels = (object["labels"] as? [String: Any] ?? [:]).map { "\($0)=\($1)" }.sorted()
  }

  /// Of `2026-11-21T03:00:00.000Z`.
  private static func nanos(_ text: String) throws -> Int64 {
    let parts = text.split { !$0.isNumber }.compactMap { Int64($0) }
    try #require(parts.count == 7, "no time: \(text)")
    // Days since 1970 of a Gregorian date, as Howard Hinnant's days_from_civil has it.
    let year = parts[1] <= 2 ? parts[0] - 1 : parts[0]
    let month = (parts[1] + 9) % 12
    let dayOfYear = (153 * month + 2) / 5 + parts[2] - 1
    let days = 365 * year + year / 4 - year / 100 + year / 400 + dayOfYear - 719_468
    return (((days * 24 + parts[3]) * 60 + parts[4]) * 60 + parts[5]) * second + parts[6] * 1_000_000
  }
}

/// Rows for the sources of two sets of rules: in time by any watermark, so that who waits for how long makes no
/// difference, with numbers that add up exactly in any order. Per service there are times when everything is high and
/// times when nothing is, so that alerts of all kinds come and go.
struct PromiseInput {
  static let start: Int64 = 1_795_230_000_000_000_000
  static let partitions: Int32 = 2
  let format: SimulatedFormat
  /// By topic; each with its time, in the order in which they come.
  private(set) var records: [(place: SimulatedPlace, time: Int64, payload: [UInt8])] = []
  /// How many of them come before the change.
  private(set) var cut = 0

  init(_ old: TypedProgram, _ new: TypedProgram, seed: UInt64) {
    var random = SimulatedRandom(seed: seed)
    var columns: [String: [TypedField]] = [:]
    for source in old.sources + new.sources {
      for field in source.fields { columns[field.path.last ?? field.name, default: []].append(field) }
    }
    let names = columns.keys.sorted()
    format = SimulatedFormat(columns: names)
    let cutTime = Self.start + (38 + Int64(random.upTo(8))) * minute + 23 * second
    let end = cutTime + 90 * minute
    // For detectors: one that has just begun at the change, two that one without a past has learnt enough to find, and another
    // level to the end.
    let hasDetectors = (old.streams + new.streams).contains { stream in
      stream.stages.contains { if case .detector = $0 { true } else { false } }
    }
    var outliers: [Int64: Int] = [:]
    if hasDetectors {
      outliers = [cutTime / minute - 1: 10_000, cutTime / minute + 45: 1_000_000, cutTime / minute + 60: 100_000_000]
      for last in cutTime / minute + 75...end / minute { outliers[last] = 10_000_000_000 }
    }
    let before = Set(old.sources.compactMap(\.topic))
    let after = Set(new.sources.compactMap(\.topic))
    var time = Self.start
    while time < end {
      let isBefore = time < cutTime
      if !isBefore, cut == 0 { cut = records.count }
      for topic in (isBefore ? before : after).sorted() {
        for partition in 0..<Self.partitions {
          let own = time - Int64(random.upTo(4_000)) * 1_000_000
          let key = random.upTo(1)
          let isHigh = (own / minute + Int64(key) * 7) % 19 < 12
          let values = names.map { name in
            Self.value(columns[name] ?? [], own, key, isHigh, isBefore, outliers[own / minute], &random)
          }
          records.append((SimulatedPlace(topic, partition), own, SimulatedFormat.payload(values)))
        }
      }
      time += 5 * second / 2
    }
  }

  private static func value(
    _ fields: [TypedField], _ time: Int64, _ key: Int, _ isHigh: Bool, _ isBefore: Bool, _ outlier: Int?,
    _ random: inout SimulatedRandom
  ) -> String {
    guard let field = fields.first else { return "" }
    // Where only one side takes what is missing or too large, it comes when both sides are gone or there.
    let mayLack = fields.contains(where: \.isNullable) && (fields.allSatisfy(\.isNullable) || !isBefore)
    if mayLack, random.happens(0.05) { return "" }
    switch field.type {
    case .timestamp: return "\(time)"
    case .string where field.name.contains("message"):
      return ["user logged in", "disk is full", "cache was emptied", "no answer from peer"][random.upTo(isHigh ? 3 : 1)]
    case .string: return field.name.contains("service") ? "s\(key)" : ["a", "b"][random.upTo(1)]
    case .bool: return isHigh ? "1" : "0"
    case .int: return "\((isHigh ? [500, 503, 200] : [200, 404, 403])[random.upTo(2)])"
    case .duration:
      if !isBefore, random.happens(0.002) { return "\(90 * second)" }
      return "\((isHigh ? 3 : 1) * second / 2 * Int64(1 + random.upTo(1)))"
    case .float, .bytes, .ratio: return "\((outlier ?? 0) + (isHigh ? 64 + random.upTo(64) : random.upTo(8)))"
    }
  }

  /// The rows from a time on.
  func from(_ time: Int64) -> PromiseInput {
    var rest = self
    rest.records.removeAll { $0.time < time }
    rest.cut = 0
    return rest
  }

  /// The latest event time before the change.
  var front: Int64 { records.prefix(cut).map(\.time).max() ?? Self.start }
}

/// A daemon in one thread over an input: brokers, a disk and a clock of its own, and no faults.
final class PromiseWorld {
  enum Way: String, CaseIterable, Sendable { case reload, restart }

  private let input: PromiseInput
  private let log = SimulatedLog(seed: 1)
  private let disk = SimulatedFileSystem(seed: 1)
  private let clock = PromiseClock()
  private let topics: [String]
  private var coordinator: Coordinator?
  private var stored: [String] = []
  private var problems: [String] = []
  private var fed = 0

  /// What a checkpoint holds: keys by operator.
  typealias Kept = [String: Int]

  init(_ input: PromiseInput) {
    self.input = input
    topics = Set(input.records.map(\.place.topic)).sorted()
    for topic in topics { log.createTopic(topic, partitions: Int(PromiseInput.partitions)) }
    log.createTopic("out", partitions: 1)
    log.onStep = { [unowned self] in self.clock.advance(10_000_000) }
  }

  static func rules(_ program: TypedProgram, _ revision: String) -> RunningRules {
    RunningRules(graph: buildPlan(program).lower(), revision: revision)
  }

  private func store() throws -> DirectoryCheckpointStore {
    try DirectoryCheckpointStore(path: "/state", group: "g", files: disk)
  }

  func start(_ rules: RunningRules, workers: Int) throws {
    var engine = EngineOptions(
      workers: workers, order: .bySource, isLive: true,
      clock: { [clock] in clock.now }, monotonic: { [clock] in clock.now })
    engine.batchRows = 64
    var options = CoordinatorOptions(engine: engine, group: "g")
    options.runsByHand = true
    options.commitNanos = 20_000_000
    options.checkpointNanos = 10_000 * second
    let place = CoordinatorPlace()
    let made = try Coordinator(
      rules: rules, sink: SimulatedTransactionalSink(log: log, topic: "out", transactionalID: "g"), store: store(),
      executor: InlineExecutor(), options: options, suffix: { 7 },
      observe: { [unowned self] event in
        switch event {
        case .checkpoint(let name, _, _, _): self.stored.append(name)
        case .rereads(let text), .restoreDelayed(let text), .checkpointFailed(let text), .commitFailed(let text),
          .transactionAborted(let text), .reloadFailed(let text):
          self.problems.append(text)
        case .engineStarted, .committed, .barrier, .reloaded, .engineEnded: break
        }
      }
    ) { [unowned self] node in
      var options = SimulatedSourceOptions(group: "g.\(node.schema.name)", format: self.input.format)
      options.ownership = .standby(leads: node.schema.index == 0)
      options.startOffset = { identity, _, _ in place.coordinator?.startOffset(identity) }
      return SimulatedSource(schema: node.schema, log: self.log, options: options)
    }
    place.coordinator = made
    coordinator = made
  }

  private final class CoordinatorPlace: @unchecked Sendable {
    // @unchecked: there is one thread.
    weak var coordinator: Coordinator?
  }

  /// Answers whether the daemon goes on.
  private func step() throws -> Bool {
    guard let coordinator else { return false }
    log.advance()
    guard try coordinator.step(timeoutMillis: 0) else {
      self.coordinator = nil
      return false
    }
    for engine in coordinator.engines {
      for _ in 0..<4 { for worker in 0..<engine.workerCount { _ = try engine.step(worker: worker) } }
    }
    return true
  }

  /// Until nothing moves any more.
  private func settle() throws {
    var before: [Int] = []
    var quiet = 0
    for _ in 0..<20_000 {
      guard try step() else { return }
      let engines = coordinator?.engines ?? []
      let partitions = engines.reduce(0) { $0 + $1.status.partitions.count }
      let isWhole = partitions == (coordinator?.rules.graph.sources.count ?? 0) * Int(PromiseInput.partitions)
      let now = [Int(log.endOffset(SimulatedPlace("out", 0)))]
        + engines.flatMap { [$0.status.batches, $0.status.queueDepths.reduce(0, +)] }
      quiet = now == before && isWhole ? quiet + 1 : 0
      before = now
      if quiet > 8 { return }
    }
    throw SourceFailure("the rules do not come to rest: \(coordinator?.problems ?? [])")
  }

  /// Feeds the records up to the change, or all.
  func feed(all: Bool) throws {
    let end = all ? input.records.count : input.cut
    while fed < end {
      for _ in 0..<min(200, end - fed) {
        let record = input.records[fed]
        log.append(record.place, value: record.payload, time: record.time)
        fed += 1
      }
      guard try step() else { break }
    }
    try settle()
  }

  /// Takes a checkpoint, and says what is in it.
  func checkpoint() throws -> Kept {
    guard let coordinator, !coordinator.rules.graph.sources.isEmpty else { return [:] }
    let before = stored.count
    coordinator.takeSavepoint()
    for _ in 0..<2_000 where stored.count == before { _ = try step() }
    let name = try #require(stored.dropFirst(before).last, "no checkpoint was stored: \(problems)")
    let manifest = try #require(try store().manifest(named: name))
    var kept: Kept = [:]
    for section in manifest.sections {
      // Partitions keep an operator's open panes apart.
      let id = section.operatorID.split(separator: "/").first.map(String.init) ?? section.operatorID
      kept[id, default: 0] += section.keys
    }
    return kept
  }

  func change(to rules: RunningRules, _ way: Way, workers: Int) throws {
    switch way {
    case .reload:
      coordinator?.reload(rules)
      for _ in 0..<2_000 where coordinator?.rules.revision != rules.revision { _ = try step() }
    case .restart:
      try stop()
      try start(rules, workers: workers)
    }
    try settle()
  }

  private func stop() throws {
    coordinator?.stop()
    for _ in 0..<2_000 { if try !step() { return } }
    throw SourceFailure("the daemon does not stop: \(coordinator?.problems ?? [])")
  }

  /// Lets the last windows close, and ends.
  func finish() throws {
    clock.advance(400 * 86_400 * second)
    if coordinator?.rules.graph.sources.isEmpty == false { try settle() }
    try stop()
    if !problems.isEmpty { throw SourceFailure("\(problems)") }
  }

  /// What rules have written and committed; not what sources say of single rows.
  func output() throws -> [WrittenRecord] {
    try log.records(SimulatedPlace("out", 0)).map { String(decoding: $0.value, as: UTF8.self) }
      .filter { !$0.hasPrefix("{\"type\":\"dead_letter\"") && !$0.hasPrefix("{\"type\":\"late\"") }
      .map { try WrittenRecord($0) }
  }

  /// What rules write that were always there.
  static func output(_ program: TypedProgram, _ input: PromiseInput) throws -> [WrittenRecord] {
    let world = PromiseWorld(input)
    let rules = rules(program, "only")
    guard !rules.graph.sources.isEmpty else { return [] }
    try world.start(rules, workers: 1)
    try world.feed(all: true)
    try world.finish()
    return try world.output()
  }
}
