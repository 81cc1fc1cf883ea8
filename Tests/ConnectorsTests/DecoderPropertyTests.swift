import CDecode
import Catalog
import Runtime
import Testing

@testable import Connectors

/// The scanner and simdjson must agree on every document, whatever was learned before it.
@Suite struct DecoderPropertyTests {
  static let fields = [
    field("ts", .timestamp, unit: .scaled(1e6)), field("service", .string, wantsHash: true),
    field("status", .int, absence: .null), field("latency", .duration, unit: .scaled(1e6), absence: .null),
    field("ok", .bool, absence: .defaultValue(.bool(true))),
    field("route", .string, absence: .null, path: ["ctx", "route"]),
    field("code", .int, absence: .null, path: ["ctx", "inner", "code"]),
    field("at", .timestamp, unit: .rfc3339, absence: .null),
  ]

  private static func scalar(_ random: inout Seeded) -> String {
    switch Int.random(in: 0..<14, using: &random) {
    case 0: "null"
    case 1: "true"
    case 2: "false"
    case 3: "\"\""
    case 4: "\"plain text\""
    case 5: "\"es\\\"caped \\u00e9\\n\""
    case 6: "\"2026-11-21T03:17:04.25Z\""
    case 7: "\(Int64.random(in: .min ... .max, using: &random))"
    case 8: "\(Double.random(in: -1e6...1e6, using: &random))"
    case 9: "\(Int.random(in: -50...600, using: &random))"
    case 10: "\(Double(bitPattern: UInt64.random(in: 0...0x7fe0_0000_0000_0000, using: &random)))"
    case 11: "\(Int.random(in: 0...99, using: &random))e\(Int.random(in: -3...5, using: &random))"
    case 12: "[1,{\"ts\":2},\"]\"]"
    default: "{\"ts\":1,\"a\":[[]]}"
    }
  }

