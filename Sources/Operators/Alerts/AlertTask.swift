import CColumns
import Catalog
import Runtime

/// One alert rule at work on one shard.
final class AlertTask: RowTask {
  /// An alert that is pending or firing.
  struct Instance {
    var key: [UInt8]
    var state: AlertState
    /// Of its keys, as the window's group table has it: which shard owns the alert.
    var hash: UInt64
    /// The last evaluation at which it had a row.
    var seen: Int64
    /// What has been told of it; nil before it fires.
    var notice: AlertNotice?
    var labelSet: AlertLabels
    var fingerprint: UInt64
    /// Of the rule's maintenance windows, those that it is subject to.
    var maintenances: [Int32] = []
    /// `"labels":{…}`, made once.
    var labels: [UInt8]
    /// `"values":{…},"annotations":{…}` of its last row.
    var evidence: [UInt8]

    var bytes: Int { 240 + 2 * key.count + labels.count + evidence.count + labelSet.byteCount }
  }

  let definition: Alert
  private let context: TaskContext
  private let output: RecordWriter
  private(set) var active: [Instance] = []
  /// Where each key's alert stands in `active`.
  private var places: [[UInt8]: Int32] = [:]
  private var limit: AlertLimit
  private var maintenances: OpenMaintenances
  private var bytes = 0
  private var events: [AlertEvent] = []
  /// Alerts came out of a checkpoint: a router that is new must hear of those that fire.
  private var mustAnnounce = false
  private var key: [UInt8] = []
  private var keyColumns = KeyColumns()
  /// In the order of the window's keys, which its hash follows.
  private let keySlots: [Int]
  private let origin: RecordOrigin

  init(_ definition: Alert, _ context: TaskContext) {
    self.definition = definition
    self.context = context
    output = context.output
    keySlots = definition.keys.map(\.slot).sorted()
    origin = RecordOrigin(definition.isBurn ? .slo : .alert, rule: definition.rule, name: definition.name)
    limit = AlertLimit(definition.alertsMax)
    maintenances = OpenMaintenances(definition.maintenances)
    super.init()
    context.register(stateful: self)
  }

  override var isQuiet: Bool { active.isEmpty }
  override var holdSince: Int64? {
    var least: Int64?
    for instance in active { least = min(least ?? instance.state.since, instance.state.since) }
    return least
  }

  // MARK: Evaluations

  override func process(_ batch: Batch, _ selection: Selection) {
    let condition = batch.columns[definition.condition]
    for index in 0..<selection.count {
      let row = Int(selection.rows[index])
      let isTrue =
        condition.bools[row] != 0 && (!condition.hasNulls || condition.validity[row] != 0)
      // Most keys are neither true nor active, and cost nothing more.
      if !isTrue && active.isEmpty { continue }
      key.removeAll(keepingCapacity: true)
      key.appendKey(definition.keys, batch, row)
      let time = batch.times[row] + 1
      if let place = places[key] {
        evaluate(Int(place), isTrue, at: time, batch, row)
      } else if isTrue {
        begin(at: time, batch, row)
      }
    }
  }

  private func begin(at time: Int64, _ batch: Batch, _ row: Int) {
    let hash = hash(batch, row)
    guard limit.admit(hash) else { return }
    let (state, report) = AlertState.begin(at: time, forNanos: definition.forNanos)
    let labelSet = labelSet(batch, row)
    var evidence: [UInt8] = []
    appendEvidence(batch, row, to: &evidence)
    insert(
      Instance(
        key: key, state: state, hash: hash, seen: time, labelSet: labelSet,
        fingerprint: labelSet.fingerprint(alert: definition.name), maintenances: maintenances.matching(labelSet),
        labels: labels(batch, row), evidence: evidence))
    settle(active.count - 1, report, at: time)
  }

  private func evaluate(_ place: Int, _ isTrue: Bool, at time: Int64, _ batch: Batch, _ row: Int) {
    active[place].seen = time
    let before = active[place].evidence.count
    active[place].evidence.removeAll(keepingCapacity: true)
    appendEvidence(batch, row, to: &active[place].evidence)
    bytes += active[place].evidence.count - before
    if isTrue {
      settle(place, active[place].state.isTrue(at: time, forNanos: definition.forNanos), at: time)
    } else {
      isNotTrue(place, at: time)
    }
  }

