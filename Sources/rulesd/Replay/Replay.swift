import Connectors
import Runtime

/// Which dead letters are to be replayed.
struct ReplayFilter {
  /// Parts of reasons, one of which must occur; empty for any.
  var reasons: [String] = []
  var rules: Set<String> = []
  /// From, and up to but without, nanoseconds since the epoch.
  var sinceNanos: Int64?
  var untilNanos: Int64?

  func takes(_ letter: DeadLetter) -> Bool {
    if !rules.isEmpty, !rules.contains(letter.rule) { return false }
    if !reasons.isEmpty, !reasons.contains(where: { letter.reason.contains($0) }) { return false }
    if sinceNanos != nil || untilNanos != nil {
      guard let time = letter.timeNanos, time >= sinceNanos ?? .min, time < untilNanos ?? .max else { return false }
    }
    return true
  }
}

/// Where replayed records go.
protocol ReplayTarget {
  /// Nil when it was taken, else why this one cannot be.
  func write(_ letter: DeadLetter, payload: [UInt8]) throws -> String?
  /// Returns when everything taken is safe.
  func finish() throws
}

/// Back to the topic and partition that a record came from, or to another topic by its key.
final class TopicTarget: ReplayTarget {
  private let writer: KafkaWriter
  private let topic: String?

  init(_ writer: KafkaWriter, topic: String?) {
    self.writer = writer
    self.topic = topic
  }

  func write(_ letter: DeadLetter, payload: [UInt8]) throws -> String? {
    try writer.write(
      topic: topic ?? letter.topic, key: letter.key, payload: payload, timestampMillis: 0,
      partition: topic == nil ? letter.partition : -1, replays: letter.replays + 1)
    return nil
  }

  func finish() throws { try writer.flush() }
}

/// A recording, in the envelopes of `kcat -J`.
final class RecordingTarget: ReplayTarget {
  private let file: RecordingFile
  private let topic: String?

  init(_ file: RecordingFile, topic: String?) {
    self.file = file
    self.topic = topic
  }

  func write(_ letter: DeadLetter, payload: [UInt8]) throws -> String? {
    guard let text = String(validating: payload, as: UTF8.self), let key = String(validating: letter.key, as: UTF8.self)
    else { return "not UTF-8: a recording cannot hold it" }
    var line: [UInt8] = []
    line.append(json: "{\"topic\":")
    line.append(jsonString: topic ?? letter.topic)
    line.append(contentsOf: ",\"partition\":\(letter.partition),\"offset\":\(letter.offset)".utf8)
    if letter.kind == .deadLetter, let nanos = letter.timeNanos {
      line.append(contentsOf: ",\"tstype\":\"create\",\"ts\":\(nanos / 1_000_000)".utf8)
    }
    line.append(contentsOf: ",\"headers\":[\"\(RecordDetails.replaysHeader)\",\"\(letter.replays + 1)\"],\"key\":".utf8)
    if key.isEmpty { line.append(json: "null") } else { line.append(jsonString: key) }
    line.append(json: ",\"payload\":")
    line.append(jsonString: text)
    line.append(json: "}")
    try file.append(line: line)
    return nil
  }

  func finish() throws { try file.finish() }
}

/// Takes dead letters one by one, writes them, and counts what becomes of them.
///
/// Dead letters lie spread over the partitions of their topic, while windows want rows in the order of time: up to 64 MiB
/// of them are brought into the order of (time, topic, partition, offset) before they are written.
struct Replay {
  var filter = ReplayFilter()
  /// Records that came back this often are left alone.
  var replaysMax = 3
  var limit = Int.max
  /// Records a second; nil for as fast as it goes.
  var rate: Double?
  /// Nil only counts.
  var target: (any ReplayTarget)?
  let environment: CommandEnvironment

  private(set) var replayed: [Place: Int] = [:]
  private(set) var refused: [Place: Int] = [:]
  private(set) var passedOver = 0
  private(set) var unreadable = 0
  private var startNanos: Int64 = 0
  private var writtenCount = 0
  private var waiting: [(letter: DeadLetter, payload: [UInt8])] = []
  private var waitingBytes = 0
  private static let waitingBytesMax = 64 << 20

  /// What is counted together.
  struct Place: Hashable, Comparable {
    var topic: String
    var reason: String
    static func < (a: Place, b: Place) -> Bool { (a.topic, a.reason) < (b.topic, b.reason) }
  }

  init(environment: CommandEnvironment) { self.environment = environment }

  var replayedCount: Int { replayed.values.reduce(0, +) }
  var refusedCount: Int { refused.values.reduce(0, +) }
  /// Whether the limit is reached.
  var isDone: Bool { replayedCount + waiting.count >= limit }

  /// A record of the dead-letter topic or file.
  mutating func take(_ line: [UInt8]) throws {
    guard !isDone else { return }
    let (found, isOther) = DeadLetter.read(line)
    guard let letter = found else {
      if isOther { passedOver += 1 } else { unreadable += 1 }
      return
    }
    guard filter.takes(letter) else {
      passedOver += 1
      return
    }
    guard letter.replays < replaysMax else {
      return refuse(letter, "replayed \(letter.replays) times already: \(letter.reason)")
    }
    guard let payload = letter.payload else { return refuse(letter, letter.obstacle ?? "no payload") }
    waiting.append((letter, payload))
    waitingBytes += payload.count + letter.key.count + 256
    if waitingBytes > Self.waitingBytesMax { try writeWaiting() }
  }

  /// Writes what waits, and returns when that is safe.
  mutating func finish() throws {
    try writeWaiting()
    try target?.finish()
  }

  private mutating func writeWaiting() throws {
    waiting.sort { a, b in
      let (x, y) = (a.letter, b.letter)
      return (x.timeNanos ?? .min, x.topic, x.partition, x.offset)
        < (y.timeNanos ?? .min, y.topic, y.partition, y.offset)
    }
    for (letter, payload) in waiting {
      try pace()
      if let obstacle = try target?.write(letter, payload: payload) {
        refuse(letter, obstacle)
      } else {
        replayed[Place(topic: letter.topic, reason: letter.reason), default: 0] += 1
      }
    }
    waiting = []
    waitingBytes = 0
  }

  /// Lines that were too long to be read.
  mutating func noteUnreadable(_ count: Int) { unreadable += count }

  private mutating func refuse(_ letter: DeadLetter, _ reason: String) {
    refused[Place(topic: letter.topic, reason: reason), default: 0] += 1
  }

  private mutating func pace() throws {
    guard let rate, target != nil else { return }
    let now = environment.monotonicNanos()
    if writtenCount == 0 { startNanos = now }
    environment.sleep(startNanos &+ Int64(Double(writtenCount) / rate * 1e9) &- now)
    writtenCount += 1
  }

  /// The counts, for a person: a line for each topic and reason.
  func report() -> String {
    var text = ""
    func lines(_ counts: [Place: Int], _ verb: String) {
      for place in counts.keys.sorted() {
        let count = grouped(counts[place] ?? 0)
        text += "\(verb)  \(String(repeating: " ", count: max(0, 9 - count.count)))\(count)  "
          + "\(place.topic)  \(shown(place.reason))\n"
      }
    }
    lines(replayed, target == nil ? "would replay" : "replayed")
    lines(refused, "left alone")
    return text
  }

  private func shown(_ reason: String) -> String {
    let line = reason.map { $0.isNewline ? " " : $0 }
    return line.count > 120 ? String(line.prefix(119)) + "…" : String(line)
  }
}
