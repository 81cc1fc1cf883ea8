import CColumns

/// The head of a source's graph on one worker: checks each row's requirements and time, advances the
/// partition's watermark row by row, writes late rows and dead letters, and passes the rest on.
final class SourceTask {
  let node: SourceNode
  let records: RecordBatch
  private let batch: Batch
  private let prepare: RowTask?
  private let root: RowTask
  private let inTime: UnsafeMutablePointer<Int32>
  private let isLive: Bool
  private let lateOrigin: RecordOrigin
  private let deadLetterOrigin: RecordOrigin
  private var sampler: PartitioningSampler?

  init(_ node: SourceNode, _ context: TaskContext, isLive: Bool, partitioning: PartitioningCheck?) {
    sampler = PartitioningSampler(node, partitioning)
    self.node = node
    self.isLive = isLive
    let name = node.schema.name
    lateOrigin = RecordOrigin(.late, rule: node.rule, name: name, topic: node.lateTopic)
    deadLetterOrigin = RecordOrigin(
      .deadLetter, rule: node.rule, name: name, topic: node.deadLetterTopic)
    records = RecordBatch(schema: node.schema, capacity: context.batchRows)
    batch = Batch(over: records, computed: node.computedSlots)
    prepare = node.prepare?.makeTask(context)
    root = node.root.makeTask(context)
    inTime = .allocate(capacity: context.batchRows)
    inTime.initialize(repeating: 0, count: context.batchRows)
  }

  deinit { inTime.deallocate() }

  /// Takes the batch that was read for the partition.
  func process(_ partition: PartitionState) {
    batch.rowCount = records.rowCount
    batch.partition = partition.ordinal
    batch.number += 1
    if let prepare, records.rowCount > 0 { prepare.process(batch, batch.all) }
    let failed = firstFailures()
    let startWatermark = partition.watermark
    let count =
      failed == nil && records.rejects.isEmpty && !hasRecordTimes && !partition.raises.hasResumed
      ? passOrdinary(partition) : passCarefully(partition, failed)
    partition.counters.rows += records.rowCount
    partition.counters.bytes += records.bytesRead
    if isLive, records.nextOffset >= 0 { partition.noteRead(first: firstOffset) }
    if records.nextOffset >= 0 { partition.position = records.nextOffset }
    if isLive { noteOffsets(partition, startWatermark, count) }
    guard count > 0 else { return }
    sampler?.look(at: batch, inTime, count: count, partition: partition.reader.identity.partition)
    let isDense = count == records.rowCount
    root.process(batch, Selection(rows: inTime, count: count, isDense: isDense))
  }

  private var firstOffset: Int64 {
    let row = records.rowCount > 0 ? records.offsets[0] : .max
    return min(row, records.rejects.first?.offset ?? .max, records.nextOffset)
  }

  private var hasRecordTimes: Bool {
    for row in 0..<records.rowCount where records.recordTimes[row] != .min { return true }
    return false
  }

  /// For each row the first requirement that is not met, -1 for none; nil when all rows meet all.
  private func firstFailures() -> [Int32]? {
    var failed: [Int32]?
    for (number, requirement) in node.requirements.enumerated() {
      let column = batch.columns[requirement.slot]
      for row in 0..<records.rowCount {
        let isMet = column.bools[row] != 0 && (!column.hasNulls || column.validity[row] != 0)
        if isMet { continue }
        if failed == nil { failed = Array(repeating: -1, count: records.rowCount) }
        if failed![row] < 0 { failed![row] = Int32(number) }
      }
    }
    return failed
  }

  /// Rows without rejects, failures or broker times: the common case of a recording, one comparison a row.
  private func passOrdinary(_ partition: PartitionState) -> Int {
    let times = batch.times
    let bound = node.schema.boundNanos
    var watermark = partition.watermark
    var count = 0
    for row in 0..<records.rowCount {
      let time = times[row]
      guard time >= watermark, time >= 0, time <= eventTimeNanos.upperBound else {
        reject(row, partition, watermark)
        continue
      }
      inTime[count] = Int32(truncatingIfNeeded: row)
      count += 1
      let candidate = time &- bound
      if candidate > watermark { watermark = candidate }
    }
    partition.watermark = watermark
    return count
  }

