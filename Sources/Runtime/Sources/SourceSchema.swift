import Catalog

/// What a decoder must produce of a source: only the fields that the plan needs.
public struct SourceSchema: Sendable, Hashable {
  /// The source's name in the rules.
  public var name: String
  /// Index among the program's sources.
  public var index: Int
  public var topic: String?
  public var format: String
  public var fields: [DecodedField]
  /// Which of `fields` is event time: an int64 column in nanoseconds, never null.
  public var timeField: Int
  public var boundNanos: Int64
  public var idleNanos: Int64
  /// A record further than this ahead of its broker timestamp is rejected (by the runtime, not by the decoder).
  public var maxAheadNanos: Int64

  public init(
    name: String, index: Int, topic: String?, format: String, fields: [DecodedField],
    timeField: Int, boundNanos: Int64, idleNanos: Int64, maxAheadNanos: Int64
  ) {
    self.name = name
    self.index = index
    self.topic = topic
    self.format = format
    self.fields = fields
    self.timeField = timeField
    self.boundNanos = boundNanos
    self.idleNanos = idleNanos
    self.maxAheadNanos = maxAheadNanos
  }
}

public struct DecodedField: Sendable, Hashable {
  public var name: String
  /// Member names from the record's root.
  public var path: [String]
  public var type: ValueType
  public var unit: FieldUnit
  /// What a missing or null member means.
  public var absence: Absence
  /// Strings that are grouped or dispatched by: the decoder fills `rd_string.hash`.
  public var wantsHash: Bool

  public enum Absence: Sendable, Hashable {
    case null
    case defaultValue(Value)
    /// The record is rejected.
    case reject
  }

  public init(
    name: String, path: [String], type: ValueType, unit: FieldUnit, absence: Absence,
    wantsHash: Bool
  ) {
    self.name = name
    self.path = path
    self.type = type
    self.unit = unit
    self.absence = absence
    self.wantsHash = wantsHash
  }
}
