/// A topic and partition of a simulated log.
public struct SimulatedPlace: Sendable, Hashable, Comparable {
  public var topic: String
  public var partition: Int32
  public init(_ topic: String, _ partition: Int32) {
    self.topic = topic
    self.partition = partition
  }
  public static func < (a: Self, b: Self) -> Bool { (a.topic, a.partition) < (b.topic, b.partition) }
}

public struct SimulatedRecord: Sendable, Hashable {
  public var offset: Int64
  public var key: [UInt8]
  public var value: [UInt8]
  /// The broker's timestamp, nanoseconds.
  public var time: Int64
  public init(offset: Int64, key: [UInt8], value: [UInt8], time: Int64) {
    self.offset = offset
    self.key = key
    self.value = value
    self.time = time
  }
}

/// Kafka in memory, as far as exactly-once depends on its rules: partitions with transactions and a last stable
/// offset, producers with epochs and sequence numbers, groups with generations and committed offsets; and faults.
///
/// Nothing happens by itself: time is counted in steps, by `advance`, and every chance comes from one seed, so that a
/// seed and the calls made are a history. Requests (what clients do) meet faults, what the test does itself
/// (`append`, `records`, …) does not. The rules are those of Apache Kafka 2.5 and later, with cooperative
/// rebalancing (KIP-429), fencing by generation (KIP-447) and by epoch (KIP-98, KIP-588).
///
/// @unchecked: for one thread at a time.
public final class SimulatedLog: @unchecked Sendable {
  struct Entry {
    var key: [UInt8]
    var value: [UInt8]
    var time: Int64
    /// Index into `transactions`, or -1.
    var transaction: Int32
    var isControl: Bool
  }

  final class Partition {
    /// Offset of `entries[0]`: what lies before was removed by retention.
    var first: Int64 = 0
    var entries: [Entry] = []
    /// First offset of each transaction that has not shown its end here.
    var ongoing: [(transaction: Int32, first: Int64)] = []
    var end: Int64 { first + Int64(entries.count) }
    var lastStable: Int64 { ongoing.reduce(end) { min($0, $1.first) } }
  }

  public var faults: SimulatedFaults
  public var random: SimulatedRandom
  /// How often `advance` was called.
  public private(set) var step = 0
  /// Called after each step, for whoever lets time pass along with it.
  public var onStep: (() -> Void)?
  /// Faults so far.
  public internal(set) var counts = SimulatedFaultCounts()
  private var downUntil = 0
  private var topics: [String: [Partition]] = [:]
  var producers: [Producer] = []
  var producerOf: [String: Int] = [:]
  var transactions: [Transaction] = []
  /// Indexes of those that have not shown their end.
  var unfinished: [Int] = []
  var groups: [String: Group] = [:]
  /// In the order in which they were made, since a dictionary has none.
  var groupNames: [String] = []
  var memberCount = 0

  public init(seed: UInt64, faults: SimulatedFaults = .none) {
    random = SimulatedRandom(seed: seed)
    self.faults = faults
  }

  // MARK: Time and faults

  public var isDown: Bool { step < downUntil }

  /// The brokers are away for so many steps.
  public func takeDown(steps: Int) {
    if !isDown { counts.outages += 1 }
    downUntil = max(downUntil, step + steps)
    restSessions()
  }

  /// Lets time pass: sessions and transactions expire, what was delayed arrives. While the brokers are down nothing
  /// expires.
  public func advance(_ steps: Int = 1) {
    for _ in 0..<steps {
      step += 1
      if random.happens(faults.goesDown) { takeDown(steps: 1 + random.upTo(max(0, faults.downStepsMax - 1))) }
      if isDown {
        restSessions()
      } else {
        finishTransactions()
        expireMembers()
      }
      onStep?()
    }
  }

  /// A request on its way to the brokers and back.
  func request<Answer>(_ body: () throws -> Answer) throws -> Answer {
    if isDown { throw SimulatedLogError.unavailable }
    if random.happens(faults.requestLost) {
      counts.requestsLost += 1
      throw SimulatedLogError.unavailable
    }
    let answer = try body()
    if random.happens(faults.answerLost) {
      counts.answersLost += 1
      throw SimulatedLogError.unavailable
    }
    return answer
  }

  func delay() -> Int { random.upTo(faults.delayStepsMax) }

  // MARK: Topics

  public func createTopic(_ name: String, partitions: Int) {
    precondition(topics[name] == nil && partitions > 0)
    topics[name] = (0..<partitions).map { _ in Partition() }
  }

  public func partitionCount(_ topic: String) -> Int { topics[topic]?.count ?? 0 }

  func partition(_ place: SimulatedPlace) -> Partition? {
    guard let all = topics[place.topic], all.indices.contains(Int(place.partition)) else { return nil }
    return all[Int(place.partition)]
  }

  /// Adds a record outside of any transaction and past all faults: a test's input. Returns its offset.
  @discardableResult
  public func append(_ place: SimulatedPlace, key: [UInt8] = [], value: [UInt8], time: Int64 = 0) -> Int64 {
    guard let partition = partition(place) else { preconditionFailure("no such topic: \(place)") }
    partition.entries.append(Entry(key: key, value: value, time: time, transaction: -1, isControl: false))
    return partition.end - 1
  }

  /// Retention: removes what lies before an offset.
  public func trim(_ place: SimulatedPlace, before offset: Int64) {
    guard let partition = partition(place) else { return }
    let count = max(0, min(partition.entries.count, Int(offset - partition.first)))
    partition.entries.removeFirst(count)
    partition.first += Int64(count)
  }

  public func earliestOffset(_ place: SimulatedPlace) -> Int64 { partition(place)?.first ?? 0 }
  public func endOffset(_ place: SimulatedPlace) -> Int64 { partition(place)?.end ?? 0 }
  /// No record before it will change its mind: the first offset of the oldest open transaction.
  public func lastStableOffset(_ place: SimulatedPlace) -> Int64 { partition(place)?.lastStable ?? 0 }

  /// All records that a reader can see, in order.
  public func records(_ place: SimulatedPlace, committed: Bool = true) -> [SimulatedRecord] {
    var found: [SimulatedRecord] = []
    _ = try? scan(place, from: earliestOffset(place), committed: committed) { offset, entry in
      found.append(SimulatedRecord(offset: offset, key: entry.key, value: entry.value, time: entry.time))
      return true
    }
    return found
  }

  /// Gives the records from an offset on to `body`, until it answers false (that one then comes again). Returns the
  /// offset to go on from: markers and aborted records, which nobody sees, are passed.
  func scan(
    _ place: SimulatedPlace, from offset: Int64, committed: Bool, _ body: (Int64, borrowing Entry) -> Bool
  ) throws(SimulatedLogError) -> Int64 {
    guard let partition = partition(place) else { throw .unknownTopic }
    guard offset >= partition.first else { throw .offsetGone(wanted: offset, earliest: partition.first) }
    let end = committed ? partition.lastStable : partition.end
    var next = offset
    while next < end {
      let index = Int(next - partition.first)
      let transaction = Int(partition.entries[index].transaction)
      let isVisible =
        !partition.entries[index].isControl
        && (transaction < 0 || !committed || transactions[transaction].state == .committed)
      if isVisible, !body(next, partition.entries[index]) { break }
      next += 1
    }
    return max(next, offset)
  }
}
