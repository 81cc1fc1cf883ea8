import Glibc
import Testing

@testable import Runtime

@Suite struct ExportTests {
  private let files = SimulatedFileSystem()

  private func exported(_ sizes: [Int], number: UInt64 = 5) throws -> (CheckpointManifest, [[UInt8]], [UInt8]) {
    var random = SplitMix(state: 1)
    let store = try directoryStore(files)
    let sections = sizes.map { size in
      StateSection(operatorID: "o", scope: .keys(0..<256), capture: BytesCapture(keyCount: 3, bytes: random.bytes(size)))
    }
    let written = try store.write(randomManifest(&random, number: number), sections)
    try ExportedCheckpoint.write(written, of: store, to: "/kept", files: files)
    return (written, try contents(store, written), try #require(files.files["/kept"]))
  }

  /// Into an empty store it comes with its own name; among newer ones it becomes the newest.
  @Test func comesBackAsTheNewestSavepoint() throws {
    let (original, state, _) = try exported([0, 40, 300_000, 5])
    let kept = try ExportedCheckpoint(reading: "/kept", files: files)
    let empty = try DirectoryCheckpointStore(path: "/other", group: "pages", files: files)
    let first = try kept.restore(into: empty, group: "pages", suffix: 1)
    #expect(first.name == original.name)
    #expect(first.group == "pages")
    #expect(first.isSavepoint)
    #expect(try contents(empty, first) == state)
    let second = try kept.restore(into: empty, group: "pages", suffix: 0xFF)
    #expect(second.name == "c-0000000006-000000ff")
    #expect(try contents(empty, second) == state)
    try empty.prune(keep: 0, alive: [])
    #expect(try empty.list() == [first, second])
    #expect(second.partitions == original.partitions)
    #expect(second.operators == original.operators)
    #expect(second.revision == original.revision)
  }

  @Test func noDamageIsRestored() throws {
    let (_, _, bytes) = try exported([0, 30, 50])
    let target = try DirectoryCheckpointStore(path: "/other", group: "g", files: files)
    for index in 0...bytes.count {
      var variants = [Array(bytes[..<index])].filter { $0 != bytes }
      if index < bytes.count {
        for change: UInt8 in [1, 0x80] {
          variants.append(bytes)
          variants[variants.count - 1][index] ^= change
        }
      } else {
        variants.append(bytes + [0])
      }
      for damaged in variants {
        files.overwrite("/kept", with: damaged)
        #expect(throws: CheckpointFailure.self) {
          try ExportedCheckpoint(reading: "/kept", files: files).restore(into: target, group: "g", suffix: 1)
        }
      }
    }
    #expect(try target.survey().isEmpty)
  }

  @Test func aDamagedCheckpointIsNotExported() throws {
    let (written, _, _) = try exported([500])
    let store = try directoryStore(files)
    let path = "/state/rulesd/\(written.name)/state-00001"
    var bytes = try #require(files.files[path])
    bytes[bytes.count - 1] ^= 1
    files.overwrite(path, with: bytes)
    #expect(throws: CheckpointFailure.self) {
      try ExportedCheckpoint.write(written, of: store, to: "/again", files: files)
    }
    #expect(files.files["/again"] == nil)
    // What is there is not written over.
    #expect(throws: (any Error).self) { try ExportedCheckpoint.write(written, of: store, to: "/kept", files: files) }
  }

  @Test func numbersDoNotRunOut() throws {
    _ = try exported([1], number: CheckpointManifest.numberMax)
    let kept = try ExportedCheckpoint(reading: "/kept", files: files)
    let target = try DirectoryCheckpointStore(path: "/other", group: "g", files: files)
    _ = try kept.restore(into: target, group: "g", suffix: 1)
    #expect(throws: CheckpointFailure.self) { try kept.restore(into: target, group: "g", suffix: 2) }
  }
}
