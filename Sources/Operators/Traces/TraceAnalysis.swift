import CColumns
import Runtime

/// What the spans of a trace show: its root, how long it took, what of that each service took itself, and the path of spans
/// that decided how long it took.
///
/// - A span whose parent is not there (an orphan) counts as a child of the root. When no span is without a parent, the root
///   is missing: one is made that lasts as long as the trace and is called `(missing)`.
/// - A loop of parents is cut in front of its earliest span.
/// - Clocks of services differ: a span of another service than its parent's that does not lie inside its parent is moved into its
///   middle, and its own service's spans with it (Jaeger, `model/adjuster/clockskew.go`). One that lasts longer than its parent is moved
///   only when it starts before it.
/// - Self time is a span's duration less the time in which a child of it ran.
/// - The critical path goes back from the root's end: the last child to end before, then what that waited for, and so on (Zhang et
///   al., "CRISP: Critical Path Analysis of Large-Scale Microservice Architectures", USENIX ATC 2022, section 3.2). What a child did
///   after its parent's end nobody waited for.
///
/// One is used for all traces of a task; its memory grows to the largest. Cost: O(n log n) of n spans, without recursion.
final class TraceAnalysis {
  struct Node: BitwiseCopyable {
    /// Among the spans; -1 for the root's.
    var parent: Int32
    var service: Int32
    /// After clocks have been put right.
    var start: Int64
    var end: Int64
    /// What was added to its time.
    var shift: Int64
    var selfNanos: Int64
    /// Of the critical path.
    var pathNanos: Int64
    /// Children: a stretch of `children`.
    var firstChild: Int32
    var childCount: Int32
    var mark: Int32
    /// As the span said: -1 for none, -2 for one that is not there.
    var given: Int32
  }

  static let missing = Array("(missing)".utf8)

  private(set) var trace = TraceSpans(at: 0)
  private(set) var nodes = NativeArray<Node>()
  private var children = NativeArray<Int32>()
  private var slots = NativeArray<Int32>()
  private var stack: [Int32] = []
  /// A span of each service.
  private(set) var services: [Int] = []
  /// By service, nanoseconds: summed up in the order of spans.
  private(set) var serviceSelf: [Double] = []
  /// The root: a span, or the number of spans for one that was made.
  private(set) var root = 0
  private(set) var isRootMissing = false
  private(set) var orphans = 0
  private(set) var loops = 0
  private(set) var skewed = 0
  private(set) var errors = 0
  private(set) var start: Int64 = 0
  private(set) var end: Int64 = 0
  /// The span with most of the critical path.
  private(set) var slowest = 0
  private(set) var spanCount = 0

  /// Looks at a trace of at least one span.
  func run(_ trace: TraceSpans, needsPaths: Bool) {
    precondition(trace.spans.count > 0, "a trace has spans")
    self.trace = trace
    spanCount = trace.spans.count
    makeNodes()
    findServices()
    findParents()
    cutLoops()
    findRoot()
    listChildren()
    moveClocks()
    guard needsPaths else { return }
    findSelfTimes()
    findCriticalPath()
  }

  private func makeNodes() {
    nodes.removeAll()
    errors = 0
    for index in 0..<spanCount {
      let span = trace.spans[index]
      if span.hasFailed { errors += 1 }
      nodes.append(
        Node(
          parent: -1, service: 0, start: span.start, end: span.end, shift: 0, selfNanos: 0, pathNanos: 0, firstChild: 0,
          childCount: 0, mark: 0, given: -1))
    }
  }

  // MARK: Texts

  private func clearSlots(for count: Int) -> Int {
    var capacity = 16
    while capacity < count * 2 { capacity *= 2 }
    slots.grow(to: capacity, filling: -1)
    slots.base.update(repeating: -1, count: capacity)
    return capacity - 1
  }

  private func hash(_ text: SpanRecord.Text) -> Int {
    Int(truncatingIfNeeded: rd_hash64(trace.text.base + Int(text.offset), text.length))
  }

