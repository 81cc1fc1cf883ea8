import Testing

@testable import Runtime

@Suite struct ManifestTests {
  /// From the specification and `xxh64sum`.
  @Test(
    arguments: [
      ("", 0xEF46_DB37_51D8_E999), ("a", 0xD24E_C4F1_A98C_6E5B), ("abc", 0x44BC_2CF5_AD77_0999),
      ("Nobody inspects the spammish repetition", 0xFBCE_A83C_8A37_8BF1),
    ] as [(String, UInt64)])
  func checksumsAreXXH64(_ text: String, _ expected: UInt64) {
    #expect(Checksum.of(text.utf8) == expected)
  }

  @Test func checksumsDoNotDependOnPieces() {
    var random = SplitMix(state: 1)
    for length in 0..<200 {
      let bytes = random.bytes(length)
      var checksum = Checksum()
      var rest = bytes[...]
      while !rest.isEmpty {
        let piece = Array(rest.prefix(1 + random.below(70)))
        piece.withUnsafeBytes { checksum.update($0) }
        rest = rest.dropFirst(piece.count)
      }
      #expect(checksum.value == Checksum.of(bytes))
    }
  }

  @Test(arguments: 0..<200) func manifestsRoundTrip(_ seed: UInt64) throws {
    var random = SplitMix(state: seed)
    var manifest = randomManifest(&random, number: random.next(), isSavepoint: seed % 2 == 0)
    for section in randomSections(&random, count: random.below(5), bytesMax: 1) {
      manifest.sections.append(
        StoredSection(
          operatorID: section.operatorID, scope: section.scope, keys: section.capture.keyCount, file: random.text(),
          offset: random.below(1 << 53), storedBytes: random.below(1 << 53), rawBytes: random.below(1 << 53),
          checksum: random.next()))
    }
    let bytes = try ManifestCoding.encode(manifest)
    #expect(try ManifestCoding.decode(bytes) == manifest)
    #expect(JSONValue(bytes)?["name"] == .string(manifest.name))
  }

  /// With the right checksum over wrong content: what another program, or a later version, may write.
  @Test(arguments: [
    ("\"version\": 1", "\"version\": 2", "version 2; this program reads 1"),
    ("\"version\": 1", "\"version\": 1e300", "`version`"),
    ("\"workers\": 2", "\"workers\": -2", "`workers`"),
    ("\"workers\": 2", "\"workers\": 1.5", "`workers`"),
    ("\"savepoint\": false", "\"savepoint\": 0", "`savepoint`"),
    ("\"number\": \"7\"", "\"number\": \"-7\"", "`number`"),
    ("\"number\": \"7\"", "\"number\": 7", "`number`"),
    ("\"name\": \"c-", "\"name\": \"../", "name"),
    ("\"partitions\": []", "\"partitions\": {}", "`partitions`"),
    ("[0, 128]", "[0, 257]", "`key_groups`"),
    ("[0, 128]", "[128, 0]", "`key_groups`"),
    ("[0, 128]", "[0]", "`key_groups`"),
    ("\"bytes\": 9", "\"bytes\": 1e17", "`bytes`"),
    ("\"keys\": 3,", "", "`keys`"),
    ("{\n  \"format\"", "{{\n  \"format\"", "not JSON"),
  ])
  func refuses(_ original: String, _ changed: String, saying message: String) throws {
    let manifest = CheckpointManifest(
      name: checkpointName(number: 7, suffix: 1), number: 7, createdNanos: 0, group: "g", revision: "r", workers: 2,
      sections: [
        StoredSection(
          operatorID: "o", scope: .keys(0..<128), keys: 3, file: "f", offset: 1, storedBytes: 9, rawBytes: 9, checksum: 1)
      ])
    let text = String(decoding: try ManifestCoding.encode(manifest), as: UTF8.self)
    try #require(text.contains(original))
    // Take the checksum off, change, put the right one on again.
    let sealed = Array(text.dropLast(20).replacing(original, with: changed).utf8)
    let digits = String(Checksum.of(sealed), radix: 16)
    let forged = sealed + Array((String(repeating: "0", count: 16 - digits.count) + digits + "\"\n}\n").utf8)
    let failure = #expect(throws: CheckpointFailure.self) { try ManifestCoding.decode(forged) }
    #expect(failure?.description.contains(message) == true, "\(String(describing: failure))")
  }

  @Test func everyChangedByteAndEveryCutIsSeen() throws {
    var random = SplitMix(state: 3)
    var manifest = randomManifest(&random, number: 3)
    manifest.sections = [
      StoredSection(
        operatorID: "o", scope: .keys(0..<1), keys: 1, file: "state-00001", offset: 16, storedBytes: 1, rawBytes: 1,
        checksum: 2)
    ]
    let bytes = try ManifestCoding.encode(manifest)
    for index in bytes.indices {
      for change: UInt8 in [1, 0x20, 0x80] {
        var damaged = bytes
        damaged[index] ^= change
        #expect(throws: CheckpointFailure.self) { try ManifestCoding.decode(damaged) }
      }
      #expect(throws: CheckpointFailure.self) { try ManifestCoding.decode(Array(bytes[..<index])) }
    }
    #expect(throws: CheckpointFailure.self) { try ManifestCoding.decode(bytes + [0x0A]) }
  }
}
