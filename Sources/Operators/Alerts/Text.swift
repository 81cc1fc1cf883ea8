import CColumns
import Catalog
import Runtime

/// Values as text: for people in annotations, for machines in labels and values.
extension TextOutput where Self: ~Copyable {
  /// A value as a label or a record's key spells it: plain, in base units (seconds, bytes, fractions of one).
  mutating func appendPlain(_ column: Column, _ row: Int, type: ValueType) {
    switch type {
    case .bool: append(json: column.bools[row] != 0 ? "true" : "false")
    case .int: append(json: column.ints[row])
    case .timestamp: appendTimestamp(column.ints[row], to: &self)
    case .duration: appendDouble(column.doubles[row] / 1e9)
    case .float, .bytes, .ratio: appendDouble(column.doubles[row])
    case .string: append(string: column.strings[row])
    }
  }

  private mutating func appendDouble(_ value: Double) {
    if value.isFinite { return appendNumber(value) }
    append(json: value.isNaN ? "NaN" : (value > 0 ? "+Inf" : "-Inf"))
  }

  /// A value as a member of `values`: a number in base units, a string, a bool, or null.
  mutating func appendJSON(_ column: Column, _ row: Int, type: ValueType) {
    if column.hasNulls, column.validity[row] == 0 { return append(json: "null") }
    switch type {
    case .bool: append(json: column.bools[row] != 0 ? "true" : "false")
    case .int: append(json: column.ints[row])
    case .timestamp:
      append(UInt8(ascii: "\""))
      appendTimestamp(column.ints[row], to: &self)
      append(UInt8(ascii: "\""))
    case .duration: append(json: column.doubles[row] / 1e9)
    case .float, .bytes, .ratio: append(json: column.doubles[row])
    case .string: append(jsonString: column.strings[row])
    }
  }

  /// A value for a person: `2.31s`, `1.25%`, `80.5GiB`, at most four significant digits after rounding; null
  /// as `n/a`.
  mutating func appendReadable(_ column: Column, _ row: Int, type: ValueType) {
    if column.hasNulls, column.validity[row] == 0 { return append(json: "n/a") }
    switch type {
    case .bool, .int, .timestamp, .string: appendPlain(column, row, type: type)
    case .duration: appendDuration(column.doubles[row])
    case .bytes:
      appendScaled(
        column.doubles[row],
        units: [
          (1_099_511_627_776, "TiB"), (1_073_741_824, "GiB"), (1_048_576, "MiB"), (1_024, "KiB"),
          (1, "B"),
        ])
    case .ratio:
      appendRounded(column.doubles[row] * 100)
      append(UInt8(ascii: "%"))
    case .float: appendRounded(column.doubles[row])
    }
  }

  mutating func appendDuration(_ nanos: Double) {
    appendScaled(
      nanos,
      units: [
        (86_400e9, "d"), (3_600e9, "h"), (60e9, "m"), (1e9, "s"), (1e6, "ms"), (1e3, "us"),
        (1, "ns"),
      ])
  }

  private mutating func appendScaled(_ value: Double, units: [(Double, StaticString)]) {
    let chosen = units.first { abs(value) >= $0.0 } ?? units[units.count - 1]
    appendRounded(value / chosen.0)
    append(json: chosen.1)
  }

  /// Four significant digits, whole numbers in full.
  private mutating func appendRounded(_ value: Double) {
    guard value.isFinite, value != 0 else { return appendDouble(value) }
    if abs(value) >= 1_000 { return appendDouble(value.rounded()) }
    var factor = 1.0
    while abs(value) * factor < 1_000, factor < 1e12 { factor *= 10 }
    appendDouble((value * factor).rounded() / factor)
  }
}

/// A named column of a row that labels or describes a record.
public struct NamedSlot: Sendable, Hashable {
  public var name: String
  public var slot: Int
  public var type: ValueType
  public init(name: String, slot: Int, type: ValueType) {
    self.name = name
    self.slot = slot
    self.type = type
  }
}

extension TextOutput where Self: ~Copyable {
  /// The key that orders a record and partitions it on Kafka: the labels' values, `0x1F` between them and
  /// `0x1E` for null, which is another key than the empty string, and must have another id. Texts that hold
  /// such bytes have them escaped by `0x1D`, so that no two label sets are one alert.
  mutating func appendKey(_ labels: [NamedSlot], _ batch: Batch, _ row: Int) {
    for (index, label) in labels.enumerated() {
      if index > 0 { append(0x1F) }
      let column = batch.columns[label.slot]
      if column.hasNulls, column.validity[row] == 0 {
        append(0x1E)
        continue
      }
      if label.type == .string {
        appendKeyText(column.strings[row])
      } else {
        appendPlain(column, row, type: label.type)
      }
    }
  }

  private mutating func appendKeyText(_ text: rd_string) {
    let bytes = UnsafeBufferPointer(start: text.data, count: Int(text.length))
    guard let base = bytes.baseAddress else { return }
    if rd_is_plain(base, bytes.count) != 0 { return append(bytes: base, count: bytes.count) }
    for byte in bytes {
      let isSeparator = (0x1D...0x1F).contains(byte)
      if isSeparator { append(0x1D) }
      append(isSeparator ? byte ^ 0x40 : byte)
    }
  }

  /// `"name":"value",…` for the labels that are not null; returns whether there was one.
  mutating func appendLabels(_ labels: [NamedSlot], _ batch: Batch, _ row: Int) -> Bool {
    var isFirst = true
    for label in labels {
      let column = batch.columns[label.slot]
      if column.hasNulls, column.validity[row] == 0 { continue }
      if !isFirst { append(UInt8(ascii: ",")) }
      isFirst = false
      append(jsonString: label.name)
      append(UInt8(ascii: ":"))
      appendLabelValue(column, row, type: label.type)
    }
    return !isFirst
  }
}

extension TextOutput where Self: ~Copyable {
  /// A label's value: always a JSON string.
  mutating func appendLabelValue(_ column: Column, _ row: Int, type: ValueType) {
    if type == .string { return append(jsonString: column.strings[row]) }
    append(UInt8(ascii: "\""))
    appendPlain(column, row, type: type)
    append(UInt8(ascii: "\""))
  }
}

/// A text with values of the row in it.
public struct Template: Sendable, Hashable {
  public enum Part: Sendable, Hashable {
    case text(String)
    case slot(Int, ValueType)
  }
  public var name: String
  public var parts: [Part]
  public init(name: String, parts: [Part]) {
    self.name = name
    self.parts = parts
  }

  func append(to bytes: inout some TextOutput & ~Copyable, _ batch: Batch, _ row: Int) {
    for part in parts {
      switch part {
      case .text(let text): bytes.append(utf8: text)
      case .slot(let slot, let type): bytes.appendReadable(batch.columns[slot], row, type: type)
      }
    }
  }
}