  private func areEqual(_ a: SpanRecord.Text, _ b: SpanRecord.Text) -> Bool {
    guard a.length == b.length, let x = trace.bytes(a).baseAddress, let y = trace.bytes(b).baseAddress else { return false }
    return memcmp(x, y, Int(a.length)) == 0
  }

  private func findServices() {
    services.removeAll(keepingCapacity: true)
    let mask = clearSlots(for: spanCount)
    for index in 0..<spanCount {
      let service = trace.spans[index].service
      // Spans come in stretches of one service.
      if index > 0, areEqual(service, trace.spans[index - 1].service) {
        nodes.base[index].service = nodes[index - 1].service
        continue
      }
      var slot = hash(service) & mask
      while slots[slot] >= 0, !areEqual(trace.spans[services[Int(slots[slot])]].service, service) {
        slot = (slot + 1) & mask
      }
      if slots[slot] < 0 {
        slots[slot] = Int32(truncatingIfNeeded: services.count)
        services.append(index)
      }
      nodes.base[index].service = slots[slot]
    }
  }

  // MARK: The tree

  private func findParents() {
    let mask = clearSlots(for: spanCount)
    for index in 0..<spanCount {
      let id = trace.spans[index].id
      var slot = hash(id) & mask
      // Of two spans with one id the first is meant.
      while slots[slot] >= 0, !areEqual(trace.spans[Int(slots[slot])].id, id) { slot = (slot + 1) & mask }
      if slots[slot] < 0 { slots[slot] = Int32(truncatingIfNeeded: index) }
    }
    for index in 0..<spanCount {
      let parent = trace.spans[index].parent
      guard parent.length > 0 else { continue }
      var slot = hash(parent) & mask
      while slots[slot] >= 0, !areEqual(trace.spans[Int(slots[slot])].id, parent) { slot = (slot + 1) & mask }
      nodes.base[index].given = slots[slot] >= 0 ? slots[slot] : -2
      nodes.base[index].parent = nodes[index].given
    }
  }

  private func cutLoops() {
    loops = 0
    for start in 0..<spanCount where nodes[start].mark == 0 {
      var place = start
      // Marks: 1 for this walk's, 2 for those of walks before.
      while place >= 0, nodes[place].mark == 0 {
        nodes.base[place].mark = 1
        place = Int(nodes[place].parent)
      }
      if place >= 0, nodes[place].mark == 1 { cutLoop(through: place) }
      place = start
      while place >= 0, nodes[place].mark == 1 {
        nodes.base[place].mark = 2
        place = Int(nodes[place].parent)
      }
    }
  }

  private func cutLoop(through first: Int) {
    loops += 1
    var earliest = first
    var place = first
    repeat {
      nodes.base[place].mark = 2
      let (a, b) = (nodes[place], nodes[earliest])
      if (a.start, place) < (b.start, earliest) { earliest = place }
      place = Int(nodes[place].parent)
    } while place != first
    nodes.base[earliest].parent = -2
  }

  private func findRoot() {
    orphans = 0
    var found = -1
    start = nodes[0].start
    end = nodes[0].end
    for index in 0..<spanCount {
      let node = nodes[index]
      start = min(start, node.start)
      end = max(end, node.end)
      if node.given == -2 { orphans += 1 }
      if node.parent == -1, found < 0 || node.start < nodes[found].start { found = index }
    }
    isRootMissing = found < 0
    root = found < 0 ? spanCount : found
    if isRootMissing {
      nodes.append(
        Node(
          parent: -1, service: -1, start: start, end: end, shift: 0, selfNanos: 0, pathNanos: 0, firstChild: 0,
          childCount: 0, mark: 0, given: -1))
    }
    for index in 0..<spanCount where index != root && nodes[index].parent < 0 {
      nodes.base[index].parent = Int32(truncatingIfNeeded: root)
    }
  }

