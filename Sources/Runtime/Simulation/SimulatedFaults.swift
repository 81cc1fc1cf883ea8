/// SplitMix64 by Steele, Lea and Flood: a seed is a history.
public struct SimulatedRandom: RandomNumberGenerator, Sendable {
  private var state: UInt64
  public init(seed: UInt64) { state = seed }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// True with a probability. Draws nothing when it cannot be true, so that switching a fault off costs nothing.
  public mutating func happens(_ probability: Double) -> Bool {
    probability > 0 && Double(next() >> 11) * 0x1p-53 < probability
  }

  /// 0 to `max`, both included.
  public mutating func upTo(_ max: Int) -> Int { max > 0 ? Int(next() % UInt64(max + 1)) : 0 }
}

/// What goes wrong in a simulated log, and how often. Probabilities are those of one request or one step.
public struct SimulatedFaults: Sendable {
  /// A request never arrives; its sender sees `unavailable`.
  public var requestLost = 0.0
  /// A request is done, and its sender sees `unavailable` all the same.
  public var answerLost = 0.0
  /// Acknowledgements of records come up to so many steps later, in any order; so long too may it take until a
  /// transaction that was ended shows in partitions and offsets.
  public var delayStepsMax = 0
  /// The brokers go away in a step, for at most `downStepsMax`.
  public var goesDown = 0.0
  public var downStepsMax = 0

  public init() {}
  public static let none = SimulatedFaults()
}

/// How often each fault has struck, for tests that must not pass because nothing went wrong.
public struct SimulatedFaultCounts: Sendable, Hashable {
  public var requestsLost = 0
  public var answersLost = 0
  /// Acknowledgements that came before one of an older record.
  public var acknowledgementsReordered = 0
  /// Times that the brokers went away.
  public var outages = 0
  /// Members that their group expelled because their session ended.
  public var expulsions = 0

  public init() {}
}

/// How a simulated log answers what it does not do.
public enum SimulatedLogError: Error, Hashable, Sendable {
  /// No answer: it may have been done or not.
  case unavailable
  /// The group has expelled the member, or never knew it.
  case unknownMember
  /// The group has gone on since.
  case illegalGeneration
  /// A newer producer of the same transactional id exists, or the transaction took too long.
  case fencedProducer
  /// The last transaction is still being ended; later.
  case concurrentTransactions
  /// Offsets of an unfinished transaction; later.
  case unstableOffsets
  /// There is no transaction to end.
  case invalidTransaction
  /// A record before this one is missing.
  case outOfOrder
  case unknownTopic
  case offsetGone(wanted: Int64, earliest: Int64)
}
