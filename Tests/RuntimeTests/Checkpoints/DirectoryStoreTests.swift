import Foundation
import Testing

@testable import Runtime

@Suite struct DirectoryStoreTests {
  @Test(arguments: 0..<20) func sectionsRoundTrip(_ seed: UInt64) throws {
    var random = SplitMix(state: seed)
    let store = try directoryStore(SimulatedFileSystem())
    for number in 1...3 {
      let sections = randomSections(&random, count: random.below(30), bytesMax: 3_000)
      try expectRoundTrip(store, randomManifest(&random, number: UInt64(number)), sections)
    }
    #expect(try store.list().map(\.number) == [1, 2, 3])
  }

  /// Longer than chunks, buffers and, together, than a file.
  @Test func largeSectionsRoundTrip() throws {
    var random = SplitMix(state: 9)
    let store = try DirectoryCheckpointStore(
      path: "/state", group: "g", files: SimulatedFileSystem(), fileBytes: 5 << 20)
    let noise = random.noise(4 << 20)
    let sections = [0, StateWriter.chunkBytes, StateWriter.chunkBytes + 1, 4 << 20, 3 << 20, 10].map { size in
      StateSection(operatorID: "o\(size)", scope: .keys(0..<256), capture: BytesCapture(keyCount: 1, bytes: Array(noise[..<size])))
    }
    let written = try store.write(randomManifest(&random, number: 1), sections)
    #expect(Set(written.sections.map(\.file)) == ["state-00001", "state-00002"])
    for (stored, section) in zip(written.sections, sections) {
      let same = try store.read(stored, of: written) == (section.capture as? BytesCapture)?.bytes
      #expect(same)
    }
    #expect(try store.problems(of: written) == [])
  }

  /// A thousand operators must not need a thousand files.
  @Test func smallSectionsShareAFile() throws {
    var random = SplitMix(state: 2)
    let files = SimulatedFileSystem()
    let store = try directoryStore(files)
    let sections = randomSections(&random, count: 1_000, bytesMax: 200)
    let before = files.operations
    _ = try store.write(randomManifest(&random, number: 1), sections)
    #expect(files.files.count == 2)
    #expect(files.operations - before < 40)
  }

  @Test func worksOnARealDisk() throws {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("rulesd-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    var random = SplitMix(state: 4)
    let store = try DirectoryCheckpointStore(path: "\(path)/deep/er", group: "../odd group/ü")
    for number in 1...5 {
      let sections = randomSections(&random, count: 10, bytesMax: 300_000)
      try expectRoundTrip(store, randomManifest(&random, number: UInt64(number)), sections)
    }
    try store.prune(keep: 2, alive: [])
    let left = try store.list()
    #expect(left.map(\.number) == [4, 5])
    for manifest in left { #expect(try store.problems(of: manifest) == []) }
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: "\(path)/deep/er") == ["%2e.%2fodd%20group%2f%c3%bc"])
    #expect(try FileManager.default.contentsOfDirectory(atPath: "\(path)/deep/er/%2e.%2fodd%20group%2f%c3%bc").count == 2)
  }

  /// Real error texts, and no trap where the directory is a file or is gone.
  @Test func saysWhatTheDiskSays() throws {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("rulesd-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    var random = SplitMix(state: 5)
    try "a file".write(toFile: path, atomically: true, encoding: .utf8)
    let store = try DirectoryCheckpointStore(path: path, group: "g")
    let manifest = randomManifest(&random, number: 1)
    let failure = #expect(throws: CheckpointFailure.self) { try store.write(manifest, []) }
    #expect(
      failure?.description
        == "checkpoint \(manifest.name) is not stored: cannot create directory \(path)/g: Not a directory")
    try FileManager.default.removeItem(atPath: path)
    #expect(try store.list() == [])
    try expectRoundTrip(store, manifest, randomSections(&random, count: 3, bytesMax: 100))
    try FileManager.default.removeItem(atPath: path)
    #expect(try store.manifest(named: manifest.name) == nil)
    try expectRoundTrip(store, manifest, randomSections(&random, count: 3, bytesMax: 100))
  }