  private func listChildren() {
    for index in 0..<spanCount where index != root { nodes.base[Int(nodes[index].parent)].childCount += 1 }
    var place: Int32 = 0
    for index in 0..<nodes.count {
      nodes.base[index].firstChild = place
      place += nodes[index].childCount
      nodes.base[index].childCount = 0
    }
    children.grow(to: Int(place), filling: 0)
    for index in 0..<spanCount where index != root {
      let parent = Int(nodes[index].parent)
      children[Int(nodes[parent].firstChild + nodes[parent].childCount)] = Int32(truncatingIfNeeded: index)
      nodes.base[parent].childCount += 1
    }
  }

  /// Calls `body` for each node, parents before their children.
  private func walk(_ body: (Int) -> Void) {
    stack.removeAll(keepingCapacity: true)
    stack.append(Int32(truncatingIfNeeded: root))
    while let next = stack.popLast() {
      let node = nodes[Int(next)]
      body(Int(next))
      for child in 0..<Int(node.childCount) { stack.append(children[Int(node.firstChild) + child]) }
    }
  }

  // MARK: Clocks

  private func moveClocks() {
    skewed = 0
    if services.count > 1 {
      walk { index in
        let parent = Int(nodes[index].parent)
        guard parent >= 0, parent < spanCount else { return }
        if nodes[index].service == nodes[parent].service {
          move(index, by: nodes[parent].shift)
          return
        }
        // What only hangs on the root says nothing of its clock.
        guard nodes[index].given == nodes[index].parent else { return }
        let shift = skew(of: nodes[index], in: nodes[parent])
        if shift != 0 { skewed += 1 }
        move(index, by: shift)
      }
    }
    start = nodes[0].start
    end = nodes[0].end
    for index in 0..<spanCount {
      start = min(start, nodes[index].start)
      end = max(end, nodes[index].end)
    }
    if isRootMissing {
      nodes.base[root].start = start
      nodes.base[root].end = end
    }
  }

  private func move(_ index: Int, by shift: Int64) {
    // Times come from outside: one that would leave all time stays where it is.
    let (from, isBeyond) = nodes[index].start.addingReportingOverflow(shift)
    guard !isBeyond, eventTimeNanos.contains(from) else { return }
    nodes.base[index].shift = shift
    nodes.base[index].end += from - nodes[index].start
    nodes.base[index].start = from
  }

  private func skew(of child: Node, in parent: Node) -> Int64 {
    let lasted = child.end - child.start
    let parentLasted = parent.end - parent.start
    if lasted > parentLasted { return child.start < parent.start ? parent.start - child.start : 0 }
    if child.start >= parent.start, child.end <= parent.end { return 0 }
    // As much of the way there as of the way back.
    return parent.start + (parentLasted - lasted) / 2 - child.start
  }

  // MARK: Times

  private func sortChildren(of node: Node, by precedes: (Int32, Int32) -> Bool) {
    var stretch = UnsafeMutableBufferPointer(start: children.base + Int(node.firstChild), count: Int(node.childCount))
    if node.childCount > 1 { stretch.sort(by: precedes) }
  }

  private func findSelfTimes() {
    serviceSelf = Array(repeating: 0, count: services.count)
    for index in 0..<nodes.count {
      let node = nodes[index]
      sortChildren(of: node) { a, b in
        let (x, y) = (nodes[Int(a)].start, nodes[Int(b)].start)
        return x != y ? x < y : a < b
      }
      var covered: Int64 = 0
      var reached = node.start
      for place in 0..<Int(node.childCount) {
        let child = nodes[Int(children[Int(node.firstChild) + place])]
        let from = max(child.start, reached)
        let to = min(child.end, node.end)
        if to > from {
          covered += to - from
          reached = to
        }
      }
      nodes.base[index].selfNanos = node.end - node.start - covered
      if index < spanCount { serviceSelf[Int(node.service)] += Double(nodes[index].selfNanos) }
    }
  }

