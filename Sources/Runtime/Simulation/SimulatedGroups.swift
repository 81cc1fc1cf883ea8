/// An offset as a group has it committed.
public struct CommittedOffset: Sendable, Hashable {
  public var offset: Int64
  public var metadata: String
  public init(offset: Int64, metadata: String) {
    self.offset = offset
    self.metadata = metadata
  }
}

/// A member of a simulated group at one moment.
public final class SimulatedGroupHandle: ConsumerGroupHandle {
  public let group: String
  public let member: Int
  public let generation: Int
  init(group: String, member: Int, generation: Int) {
    self.group = group
    self.member = member
    self.generation = generation
  }
}

/// One consumer's place in a group, as its client library keeps it: heartbeats go on while nobody polls, and stop
/// when the process dies or hangs.
public final class SimulatedMember {
  enum Notice: Hashable {
    case assigned([SimulatedPlace])
    case revoked([SimulatedPlace])
  }
  public let group: String
  public fileprivate(set) var id: Int
  let instanceID: String?
  let topic: String
  let sessionSteps: Int
  /// False for a process that is dead or hangs.
  public var isHeartbeating = true
  /// As of the last word from the group.
  public fileprivate(set) var generation = 0
  /// Expelled, or its instance id taken over.
  public fileprivate(set) var isExpelled = false
  fileprivate(set) var notices: [Notice] = []
  fileprivate var lastSeen: Int
  fileprivate var held: Set<SimulatedPlace> = []
  fileprivate var target: Set<SimulatedPlace> = []
  /// Revocations that it has been told of.
  fileprivate var asked: Set<SimulatedPlace> = []

  fileprivate init(group: String, id: Int, topic: String, instanceID: String?, sessionSteps: Int, step: Int) {
    self.group = group
    self.id = id
    self.topic = topic
    self.instanceID = instanceID
    self.sessionSteps = sessionSteps
    lastSeen = step
  }

  func takeNotices() -> [Notice] {
    defer { notices = [] }
    return notices
  }

  public var handle: SimulatedGroupHandle { SimulatedGroupHandle(group: group, member: id, generation: generation) }
}

extension SimulatedLog {
  final class Group {
    var generation = 0
    /// In the order of joining.
    var members: [SimulatedMember] = []
    var committed: [SimulatedPlace: CommittedOffset] = [:]
  }

  private func group(_ name: String) -> Group {
    if let known = groups[name] { return known }
    let made = Group()
    groups[name] = made
    groupNames.append(name)
    return made
  }

  // MARK: Requests

  /// Joins. With the instance id of a member it takes that one's place: no rebalance, and the old one is fenced.
  public func join(_ name: String, topic: String, instanceID: String? = nil, sessionSteps: Int = 30) throws
    -> SimulatedMember
  {
    let member = try request {
      let group = group(name)
      memberCount += 1
      let member = SimulatedMember(
        group: name, id: memberCount, topic: topic, instanceID: instanceID, sessionSteps: sessionSteps, step: step)
      // If the answer is lost nobody is this member, and the group finds out by its silence.
      member.isHeartbeating = false
      if let instanceID, let place = group.members.firstIndex(where: { $0.instanceID == instanceID }) {
        let old = group.members[place]
        old.isExpelled = true
        member.generation = group.generation
        member.target = old.target
        member.held = old.held
        // A newcomer does not know what it was given; what it was to give back it does not have.
        member.held.formIntersection(member.target)
        group.members[place] = member
        member.notices = [.assigned(member.held.sorted())]
        grant(group)
      } else {
        group.members.append(member)
        rebalance(group)
        member.generation = group.generation
      }
      return member
    }
    member.isHeartbeating = true
    return member
  }

  /// Leaves at once. (A static member does not: it is gone until it comes back or its session ends.)
  public func leave(_ member: SimulatedMember) {
    member.isHeartbeating = false
    guard !isDown, member.instanceID == nil else { return }
    expel(member)
  }