  static func document(_ random: inout Seeded) -> String {
    var members: [(String, String)] = []
    let good = Int.random(in: 0..<4, using: &random) > 0
    func value(_ fitting: String, _ random: inout Seeded) -> String {
      good && Int.random(in: 0..<12, using: &random) > 0 ? fitting : scalar(&random)
    }
    members.append(("ts", value("17000000\(Int.random(in: 10000...99999, using: &random))", &random)))
    members.append(("service", value("\"svc-\(Int.random(in: 0...20, using: &random))\"", &random)))
    members.append(("extra", scalar(&random)))
    members.append(("status", value("\(Int.random(in: 100...599, using: &random))", &random)))
    members.append(("latency", value("\(Double(Int.random(in: 0...99999, using: &random)) / 10)", &random)))
    members.append(("ok", value("false", &random)))
    let inner = "{\"code\":\(value("7", &random)),\"z\":\(scalar(&random))}"
    members.append(
      (
        "ctx",
        value("{\"a\":\(scalar(&random)),\"inner\":\(inner),\"route\":\(value("\"/r\"", &random))}", &random)
      ))
    members.append(("at", value("\"2026-11-21 03:17:04\"", &random)))
    if Int.random(in: 0..<5, using: &random) == 0 { members.shuffle(using: &random) }
    if Int.random(in: 0..<5, using: &random) == 0 {
      members.remove(at: Int.random(in: 0..<members.count, using: &random))
    }
    if Int.random(in: 0..<8, using: &random) == 0, let repeated = members.randomElement(using: &random) {
      members.append((repeated.0, scalar(&random)))
    }
    let blank = Int.random(in: 0..<3, using: &random) == 0 ? " " : ""
    return "{" + members.map { "\"\($0.0)\":\(blank)\($0.1)" }.joined(separator: ",\(blank)") + "}"
  }

  static func mutate(_ text: String, _ random: inout Seeded) -> [UInt8] {
    var bytes = Array(text.utf8)
    let interesting = Array("\"\\{}[]:,.-+eE0129 \t\n\r\u{1}ntf".utf8) + [0xff, 0xc3, 0x80, 0]
    for _ in 0..<Int.random(in: 1...3, using: &random) where !bytes.isEmpty {
      let index = Int.random(in: 0..<bytes.count, using: &random)
      switch Int.random(in: 0..<5, using: &random) {
      case 0: bytes[index] = interesting.randomElement(using: &random) ?? 0
      case 1: bytes.insert(interesting.randomElement(using: &random) ?? 0, at: index)
      case 2: bytes.remove(at: index)
      case 3: bytes.removeLast(bytes.count - index)
      default: bytes.swapAt(index, Int.random(in: 0..<bytes.count, using: &random))
      }
    }
    return bytes
  }

  /// Those that this processor can run.
  static let variants = [RD_SCAN_PORTABLE, RD_SCAN_AVX2, RD_SCAN_AVX512].map { Int32($0.rawValue) }
    .filter { variant in
      defer { rd_use_scan_variant(Int32(RD_SCAN_BEST.rawValue)) }
      return rd_use_scan_variant(variant) != 0
    }

  @Test(arguments: [UInt64](1...12), variants)
  func pathsAgree(seed: UInt64, variant: Int32) throws {
    // For this thread, which the test does not leave.
    #expect(rd_use_scan_variant(variant) != 0)
    defer { rd_use_scan_variant(Int32(RD_SCAN_BEST.rawValue)) }
    var random = Seeded(seed)
    var payloads: [[UInt8]?] = []
    for _ in 0..<3_000 {
      let text = Self.document(&random)
      payloads.append(
        Int.random(in: 0..<2, using: &random) == 0 ? Array(text.utf8) : Self.mutate(text, &random))
    }
    // Fewer fields stop earlier: other parts of a record are then read with less care.
    for kept in [Self.fields, Array(Self.fields[0..<4]), Array(Self.fields[0..<1]), [Self.fields[2]]] {
      let schema = schema(kept)
      let scanner = try JSONRecordDecoder(schema: schema)
      let scanned = try decodePayloads(payloads, schema: schema, decoder: scanner)
      let parsed = try decodePayloads(payloads, schema: schema, forceSimdjson: true)
      for index in payloads.indices where scanned[index] != parsed[index] {
        let shown = payloads[index].map { String(decoding: $0, as: UTF8.self) } ?? "no payload"
        Issue.record("\(shown)\nscanner  \(scanned[index])\nsimdjson \(parsed[index])")
        return
      }
      // The test would be empty if the scanner gave everything away.
      #expect(scanner.pathCounts.scanned > 300)
      // Batches do not show, though each starts with other bytes behind the arena.
      #expect(try decodePayloads(payloads, schema: schema, batchRows: 7) == scanned)
    }
  }

  /// What one record has taught must not send all later ones to simdjson.
  @Test(arguments: variants)
  func kindsOfValuesMayChange(variant: Int32) throws {
    #expect(rd_use_scan_variant(variant) != 0)
    defer { rd_use_scan_variant(Int32(RD_SCAN_BEST.rawValue)) }
    let schema = schema([Self.fields[0], Self.fields[2], Self.fields[3]])
    let values = ["7", "\"text\"", "null", "{\"a\":[\"]\"]}", "[]", "\"\"", "-1.5e3", "true"]
    var payloads: [[UInt8]?] = [Array("{\"ts\":1,\"extra\":".utf8)]
    for extra in values {
      for separator in [",", ", "] {
        for blank in ["", " ", "  "] {
          let rest = "\(separator)\"status\":\(blank)2,\"latency\":\(blank)null}"
          payloads.append(Array("{\"ts\":\(blank)1,\"extra\":\(blank)\(extra)\(rest)".utf8))
        }
        let rest = "\(separator)\"ts\": 1,\"latency\":2.5,\"status\":null}"
        payloads.append(Array("{\"extra\": \(extra)\(rest)".utf8))
      }
    }
    let decoder = try JSONRecordDecoder(schema: schema)
    let scanned = try decodePayloads(payloads, schema: schema, decoder: decoder)
    #expect(try decodePayloads(payloads, schema: schema, forceSimdjson: true) == scanned)
    #expect(decoder.pathCounts.parsed == 1)
  }

  @Test func randomBytesNeverCrash() throws {
    var random = Seeded(99)
    var payloads: [[UInt8]?] = []
    for _ in 0..<5_000 {
      payloads.append(
        (0..<Int.random(in: 0...200, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) })
    }
    let result = try decodePayloads(payloads, schema: schema(Self.fields))
    #expect(result.count == payloads.count)
  }
}