  @Test func refusesNamesThatLeadElsewhere() throws {
    var random = SplitMix(state: 6)
    let files = SimulatedFileSystem()
    let store = try directoryStore(files)
    for name in ["", ".", "..", "../x", "a/b", "/etc", "a b", "trash-x", String(repeating: "x", count: 101), "é"] {
      var manifest = randomManifest(&random, number: 1)
      manifest.name = name
      #expect(throws: CheckpointFailure.self) { try store.write(manifest, []) }
      #expect(try store.manifest(named: name) == nil)
    }
    let written = try store.write(randomManifest(&random, number: 1), randomSections(&random, count: 1, bytesMax: 9))
    for file in ["manifest", "../x", "state-", "state-1/../manifest", "state-99999"] {
      var section = written.sections[0]
      section.file = file
      #expect(throws: CheckpointFailure.self) { try store.read(section, of: written) }
    }
    #expect(throws: CheckpointFailure.self) { try DirectoryCheckpointStore(path: "/state", group: "") }
    #expect(throws: CheckpointFailure.self) {
      try DirectoryCheckpointStore(path: "/state", group: String(repeating: "x", count: 201))
    }
    #expect(throws: CheckpointFailure.self) { try store.write(written, []) }
  }

  /// Sizes in a manifest are not believed.
  @Test func refusesSizesThatCannotBe() throws {
    var random = SplitMix(state: 7)
    let store = try directoryStore(SimulatedFileSystem())
    let capture = BytesCapture(keyCount: 1, bytes: random.bytes(1_000))
    let written = try store.write(
      randomManifest(&random, number: 1), [StateSection(operatorID: "o", scope: .keys(0..<256), capture: capture)])
    let good = written.sections[0]
    for change: (inout StoredSection) -> Void in [
      { $0.rawBytes = 1 << 50 }, { $0.rawBytes += 1 }, { $0.rawBytes -= 1 }, { $0.rawBytes = 0 }, { $0.rawBytes = -1 },
      { $0.storedBytes = 1 << 50 }, { $0.storedBytes += 1 }, { $0.storedBytes -= 1 }, { $0.storedBytes = 0 },
      { $0.storedBytes = -1 }, { $0.offset = 0 }, { $0.offset = -5 }, { $0.offset = 1 << 50 }, { $0.offset += 1 },
      { $0.checksum ^= 1 },
    ] as [(inout StoredSection) -> Void] {
      var section = good
      change(&section)
      #expect(throws: CheckpointFailure.self, "\(section)") { try store.read(section, of: written) }
    }
    #expect(try store.read(good, of: written) == capture.bytes)
  }

  /// Each byte of each file changed, and each file cut at each length: an error or the same state, never another.
  @Test func noDamageIsReadAsGood() throws {
    var random = SplitMix(state: 8)
    let files = SimulatedFileSystem()
    let store = try directoryStore(files)
    let manifest = randomManifest(&random, number: 1)
    let sections = [0, 1, 40, 90].map { size in
      StateSection(operatorID: "o", scope: .keys(0..<256), capture: BytesCapture(keyCount: 1, bytes: random.bytes(size)))
    }
    let written = try store.write(manifest, sections)
    #expect(try store.problems(of: written) == [])
    for (path, bytes) in files.files {
      let isManifest = path.hasSuffix("/manifest")
      for index in 0...bytes.count {
        var variants = [Array(bytes[..<index])].filter { $0 != bytes }
        if index < bytes.count {
          for change: UInt8 in [1, 0x80, 0xFF] {
            variants.append(bytes)
            variants[variants.count - 1][index] ^= change
          }
        } else {
          variants.append(bytes + [0])
        }
        for damaged in variants {
          files.overwrite(path, with: damaged)
          let survey = try store.survey()
          #expect(survey.count == 1)
          if isManifest {
            #expect(try store.list() == [])
            #expect(survey.first?.problem != nil)
            #expect(throws: CheckpointFailure.self) { try store.manifest(named: manifest.name) }
          } else {
            #expect(try !store.problems(of: written).isEmpty)
            // A longer file still holds the sections as they were; anything else must not be read.
            if damaged.count <= bytes.count { #expect(throws: CheckpointFailure.self) { try contents(store, written) } }
          }
        }
      }
      files.overwrite(path, with: bytes)
    }
    #expect(try store.problems(of: written) == [])
  }

  @Test func damagedOnesAreNamedAndOthersListed() throws {
    var random = SplitMix(state: 10)
    let files = SimulatedFileSystem()
    let store = try directoryStore(files)
    let manifests = try (1...3).map { number in
      try store.write(randomManifest(&random, number: UInt64(number)), randomSections(&random, count: 3, bytesMax: 50))
    }
    files.overwrite("/state/rulesd/\(manifests[1].name)/manifest", with: Array("{}".utf8))
    // A manifest that was copied into another's directory.
    let first = try #require(files.files["/state/rulesd/\(manifests[0].name)/manifest"])
    #expect(try store.list().map(\.number) == [1, 3])
    files.overwrite("/state/rulesd/\(manifests[2].name)/manifest", with: first)
    #expect(try store.list().map(\.number) == [1])
    #expect(try store.survey().map { $0.problem != nil } == [false, true, true])
  }
}