  /// Answers a revocation.
  func release(_ member: SimulatedMember, _ places: [SimulatedPlace]) {
    guard !member.isExpelled, let group = groups[member.group] else { return }
    member.held.subtract(places)
    member.asked.subtract(places)
    // The rest of a cooperative rebalance is another one.
    rebalance(group)
  }

  /// Commits offsets outside of transactions.
  public func commit(_ handle: SimulatedGroupHandle, _ points: [CommitPoint]) throws {
    try request {
      try checkMember(handle)
      for point in points {
        group(handle.group).committed[SimulatedPlace(point.partition.topic, point.partition.partition)] =
          CommittedOffset(offset: point.offset, metadata: point.metadata)
      }
    }
  }

  /// What a group has committed. Throws `unstableOffsets` while a transaction may still change it.
  public func committedOffsets(_ name: String, _ places: [SimulatedPlace]) throws -> [CommittedOffset?] {
    try request {
      for place in places where hasPendingOffset(name, place) { throw SimulatedLogError.unstableOffsets }
      return places.map { groups[name]?.committed[$0] }
    }
  }

  /// The same, past all faults and transactions, for a test.
  public func committedOffset(_ name: String, _ place: SimulatedPlace) -> CommittedOffset? {
    groups[name]?.committed[place]
  }

  // MARK: The coordinator's side

  func checkMember(_ handle: SimulatedGroupHandle) throws(SimulatedLogError) {
    guard let group = groups[handle.group], group.members.contains(where: { $0.id == handle.member }) else {
      throw .unknownMember
    }
    guard group.generation == handle.generation else { throw .illegalGeneration }
  }

  func expireMembers() {
    for name in groupNames {
      guard let group = groups[name] else { continue }
      for member in group.members {
        if member.isHeartbeating {
          member.lastSeen = step
          // One that was away and not missed.
          member.generation = group.generation
        } else if step - member.lastSeen >= member.sessionSteps {
          counts.expulsions += 1
          expel(member)
        }
      }
    }
  }

  /// Coordinators that come back give everybody another session.
  func restSessions() {
    for group in groups.values { for member in group.members { member.lastSeen = step } }
  }

  private func expel(_ member: SimulatedMember) {
    guard let group = groups[member.group], !member.isExpelled else { return }
    member.isExpelled = true
    group.members.removeAll { $0 === member }
    rebalance(group)
  }

  /// A new generation: shares the topics' partitions out anew, moving as few as it can.
  private func rebalance(_ group: Group) {
    group.generation += 1
    for member in group.members where member.isHeartbeating { member.generation = group.generation }
    for topic in Set(group.members.map(\.topic)).sorted() { share(topic, group) }
    grant(group)
  }

  private func share(_ topic: String, _ group: Group) {
    let members = group.members.filter { $0.topic == topic }
    let all = (0..<partitionCount(topic)).map { SimulatedPlace(topic, Int32($0)) }
    let least = all.count / members.count
    // So many members have one more than the others.
    var generous = all.count % members.count
    var free = Set(all)
    for member in members {
      // What it was given, or still holds of what it was given before.
      let kept = (member.target.isEmpty ? member.held : member.target).intersection(free).sorted()
      var quota = least
      if kept.count > least, generous > 0 {
        quota += 1
        generous -= 1
      }
      member.target = Set(kept.prefix(quota))
      free.subtract(member.target)
    }
    for place in all where free.contains(place) {
      guard let poorest = members.min(by: { $0.target.count < $1.target.count }) else { return }
      poorest.target.insert(place)
    }
  }

  /// Tells members what they have to give back, and gives what nobody holds.
  private func grant(_ group: Group) {
    for member in group.members {
      let taken = member.held.subtracting(member.target).subtracting(member.asked)
      guard !taken.isEmpty else { continue }
      member.asked.formUnion(taken)
      member.notices.append(.revoked(taken.sorted()))
    }
    for member in group.members {
      let free = member.target.subtracting(member.held).filter { place in
        !group.members.contains { $0 !== member && $0.held.contains(place) }
      }
      guard !free.isEmpty else { continue }
      member.held.formUnion(free)
      member.notices.append(.assigned(free.sorted()))
    }
  }
}