  private func passCarefully(_ partition: PartitionState, _ failed: [Int32]?) -> Int {
    var nextReject = 0
    func writeRejects(before row: Int) {
      while nextReject < records.rejects.count, records.rejects[nextReject].rowsBefore <= row {
        deadLetter(records.rejects[nextReject], partition)
        nextReject += 1
      }
    }
    var count = 0
    for row in 0..<records.rowCount {
      writeRejects(before: row)
      if let failed, failed[row] >= 0 {
        deadLetter(row, node.requirements[Int(failed[row])].reason, partition)
        continue
      }
      if partition.raises.hasResumed {
        let raised = partition.raises.resumed(before: records.offsets[row])
        partition.watermark = max(partition.watermark, raised)
      }
      let time = batch.times[row]
      let recordTime = records.recordTimes[row]
      if recordTime != .min, isAhead(time, of: recordTime) {
        deadLetter(row, "event time is too far ahead of the broker's time for it", partition)
        continue
      }
      guard time >= partition.watermark, eventTimeNanos.contains(time) else {
        reject(row, partition, partition.watermark)
        continue
      }
      inTime[count] = Int32(truncatingIfNeeded: row)
      count += 1
      partition.watermark = max(partition.watermark, time - node.schema.boundNanos)
    }
    writeRejects(before: records.rowCount)
    return count
  }

  /// Whether an event time lies further ahead of the broker's than a clock can be wrong. Both come from
  /// outside.
  private func isAhead(_ time: Int64, of recordTime: Int64) -> Bool {
    guard time > recordTime else { return false }
    let (lead, isBeyond) = time.subtractingReportingOverflow(recordTime)
    return isBeyond || lead > node.schema.maxAheadNanos
  }

  /// A row behind the watermark, or outside of all time.
  private func reject(_ row: Int, _ partition: PartitionState, _ watermark: Int64) {
    partition.watermark = watermark
    let time = batch.times[row]
    guard eventTimeNanos.contains(time) else {
      return deadLetter(row, "event time lies outside 1970 to 2200", partition)
    }
    partition.counters.late += 1
    partition.raises.noteLate(offset: records.offsets[row], watermark: watermark)
    guard records.offsets[row] >= partition.suppressBefore else { return }
    let out = partition.exceptions
    open(lateOrigin, out, partition, offset: records.offsets[row], time: time)
    let payload = records.payloads[row]
    let details = records.details?.details(ofRecordAt: records.offsets[row]) ?? RecordDetails()
    out.append { bytes in
      bytes.append(json: ",\"values\":{\"reason\":\"late\",\"watermark\":")
      bytes.append(jsonTime: watermark)
      bytes.append(details)
      bytes.appendPayload(UnsafeBufferPointer(start: payload.data, count: Int(payload.length)))
      bytes.append(json: "}")
    }
    out.close(lateOrigin, time: time, orderTime: watermark)
  }

  private func deadLetter(_ row: Int, _ reason: String, _ partition: PartitionState) {
    let payload = records.payloads[row]
    let kept = min(Int(payload.length), RejectedRecord.payloadBytesMax)
    deadLetter(
      RejectedRecord(
        rowsBefore: row, offset: records.offsets[row], recordTime: records.recordTimes[row],
        reason: reason, payload: Array(UnsafeBufferPointer(start: payload.data, count: kept)),
        payloadLength: Int(payload.length)), partition)
  }

  private func deadLetter(_ record: RejectedRecord, _ partition: PartitionState) {
    partition.counters.deadLetters += 1
    guard record.offset >= partition.suppressBefore else { return }
    let out = partition.exceptions
    open(
      deadLetterOrigin, out, partition, offset: record.offset,
      time: record.recordTime == .min ? nil : record.recordTime)
    let details = records.details?.details(ofRecordAt: record.offset) ?? RecordDetails()
    out.append { bytes in
      bytes.append(json: ",\"values\":{\"reason\":")
      bytes.append(jsonString: record.reason)
      bytes.append(json: ",\"bytes\":")
      bytes.append(json: Int64(record.payloadLength))
      bytes.append(details)
      bytes.appendPayload(record.payload, of: record.payloadLength)
      bytes.append(json: "}")
    }
    out.close(deadLetterOrigin, time: 0, orderTime: partition.watermark)
  }

