import Testing

@testable import Runtime

/// State made of given bytes, handed on in pieces as a task would.
struct BytesCapture: StateCapture {
  var keyCount: Int
  var bytes: [UInt8]
  func encode(into writer: StateWriter) {
    var rest = bytes[...]
    while !rest.isEmpty {
      Array(rest.prefix(70_001)).withUnsafeBytes { writer.append(raw: $0) }
      rest = rest.dropFirst(70_001)
    }
  }
}

extension SplitMix {
  /// Compressible, incompressible or all the same.
  mutating func bytes(_ count: Int) -> [UInt8] {
    let kind = below(3)
    return (0..<count).map { _ in
      switch kind {
      case 0: UInt8(truncatingIfNeeded: next())
      case 1: UInt8(below(4))
      default: 7
      }
    }
  }

  /// Nothing to compress; 8 bytes a step.
  mutating func noise(_ count: Int) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      for offset in stride(from: 0, to: count - 7, by: 8) {
        UnsafeMutableRawPointer(buffer.baseAddress!).storeBytes(of: next(), toByteOffset: offset, as: UInt64.self)
      }
      filled = count & ~7
    }
  }

  mutating func text() -> String {
    let letters = Array("abcxyz09.-_/\"\\\n\t\u{1}é漢🙂 {}[]")
    return String((0..<below(12)).map { _ in letters[below(letters.count)] })
  }
}

/// Sections as random as they come: many small ones, one that is longer than a chunk, empty ones.
func randomSections(_ random: inout SplitMix, count: Int, bytesMax: Int) -> [StateSection] {
  (0..<count).map { _ in
    let lower = random.below(257)
    let scope =
      random.below(2) == 0
      ? SectionScope.keys(lower..<lower + random.below(257 - lower))
      : .partition(source: random.text(), topic: random.text(), partition: Int32(truncatingIfNeeded: random.next()))
    let size = random.below(8) == 0 ? 0 : random.below(bytesMax)
    return StateSection(
      operatorID: random.text(), scope: scope,
      capture: BytesCapture(keyCount: random.below(1_000_000), bytes: random.bytes(size)))
  }
}

func randomManifest(_ random: inout SplitMix, number: UInt64, isSavepoint: Bool = false) -> CheckpointManifest {
  var manifest = CheckpointManifest(
    name: checkpointName(number: number, suffix: UInt32(truncatingIfNeeded: random.next())), number: number,
    createdNanos: Int64(bitPattern: random.next()), group: random.text(), revision: random.text(),
    workers: random.below(256), isSavepoint: isSavepoint)
  for _ in 0..<random.below(4) {
    manifest.partitions.append(
      StoredPartition(
        source: random.text(), topic: random.text(), partition: Int32(random.below(100)),
        offset: [-1, .max, 12][random.below(3)],
        watermark: [.min, .max, Int64(bitPattern: random.next())][random.below(3)]))
  }
  for _ in 0..<random.below(4) {
    manifest.operators.append(
      StoredOperator(
        id: random.text(), kind: random.text(), summary: random.text(),
        rules: (0..<random.below(3)).map { _ in random.text() }))
  }
  return manifest
}

func directoryStore(_ files: any FileSystem) throws -> DirectoryCheckpointStore {
  try DirectoryCheckpointStore(path: "/state", group: "rulesd", files: files)
}

/// What a checkpoint says, read back in full; throws when any of it is damaged.
func contents(_ store: any CheckpointStore, _ manifest: CheckpointManifest) throws -> [[UInt8]] {
  try manifest.sections.map { try store.read($0, of: manifest) }
}

/// That a store gives back what it was given.
func expectRoundTrip(_ store: any CheckpointStore, _ manifest: CheckpointManifest, _ sections: [StateSection]) throws {
  let written = try store.write(manifest, sections)
  var bare = written
  bare.sections = []
  #expect(bare == manifest)
  #expect(written.sections.map(\.operatorID) == sections.map(\.operatorID))
  #expect(written.sections.map(\.scope) == sections.map(\.scope))
  #expect(written.sections.map(\.keys) == sections.map(\.capture.keyCount))
  #expect(try store.manifest(named: manifest.name) == written)
  #expect(try store.list().last == written)
  for (stored, section) in zip(written.sections, sections) {
    let writer = StateWriter()
    section.capture.encode(into: writer)
    #expect(try store.read(stored, of: written) == writer.bytes)
    #expect(stored.rawBytes == writer.total)
  }
}