  private func isNotTrue(_ place: Int, at time: Int64) {
    let (isOver, report) = active[place].state.isNotTrue(
      at: time, keepFiringNanos: definition.keepFiringNanos)
    if !isOver { return settle(place, report, at: time) }
    if report == .resolved { resolve(place, at: time) }
    remove(place)
  }

  /// Its records show what it reads: nothing of it can be missing.
  override func lack(_ slots: Set<Int>) -> Bool {
    var read = [definition.condition] + (definition.keys + definition.values).map(\.slot)
    for template in definition.labels + definition.annotations {
      for case .slot(let slot, _) in template.parts { read.append(slot) }
    }
    return read.contains { slots.contains($0) }
  }

  override func windowSkipped(_ end: Int64) {
    // Of a window that ended before the last evaluation everything is known.
    for place in active.indices.reversed() where active[place].state.isPending && active[place].seen < end { remove(place) }
  }

  override func windowEnded(_ end: Int64) {
    if !active.isEmpty {
      // From the back: what is removed gives its place to the last one, which has been looked at.
      for place in active.indices.reversed() where active[place].seen < end {
        active[place].seen = end
        isNotTrue(place, at: end)
      }
    }
    if definition.route != nil { sendEvents(at: end) }
  }

  // MARK: Telling of it

  /// Behind an evaluation that did not end the alert.
  private func settle(_ place: Int, _ report: AlertState.Report?, at time: Int64) {
    if report == .pending {
      if definition.route?.writes != .nothing { write(.pending, place, step: 0, at: time) }
      return
    }
    guard case .firing = active[place].state.phase else { return }
    if active[place].notice == nil { active[place].notice = AlertNotice(firedAt: time) }
    let silencer = maintenances.silencer(among: active[place].maintenances, at: time)
    guard
      let told = active[place].notice?.evaluate(at: time, definition.policy, isSuppressed: silencer != nil),
      let notice = active[place].notice
    else { return }
    if definition.route == nil || definition.route?.writes == .everything {
      write(
        .notice(told), place, step: notice.step, at: time,
        told == .suppressed ? silencer.map { .maintenance($0) } : nil)
    }
    if definition.route != nil { events.append(event(.update, place, at: time)) }
  }

  private func resolve(_ place: Int, at time: Int64) {
    guard let notice = active[place].notice else { return }
    // Of an alert that nobody was told of nobody wants to know that it is over.
    if notice.notifiedAt != nil, definition.route == nil || definition.route?.writes == .everything {
      write(.resolved, place, step: notice.step, at: time)
    }
    if definition.route != nil { events.append(event(.resolved, place, at: time)) }
  }

  private func write(
    _ kind: AlertRecord.Kind, _ place: Int, step: Int, at time: Int64, _ suppressor: AlertRecord.Suppressor? = nil
  ) {
    let instance = active[place]
    let record = AlertRecord(
      kind, step: step, definition.policy, since: instance.state.since, fingerprint: instance.fingerprint, suppressor)
    output.open(origin, time: time, windowNanos: definition.windowNanos) {
      $0.append(bytes: instance.key)
      if definition.isBurn { AlertRecord.appendBurn(definition.policy, to: &$0) }
    }
    output.append {
      record.append(to: &$0, condition: definition.conditionText, labels: instance.labels, evidence: instance.evidence)
    }
    output.close(origin, time: time)
  }

  // MARK: To the router

  private func event(_ kind: AlertEvent.Kind, _ place: Int, at time: Int64) -> AlertEvent {
    let instance = active[place]
    return AlertEvent(
      alert: definition.route?.alert ?? 0, kind: kind, time: time, key: instance.key, since: instance.state.since,
      notice: instance.notice ?? AlertNotice(firedAt: time), labelSet: instance.labelSet, labels: instance.labels,
      evidence: instance.evidence)
  }