  private func open(
    _ origin: RecordOrigin, _ out: RecordWriter, _ partition: PartitionState, offset: Int64,
    time: Int64?
  ) {
    let identity = partition.reader.identity
    out.open(origin, time: time) { key in
      key.append(bytes: identity.recordKey)
      key.append(0x1F)
      key.appendPadded(offset, digits: 19)
    }
    out.append { bytes in
      bytes.append(json: ",\"labels\":{\"topic\":")
      bytes.append(jsonString: identity.topic)
      bytes.append(json: ",\"partition\":\"")
      bytes.append(json: Int64(identity.partition))
      bytes.append(json: "\",\"offset\":\"")
      bytes.append(json: offset)
      bytes.append(json: "\"}")
    }
  }

  /// Keeps the way back from event time to offsets, for commits.
  private func noteOffsets(_ partition: PartitionState, _ startWatermark: Int64, _ count: Int) {
    var watermark = startWatermark
    for index in 0..<count {
      let row = Int(inTime[index])
      let time = batch.times[row]
      partition.index.note(time: time, offset: records.offsets[row], watermark: watermark)
      watermark = max(watermark, time - node.schema.boundNanos)
    }
  }
}

extension PartitionIdentity {
  /// What the keys of its late rows and dead letters begin with.
  var recordKey: [UInt8] {
    var key = Array(topic.utf8)
    key.append(0x1F)
    key.appendPadded(Int64(partition), digits: 10)
    return key
  }
}

extension TextOutput where Self: ~Copyable {
  /// Digits with leading zeros, so that the order of texts is the order of numbers. Negative numbers count as
  /// 0.
  mutating func appendPadded(_ value: Int64, digits: Int) {
    let text = String(Swift.max(0, value))
    for _ in 0..<Swift.max(0, digits - text.utf8.count) { append(UInt8(ascii: "0")) }
    append(utf8: text)
  }

  /// `,"payload":"…"` with the original bytes, the first `payloadBytesMax` of them. Where some are missing, `length` of
  /// them were there: `,"truncated":true` says so.
  mutating func appendPayload(_ payload: some Collection<UInt8>, of length: Int? = nil) {
    appendBytes("payload", payload.prefix(RejectedRecord.payloadBytesMax))
    if (length ?? payload.count) > RejectedRecord.payloadBytesMax { append(json: ",\"truncated\":true") }
  }

  /// `,"key":"…"` and `,"replays":1`, those that there are.
  mutating func append(_ details: RecordDetails) {
    if let key = details.key {
      appendBytes("key", key.prefix(RecordDetails.keyBytesMax))
      if key.count > RecordDetails.keyBytesMax { append(json: ",\"key_truncated\":true") }
    }
    if details.replays > 0 {
      append(json: ",\"replays\":")
      append(json: Int64(details.replays))
    }
  }

  /// `,"name":"text"`, or `,"name_base64":"…"` for what is not UTF-8, or would be more than twice as long with its
  /// escapes.
  private mutating func appendBytes(_ name: StaticString, _ content: some Collection<UInt8>) {
    append(json: ",\"")
    append(json: name)
    if escapedBytes(content) <= 2 * content.count, String(validating: content, as: UTF8.self) != nil {
      append(json: "\":")
      append(jsonString: content)
    } else {
      append(json: "_base64\":\"")
      appendBase64(Array(content))
      append(UInt8(ascii: "\""))
    }
  }

  /// How long the inside of a JSON string becomes.
  private func escapedBytes(_ content: some Collection<UInt8>) -> Int {
    var total = 0
    for byte in content {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"), 0x09, 0x0a, 0x0d: total += 2
      case 0..<0x20: total += 6
      default: total += 1
      }
    }
    return total
  }

  private mutating func appendBase64(_ bytes: [UInt8]) {
    let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var index = 0
    while index < bytes.count {
      let left = bytes.count - index
      let a = UInt32(bytes[index]) << 16
      let b = left > 1 ? UInt32(bytes[index + 1]) << 8 : 0
      let c = left > 2 ? UInt32(bytes[index + 2]) : 0
      let word = a | b | c
      append(digits[Int(word >> 18)])
      append(digits[Int(word >> 12 & 63)])
      append(left > 1 ? digits[Int(word >> 6 & 63)] : UInt8(ascii: "="))
      append(left > 2 ? digits[Int(word & 63)] : UInt8(ascii: "="))
      index += 3
    }
  }
}