  private func findCriticalPath() {
    // A node on the way is cut to what its parent saw of it.
    stack.removeAll(keepingCapacity: true)
    var windows: [(from: Int64, to: Int64)] = [(nodes[root].start, nodes[root].end)]
    stack.append(Int32(truncatingIfNeeded: root))
    while let next = stack.popLast(), let window = windows.popLast() {
      let node = nodes[Int(next)]
      sortChildren(of: node) { a, b in
        let (x, y) = (min(nodes[Int(a)].end, window.to), min(nodes[Int(b)].end, window.to))
        if x != y { return x > y }
        let (p, q) = (nodes[Int(a)].start, nodes[Int(b)].start)
        return p != q ? p > q : a < b
      }
      var reached = window.to
      var own: Int64 = 0
      for place in 0..<Int(node.childCount) {
        let number = children[Int(node.firstChild) + place]
        let child = nodes[Int(number)]
        let from = max(child.start, window.from)
        let to = min(child.end, window.to)
        guard to <= reached, from < to else { continue }
        own += reached - to
        reached = from
        stack.append(number)
        windows.append((from, to))
      }
      nodes.base[Int(next)].pathNanos = own + reached - window.from
    }
    slowest = 0
    for index in 0..<spanCount where nodes[index].pathNanos > nodes[slowest].pathNanos { slowest = index }
  }

  // MARK: Texts about it

  /// Spans named in a path.
  static let pathSpansMax = 12

  /// `gateway: GET /cart 12ms > carts: load 30ms > db: SELECT 950ms`: the spans that had most of the path, in the order of time.
  func appendCriticalPath(to bytes: inout [UInt8], duration: (Int64, inout [UInt8]) -> Void) {
    var on = (0..<nodes.count).filter { nodes[$0].pathNanos > 0 }
    let all = on.count
    if on.count > Self.pathSpansMax {
      on.sort { nodes[$0].pathNanos != nodes[$1].pathNanos ? nodes[$0].pathNanos > nodes[$1].pathNanos : $0 < $1 }
      on.removeSubrange(Self.pathSpansMax...)
    }
    on.sort { nodes[$0].start != nodes[$1].start ? nodes[$0].start < nodes[$1].start : isBefore($0, $1) }
    for (place, index) in on.enumerated() {
      if place > 0 { bytes.append(contentsOf: " > ".utf8) }
      appendName(index, to: &bytes)
      bytes.append(UInt8(ascii: " "))
      duration(nodes[index].pathNanos, &bytes)
    }
    if all > on.count { bytes.append(contentsOf: " (and \(all - on.count) more)".utf8) }
  }

  /// Of one start, the one that lasted longer is the outer one.
  private func isBefore(_ a: Int, _ b: Int) -> Bool {
    if nodes[a].end != nodes[b].end { return nodes[a].end > nodes[b].end }
    return a == root || b != root && a < b
  }

  /// `service: name`, or the service alone where spans have no names.
  func appendName(_ index: Int, to bytes: inout [UInt8]) {
    guard index < spanCount else { return bytes.append(contentsOf: Self.missing) }
    let span = trace.spans[index]
    bytes.append(contentsOf: trace.bytes(span.service))
    guard span.name.length > 0 else { return }
    bytes.append(contentsOf: ": ".utf8)
    bytes.append(contentsOf: trace.bytes(span.name))
  }

  /// Services named in `self_times`.
  static let servicesMax = 20

  /// `{"db":0.95,"cart":0.03}`: seconds by service, the most first.
  func appendSelfTimes(to bytes: inout [UInt8]) {
    var order = Array(services.indices)
    order.sort { serviceSelf[$0] != serviceSelf[$1] ? serviceSelf[$0] > serviceSelf[$1] : $0 < $1 }
    bytes.append(UInt8(ascii: "{"))
    for (place, service) in order.prefix(Self.servicesMax).enumerated() {
      if place > 0 { bytes.append(UInt8(ascii: ",")) }
      bytes.append(jsonString: trace.bytes(trace.spans[services[service]].service))
      bytes.append(UInt8(ascii: ":"))
      bytes.append(json: serviceSelf[service] / 1e9)
    }
    bytes.append(UInt8(ascii: "}"))
  }
}