  private func sendEvents(at end: Int64) {
    if mustAnnounce {
      mustAnnounce = false
      for place in active.indices {
        if active[place].notice != nil { events.append(event(.announcement, place, at: end)) }
      }
    }
    guard !events.isEmpty, let route = definition.route else { return }
    context.send(
      AlertEvent.chunk(events), exchange: route.exchange,
      to: KeyGroup.owner(AlertRouter.ownerHash, shardCount: context.shardCount))
    events.removeAll()
  }

  // MARK: Instances

  private func insert(_ instance: Instance) {
    places[instance.key] = Int32(truncatingIfNeeded: active.count)
    bytes += instance.bytes
    active.append(instance)
  }

  private func remove(_ place: Int) {
    bytes -= active[place].bytes
    limit.ended(active[place].hash)
    places[active[place].key] = nil
    let last = active.removeLast()
    guard place < active.count else { return }
    places[last.key] = Int32(truncatingIfNeeded: place)
    active[place] = last
  }

  /// One out of a checkpoint.
  func restore(_ instance: Instance) {
    guard places[instance.key] == nil else { return }
    var instance = instance
    instance.fingerprint = instance.labelSet.fingerprint(alert: definition.name)
    instance.maintenances = maintenances.matching(instance.labelSet)
    limit.restored(instance.hash)
    mustAnnounce = definition.route != nil
    insert(instance)
  }

  var ruleState: RuleState? {
    RuleState(rule: definition.rule, keys: active.count, bytes: bytes, rowsOverLimit: limit.rowsTurnedAway)
  }

  // MARK: Text

  private func hash(_ batch: Batch, _ row: Int) -> UInt64 {
    var place = Int32(row)
    var hash: UInt64 = 0
    keyColumns.bind(batch, slots: keySlots)
    keyColumns.hashRows(&place, count: 1, into: &hash)
    return hash
  }

  private func labelSet(_ batch: Batch, _ row: Int) -> AlertLabels {
    var pairs: [(name: [UInt8], value: [UInt8])] = []
    for key in definition.keys {
      let column = batch.columns[key.slot]
      if column.hasNulls, column.validity[row] == 0 { continue }
      var text: [UInt8] = []
      text.appendPlain(column, row, type: key.type)
      pairs.append((Array(key.name.utf8), text))
    }
    for label in definition.labels {
      var text: [UInt8] = []
      label.append(to: &text, batch, row)
      pairs.append((Array(label.name.utf8), text))
    }
    return AlertLabels(pairs)
  }

  private func labels(_ batch: Batch, _ row: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(json: "\"labels\":{")
    let hasKeys = bytes.appendLabels(definition.keys, batch, row)
    appendTemplates(definition.labels, batch, row, continuing: hasKeys, to: &bytes)
    bytes.append(UInt8(ascii: "}"))
    return bytes
  }

  private func appendEvidence(_ batch: Batch, _ row: Int, to bytes: inout some TextOutput & ~Copyable) {
    bytes.append(json: "\"values\":{")
    for (index, value) in definition.values.enumerated() {
      if index > 0 { bytes.append(UInt8(ascii: ",")) }
      bytes.append(jsonString: value.name)
      bytes.append(UInt8(ascii: ":"))
      bytes.appendJSON(batch.columns[value.slot], row, type: value.type)
    }
    bytes.append(json: "},\"annotations\":{")
    appendTemplates(definition.annotations, batch, row, continuing: false, to: &bytes)
    bytes.append(UInt8(ascii: "}"))
  }

  private func appendTemplates(
    _ templates: [Template], _ batch: Batch, _ row: Int, continuing: Bool, to bytes: inout some TextOutput & ~Copyable
  ) {
    for (index, template) in templates.enumerated() {
      if continuing || index > 0 { bytes.append(UInt8(ascii: ",")) }
      bytes.append(jsonString: template.name)
      bytes.append(UInt8(ascii: ":"))
      scratch.removeAll(keepingCapacity: true)
      template.append(to: &scratch, batch, row)
      bytes.append(jsonString: scratch)
    }
  }
  private var scratch: [UInt8] = []
}
