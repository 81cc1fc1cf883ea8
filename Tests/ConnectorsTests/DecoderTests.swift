import CColumns
import Catalog
import Runtime
import Testing

@testable import Connectors

private let ms = FieldUnit.scaled(1e6)

struct ValueCase: CustomTestStringConvertible {
  var field: DecodedField
  var json: String
  var cell: Cell?
  var reason: String?
  var testDescription: String { "\(field.type) \(json)" }

  init(_ field: DecodedField, _ json: String, is cell: Cell) {
    self.field = field
    self.json = json
    self.cell = cell
  }
  init(_ field: DecodedField, _ json: String, rejected reason: String) {
    self.field = field
    self.json = json
    self.reason = reason
  }
}

@Suite struct DecoderTests {
  static let values: [ValueCase] = [
    // Ints.
    .init(field("x", .int), #"{"x":5}"#, is: .int(5)),
    .init(field("x", .int), #"{"x":-17}"#, is: .int(-17)),
    .init(field("x", .int), #"{"x":5.0}"#, is: .int(5)),
    .init(field("x", .int), #"{"x":1e3}"#, is: .int(1000)),
    .init(field("x", .int), #"{"x":1.5e1}"#, is: .int(15)),
    .init(field("x", .int), #"{"x":-0}"#, is: .int(0)),
    .init(field("x", .int), #"{"x":0e999999999999999999999}"#, is: .int(0)),
    .init(field("x", .int), #"{"x":12345678}"#, is: .int(12_345_678)),
    .init(field("x", .int), #"{"x":123456789012345678}"#, is: .int(123_456_789_012_345_678)),
    .init(field("x", .int), #"{"x":9223372036854775807}"#, is: .int(.max)),
    .init(field("x", .int), #"{"x":-9223372036854775808}"#, is: .int(.min)),
    .init(field("x", .int), #"{"x":500000000000000000000e-20}"#, is: .int(5)),
    .init(
      field("x", .int), #"{"x":9223372036854775808}"#,
      rejected: "field `x` does not fit 64 bits: 9223372036854775808"),
    .init(field("x", .int), #"{"x":1e400}"#, rejected: "field `x` does not fit 64 bits: 1e400"),
    .init(field("x", .int), #"{"x":5.5}"#, rejected: "field `x`: expected an int, found 5.5"),
    .init(
      field("x", .int), #"{"x":1.00000000000000000000001}"#,
      rejected: "field `x`: expected an int, found 1.00000000000000000000001"),
    .init(field("x", .int), #"{"x":"fast"}"#, rejected: #"field `x`: expected an int, found "fast""#),
    .init(field("x", .int), #"{"x":true}"#, rejected: "field `x`: expected an int, found true"),
    .init(field("x", .int), #"{"x":{"y":1}}"#, rejected: "field `x`: expected an int, found an object"),
    .init(field("x", .int), #"{"x":[1]}"#, rejected: "field `x`: expected an int, found an array"),
    .init(field("x", .int), #"{"x":01}"#, rejected: "field `x`: expected an int, found 01"),
    .init(field("x", .int), #"{"x":+1}"#, rejected: "field `x`: expected an int, found +1"),
    .init(field("x", .int), #"{"x":1.}"#, rejected: "field `x`: expected an int, found 1."),
    .init(field("x", .int), #"{"x":nul}"#, rejected: "field `x`: expected an int, found nul"),
    // Numbers.
    .init(field("x", .float), #"{"x":0.1}"#, is: .number(0.1)),
    .init(field("x", .float), #"{"x":-12.75}"#, is: .number(-12.75)),
    .init(field("x", .float), #"{"x":3}"#, is: .number(3)),
    .init(field("x", .float), #"{"x":-0.0}"#, is: .number(-0.0)),
    .init(field("x", .float), #"{"x":1e22}"#, is: .number(1e22)),
    .init(field("x", .float), #"{"x":1e23}"#, is: .number(1e23)),
    .init(field("x", .float), #"{"x":2.2250738585072011e-308}"#, is: .double(0x000f_ffff_ffff_ffff)),
    .init(field("x", .float), #"{"x":4.9e-324}"#, is: .double(1)),
    .init(field("x", .float), #"{"x":1e-999}"#, is: .number(0)),
    .init(field("x", .float), #"{"x":9007199254740993}"#, is: .number(9_007_199_254_740_992)),
    .init(field("x", .float), #"{"x":0.12345678901234567890123}"#, is: .number(0.12345678901234567890123)),
    .init(field("x", .float), #"{"x":1.7976931348623157e308}"#, is: .number(.greatestFiniteMagnitude)),
    .init(field("x", .float), #"{"x":1e999}"#, rejected: "field `x` is too large: 1e999"),
    .init(field("x", .float), #"{"x":NaN}"#, rejected: "field `x`: expected a number, found NaN"),
    .init(field("x", .float), #"{"x":"1"}"#, rejected: #"field `x`: expected a number, found "1""#),
    .init(field("x", .duration, unit: ms), #"{"x":12.5}"#, is: .number(12_500_000)),
    .init(field("x", .duration, unit: ms), #"{"x":1e308}"#, rejected: "field `x` is too large: 1e308"),
    .init(field("x", .ratio, unit: .scaled(0.01)), #"{"x":25}"#, is: .number(0.25)),
    .init(field("x", .bytes, unit: .scaled(1_048_576)), #"{"x":1.5}"#, is: .number(1_572_864)),
    // Times.
    .init(
      field("x", .timestamp, unit: .scaled(1e9)), #"{"x":1700000000}"#, is: .int(1_700_000_000_000_000_000)),
    .init(
      field("x", .timestamp, unit: .scaled(1e9)), #"{"x":1700000000.123456789}"#,
      is: .int(1_700_000_000_123_456_789)),
    .init(field("x", .timestamp, unit: .scaled(1e9)), #"{"x":1.7e9}"#, is: .int(1_700_000_000_000_000_000)),
    .init(field("x", .timestamp, unit: ms), #"{"x":1700000000123}"#, is: .int(1_700_000_000_123_000_000)),
    .init(field("x", .timestamp, unit: ms), #"{"x":1700000000123.25}"#, is: .int(1_700_000_000_123_250_000)),
    .init(field("x", .timestamp, unit: ms), #"{"x":-1.5}"#, is: .int(-1_500_000)),
    .init(
      field("x", .timestamp, unit: .scaled(1e3)), #"{"x":1700000000123456}"#,
      is: .int(1_700_000_000_123_456_000)),
    .init(
      field("x", .timestamp, unit: .scaled(1)), #"{"x":1700000000123456789}"#,
      is: .int(1_700_000_000_123_456_789)),
    .init(field("x", .timestamp, unit: .scaled(1)), #"{"x":0.5}"#, is: .int(1)),
    .init(field("x", .timestamp, unit: .scaled(1)), #"{"x":1.0000000000000000000000001}"#, is: .int(1)),
    .init(
      field("x", .timestamp, unit: ms), #"{"x":253402300799000}"#,
      rejected: "field `x`: timestamp out of range: 253402300799000"),
    .init(
      field("x", .timestamp, unit: .scaled(1e9)), #"{"x":9223372037}"#,
      rejected: "field `x`: timestamp out of range: 9223372037"),
    .init(
      field("x", .timestamp, unit: ms), #"{"x":"2026-11-21T00:00:00Z"}"#,
      rejected: #"field `x`: expected a number, found "2026-11-21T00:00:00Z""#),
    .init(
      field("x", .timestamp, unit: .rfc3339), #"{"x":"2026-11-21T03:17:04.250Z"}"#,
      is: .int(1_795_231_024_250_000_000)),
    .init(
      field("x", .timestamp, unit: .rfc3339), #"{"x":"2026-11-21 03:17:04"}"#,
      is: .int(1_795_231_024_000_000_000)),
    .init(
      field("x", .timestamp, unit: .rfc3339), #"{"x":"2026-11-21T04:17:04+01:00"}"#,
      is: .int(1_795_231_024_000_000_000)),
    .init(field("x", .timestamp, unit: .rfc3339), #"{"x":"1969-12-31T23:59:59.999999999Z"}"#, is: .int(-1)),
    .init(
      field("x", .timestamp, unit: .rfc3339), #"{"x":"2024-02-29T00:00:00Z"}"#,
      is: .int(1_709_164_800_000_000_000)),
    .init(
      field("x", .timestamp, unit: .rfc3339), #"{"x":"2023-02-29T00:00:00Z"}"#,
      rejected: #"field `x`: expected an RFC 3339 time, found "2023-02-29T00:00:00Z""#),
    .init(
      field("x", .timestamp, unit: .rfc3339), #"{"x":"9999-12-31T23:59:59Z"}"#,
      rejected: #"field `x`: timestamp out of range: "9999-12-31T23:59:59Z""#),
    .init(
      field("x", .timestamp, unit: .rfc3339), #"{"x":1700000000}"#,
      rejected: "field `x`: expected an RFC 3339 time, found 1700000000"),
    .init(
      field("x", .timestamp, unit: .rfc3339), #"{"x":"yesterday"}"#,
      rejected: #"field `x`: expected an RFC 3339 time, found "yesterday""#),
    // Strings and bools.
    .init(field("x", .string), #"{"x":"api"}"#, is: .string("api")),
    .init(field("x", .string), #"{"x":""}"#, is: .string("")),
    .init(field("x", .string), #"{"x":"a\"b\\c\nd\u00e9\ud83d\ude00"}"#, is: .string("a\"b\\c\ndé😀")),
    .init(field("x", .string), #"{"x":"größer"}"#, is: .string("größer")),
    .init(field("x", .string), #"{"\u0078":"escaped key"}"#, is: .string("escaped key")),
    .init(field("x", .string), #"{"x":"\ud800"}"#, rejected: #"field `x` has an invalid escape in "\ud800""#),
    .init(field("x", .string), #"{"x":"\q"}"#, rejected: #"field `x` has an invalid escape in "\q""#),
    .init(field("x", .string), #"{"x":5}"#, rejected: "field `x`: expected a string, found 5"),
    .init(field("x", .bool), #"{"x":true}"#, is: .bool(true)),
    .init(field("x", .bool), #"{"x":false}"#, is: .bool(false)),
    .init(field("x", .bool), #"{"x":1}"#, rejected: "field `x`: expected true or false, found 1"),
    // Absence.
    .init(field("x", .int), #"{"y":1}"#, rejected: "field `x` is missing"),
    .init(field("x", .int), #"{}"#, rejected: "field `x` is missing"),
    .init(field("x", .int), #"{"x":null}"#, rejected: "field `x` is null"),
    .init(field("x", .int, absence: .null), #"{"y":1}"#, is: .null),
    .init(field("x", .string, absence: .null), #"{"x":null}"#, is: .null),
    .init(field("x", .string, absence: .null), #"{"x":"null"}"#, is: .string("null")),
    .init(field("x", .int, absence: .defaultValue(.int(7))), #"{"y":1}"#, is: .int(7)),
    .init(field("x", .string, absence: .defaultValue(.string("none"))), #"{"x":null}"#, is: .string("none")),
    .init(field("x", .duration, unit: ms, absence: .defaultValue(.duration(5e9))), #"{}"#, is: .number(5e9)),
    .init(field("x", .bool, absence: .defaultValue(.bool(true))), #"{}"#, is: .bool(true)),
    .init(
      field("x", .int, absence: .null), #"{"x":"a"}"#, rejected: #"field `x`: expected an int, found "a""#),
    // Paths.
    .init(field("r", .string, path: ["ctx", "route"]), #"{"ctx":{"route":"/s"}}"#, is: .string("/s")),
    .init(
      field("r", .string, path: ["ctx", "route"]), #"{"ctx":{"a":{"route":1},"route":"/s"},"route":2}"#,
      is: .string("/s")),
    .init(
      field("r", .string, path: ["ctx", "route"]), #"{"ctx":{"a":1}}"#,
      rejected: "field `ctx.route` is missing"),
    .init(field("r", .string, absence: .null, path: ["ctx", "route"]), #"{"ctx":null}"#, is: .null),
    .init(field("r", .string, absence: .null, path: ["ctx", "route"]), #"{}"#, is: .null),
    .init(
      field("r", .string, absence: .null, path: ["ctx", "route"]), #"{"ctx":5}"#,
      rejected: "field `ctx.route`: expected an object at `ctx`, found 5"),
    .init(field("r", .int, path: ["a", "b", "c"]), #"{"a": {"b": {"c": 5}}}"#, is: .int(5)),
    // The first of a repeated member counts.
    .init(field("x", .int), #"{"x":1,"x":2}"#, is: .int(1)),
    .init(field("x", .int, absence: .null), #"{"x":null,"x":2}"#, is: .null),
    .init(field("r", .int, absence: .null, path: ["o", "r"]), #"{"o":{},"o":{"r":2}}"#, is: .null),
    // Layout.
    .init(field("x", .int), "  {\t\"y\" : [ 1 , 2 ] ,\n \"x\" : 5 }\n", is: .int(5)),
    .init(field("x", .int), #"{"y":{"z":[{"x":1},"}"]},"x":5}"#, is: .int(5)),
    .init(field("x", .int), #"{"y":"\"","x":5}"#, is: .int(5)),
    // What is no object.
    .init(field("x", .int), #"[{"x":1}]"#, rejected: "expected a JSON object, found an array"),
    .init(field("x", .int), #"5"#, rejected: "expected a JSON object, found 5"),
    .init(field("x", .int), #"hello"#, rejected: "expected a JSON object, found hello"),
    .init(field("x", .int), #""#, rejected: "empty"),
    .init(
      field("x", .int, absence: .null), #"{"y":1} {"x":2}"#,
      rejected: "invalid JSON: something follows the object"),
  ]

  @Test(arguments: values)
  func value(_ test: ValueCase) throws {
    let expected: Verdict =
      test.cell.map { .row(offset: 0, [$0]) } ?? .reject(offset: 0, reason: test.reason ?? "")
    #expect(try decode(test.json, [test.field]) == expected)
    let forced = try decodePayloads(
      [Array(test.json.utf8)], schema: schema([test.field]), forceSimdjson: true)
    #expect(forced == [expected])
  }

  /// Damage behind the last needed member is seen as far as closed strings and the closing brace go; before
  /// it, always.
  @Test(arguments: [
    (#"{"x":1,"y":"open}"#, false), (#"{"x":1,"y":2"#, false), (#"{"x":1"#, false), (#"{"x":1,"y":[}"#, true),
    (#"{"y":"open,"x":1}"#, false), (#"{"y":tru,"x":1}"#, true), (#"{"y" 1,"x":1}"#, false),
    (#"{"y":1 "x":1}"#, false), (#"{,"x":1}"#, false), (#"{"x":1,"y":"a\"}"#, false),
    (#"{"x":1,"y":"a\\"}"#, true), (#"{"x":1} x"#, false), ("{\"x\":1,\"y\":\"\u{1}\"}", false),
    (#"{"x":1,}"#, true), (#"{"#, false), (#"}"#, false), (#"{"x"}"#, false), (#"{"x":}"#, false),
    (#"{"a":[1,{"b":2]},"x":1}"#, true), (#"{"x":1,"y":\"}"}"#, false),
  ])
  func damage(_ json: String, _ accepted: Bool) throws {
    let fields = [field("x", .int)]
    for forced in [false, true] {
      let verdict = try decodePayloads(
        [Array(json.utf8)], schema: schema(fields), forceSimdjson: forced)[0]
      if case .row = verdict { #expect(accepted) } else { #expect(!accepted, "\(verdict)") }
    }
  }

  @Test func longValuesAreCutInReasons() throws {
    let long = String(repeating: "ä", count: 500)
    guard case .reject(_, let reason) = try decode("{\"x\":\"\(long)\"}", [field("x", .int)]) else {
      Issue.record("accepted")
      return
    }
    #expect(reason.utf8.count < 110)
    #expect(reason.hasSuffix("ää…"))
  }

  @Test func invalidUTF8AndTombstones() throws {
    let good = Array(#"{"x":1}"#.utf8)
    let bad = Array(#"{"x":1,"y":""#.utf8) + [0xff] + Array(#""}"#.utf8)
    // A character torn apart by the end of a payload does not join with the next one.
    let torn = Array(#"{"x":1}"#.utf8) + [0xc3]
    let start: [UInt8] = [0xa9] + good
    let result = try decodePayloads([good, bad, nil, torn, start, good], schema: schema([field("x", .int)]))
    #expect(
      result == [
        .row(offset: 0, [.int(1)]), .reject(offset: 1, reason: "not valid UTF-8"),
        .reject(offset: 2, reason: "no payload"), .reject(offset: 3, reason: "not valid UTF-8"),
        .reject(offset: 4, reason: "not valid UTF-8"), .row(offset: 5, [.int(1)]),
      ])
  }

  @Test func deepNestingIsBounded() throws {
    let open = String(repeating: "[", count: 100_000)
    let close = String(repeating: "]", count: 100_000)
    let fields = [field("x", .int)]
    #expect(try decode("{\"y\":\(open)\(close),\"x\":1}", fields) == .row(offset: 0, [.int(1)]))
    for json in ["{\"y\":\(open),\"x\":1}", open, "{\"x\":\(open)"] {
      guard case .reject = try decode(json, fields) else {
        Issue.record("accepted")
        return
      }
    }
  }

  @Test func nullsDoNotLeakIntoTheNextBatch() throws {
    let fields = [field("x", .int, absence: .null), field("y", .string, absence: .null)]
    let decoder = try JSONRecordDecoder(schema: schema(fields))
    _ = try decodePayloads(
      [Array(#"{"y":"a"}"#.utf8), Array(#"{"x":1}"#.utf8)], schema: schema(fields), decoder: decoder)
    let next = try decodePayloads(
      [Array(#"{"x":2,"y":"b"}"#.utf8), Array(#"{"y":"c"}"#.utf8)], schema: schema(fields),
      decoder: decoder)
    #expect(next == [.row(offset: 0, [.int(2), .string("b")]), .row(offset: 1, [.null, .string("c")])])
  }

  @Test func twoFieldsOfOnePathAndHashes() throws {
    let fields = [
      field("a", .int, path: ["ts"]), field("t", .timestamp, unit: .scaled(1e6), path: ["ts"]),
      field("s", .string, wantsHash: true), field("u", .string),
    ]
    #expect(
      try decode(#"{"ts":5,"s":"k","u":"v"}"#, fields)
        == .row(offset: 0, [.int(5), .int(5_000_000), .string("k"), .string("v")]))
  }

  @Test func pathsMustBeSane() {
    #expect(throws: SourceFailure.self) {
      try JSONRecordDecoder(schema: schema([field("x", .int, path: [])]))
    }
    #expect(throws: SourceFailure.self) {
      try JSONRecordDecoder(schema: schema([field("x", .int, path: Array(repeating: "a", count: 33))]))
    }
  }
}
