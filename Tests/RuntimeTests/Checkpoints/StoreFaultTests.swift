import Glibc
import Testing

@testable import Runtime

/// Disks that fail and machines that stop, at every operation.
@Suite struct StoreFaultTests {
  private struct Scene {
    let files = SimulatedFileSystem(seed: 1)
    var old: [CheckpointManifest] = []
    var oldContents: [[[UInt8]]] = []
    let next: CheckpointManifest
    let sections: [StateSection]

    /// A store with `count` checkpoints, and one more to be written.
    init(seed: UInt64, old count: Int) throws {
      var random = SplitMix(state: seed)
      let store = try directoryStore(files)
      for number in 0..<count {
        let manifest = randomManifest(&random, number: UInt64(number + 1))
        old.append(try store.write(manifest, randomSections(&random, count: 4, bytesMax: 400)))
        oldContents.append(try contents(store, old[number]))
      }
      next = randomManifest(&random, number: UInt64(count + 1))
      // Enough for the files' buffer to be written more than once.
      sections =
        randomSections(&random, count: 4, bytesMax: 400) + [
          StateSection(
            operatorID: "large", scope: .keys(0..<256),
            capture: BytesCapture(keyCount: 1, bytes: random.noise(600_000)))
        ]
    }

    /// The old checkpoints are there and whole, and the new one is or is not.
    func expectWhole(_ store: DirectoryCheckpointStore, _ comment: Comment) throws -> Bool {
      let listed = try store.list()
      #expect(Array(listed.prefix(old.count)) == old, comment)
      for (manifest, expected) in zip(old, oldContents) {
        let same = try contents(store, manifest) == expected
        #expect(same, comment)
      }
      let added = listed.dropFirst(old.count)
      #expect(added.count <= 1, comment)
      guard let found = added.first else { return false }
      #expect(found.name == next.name, comment)
      #expect(try store.problems(of: found) == [], comment)
      let expected = sections.map { ($0.capture as? BytesCapture)?.bytes }
      let same = try contents(store, found) == expected
      #expect(same, comment)
      return true
    }
  }

  private func operationsOfAWrite(old: Int) throws -> Int {
    let scene = try Scene(seed: 1, old: old)
    let before = scene.files.operations
    _ = try directoryStore(scene.files).write(scene.next, scene.sections)
    return scene.files.operations - before
  }

  /// The machine stops at any operation of a write: afterwards there is the old set, or the old set and the new one.
  @Test(arguments: [0, 2]) func aCrashAtEveryOperation(old: Int) throws {
    let operations = try operationsOfAWrite(old: old)
    #expect(operations > 15)
    var survived = 0
    for operation in 0...operations {
      for seed: UInt64 in 0..<12 {
        let scene = try Scene(seed: 1, old: old)
        scene.files.fail(operation: operation, onwards: true, code: EIO)
        let written = try? directoryStore(scene.files).write(scene.next, scene.sections)
        #expect((written != nil) == (operation == operations))
        scene.files.crash(seed: seed)
        scene.files.heal()
        let store = try directoryStore(scene.files)
        let isThere = try scene.expectWhole(store, "operation \(operation), seed \(seed)")
        if operation == operations { #expect(isThere) }
        survived += isThere ? 1 : 0

        // Life goes on: another checkpoint, and what the crash left goes with the first pruning after it.
        var after = scene.next
        after.number += 1
        after.name = checkpointName(number: after.number, suffix: 7)
        _ = try store.write(after, scene.sections)
        try store.prune(keep: 1, alive: [])
        #expect(try store.survey().map(\.name) == [after.name])
        #expect(scene.files.files.keys.allSatisfy { $0.contains(after.name) })
        scene.files.crash(seed: seed)
        #expect(try directoryStore(scene.files).survey().map(\.name) == [after.name])
      }
    }
    // The simulation must have seen both: the last operations leave a whole checkpoint for some seeds.
    #expect(survived > 12)
  }

  @Test(arguments: [ENOSPC, EIO, EROFS], [false, true])
  func aFailureAtEveryOperation(code: Int32, onwards: Bool) throws {
    let operations = try operationsOfAWrite(old: 2)
    for operation in 0..<operations {
      let scene = try Scene(seed: 1, old: 2)
      let store = try directoryStore(scene.files)
      scene.files.fail(operation: operation, onwards: onwards, code: code)
      let failure = #expect(throws: CheckpointFailure.self) { try store.write(scene.next, scene.sections) }
      #expect(failure?.description.contains(String(cString: strerror(code))) == true)
      scene.files.heal()
      #expect(try !scene.expectWhole(store, "operation \(operation)"))
      // The same one again, as a caller that retries would.
      _ = try store.write(scene.next, scene.sections)
      #expect(try scene.expectWhole(store, "operation \(operation)"))
      // No traces.
      #expect(scene.files.files.count == 6)
      #expect(try store.survey().count == 3)
      scene.files.crash(seed: UInt64(operation))
      #expect(try scene.expectWhole(try directoryStore(scene.files), "operation \(operation)"))
    }
  }

  /// While the disk is away nothing traps, and a failed checkpoint is not shown although its manifest may be there.
  @Test func readsFailWhileTheDiskIsAway() throws {
    let scene = try Scene(seed: 1, old: 2)
    let store = try directoryStore(scene.files)
    scene.files.fail(operation: 0, onwards: true, code: EIO)
    #expect(throws: CheckpointFailure.self) { try store.list() }
    #expect(throws: CheckpointFailure.self) { try store.manifest(named: scene.old[0].name) }
    #expect(throws: CheckpointFailure.self) { try store.read(scene.old[0].sections[0], of: scene.old[0]) }
    #expect(throws: CheckpointFailure.self) { try store.prune(keep: 1, alive: []) }
    scene.files.heal()
    #expect(try !scene.expectWhole(store, "healed"))
  }

  /// A crash at any operation of a pruning: what had to stay is whole, and the next pruning ends the work.
  @Test func aCrashAtEveryOperationOfAPruning() throws {
    let alive = try Scene(seed: 1, old: 6)
    let before = alive.files.operations
    try directoryStore(alive.files).prune(keep: 2, alive: [])
    let operations = alive.files.operations - before
    for operation in 0..<operations {
      for seed: UInt64 in 0..<6 {
        let scene = try Scene(seed: 1, old: 6)
        scene.files.fail(operation: operation, onwards: true, code: EIO)
        #expect(throws: CheckpointFailure.self) { try directoryStore(scene.files).prune(keep: 2, alive: []) }
        scene.files.crash(seed: seed)
        scene.files.heal()
        let store = try directoryStore(scene.files)
        for manifest in try store.list() {
          let index = try #require(scene.old.firstIndex(of: manifest))
          let same = try contents(store, manifest) == scene.oldContents[index]
          #expect(same)
        }
        #expect(try store.list().map(\.number).suffix(2) == [5, 6])
        try store.prune(keep: 2, alive: [])
        #expect(try store.survey().compactMap(\.manifest).map(\.number) == [5, 6])
        #expect(scene.files.files.count == 4)
      }
    }
  }

  /// Against an obvious model: what is alive, a savepoint or among the newest stays, and nothing else.
  @Test(arguments: 0..<60) func pruningKeepsWhatItMust(_ seed: UInt64) throws {
    var random = SplitMix(state: seed)
    let files = SimulatedFileSystem()
    let store = try directoryStore(files)
    var written: [CheckpointManifest] = []
    for number in 1...UInt64(1 + random.below(8)) {
      let manifest = randomManifest(&random, number: number, isSavepoint: random.below(4) == 0)
      written.append(try store.write(manifest, randomSections(&random, count: 2, bytesMax: 50)))
    }
    let alive = Set(written.filter { _ in random.below(4) == 0 }.map(\.name))
    let keep = random.below(4)
    let newest = written.filter { !$0.isSavepoint }.suffix(keep).map(\.name)
    let expected = written.filter { $0.isSavepoint || alive.contains($0.name) || newest.contains($0.name) }
    try store.prune(keep: keep, alive: alive)
    #expect(try store.list() == expected)
    for manifest in expected { #expect(try store.problems(of: manifest) == []) }
    #expect(files.files.count == expected.reduce(0) { $0 + ($1.sections.isEmpty ? 1 : 2) })
  }

  /// Unfinished directories go when they are older than the newest checkpoint; what may be another daemon's work, and
  /// what is not ours, stays.
  @Test func leftOversGoAndWorkInProgressStays() throws {
    var random = SplitMix(state: 3)
    let files = SimulatedFileSystem()
    let store = try directoryStore(files)
    let newest = try store.write(randomManifest(&random, number: 10), [])
    func unfinished(_ name: String) throws {
      try files.makeDirectory("/state/rulesd/\(name)")
      let file = try files.create("/state/rulesd/\(name)/state-00001")
      files.close(file)
    }
    let older = checkpointName(number: 9, suffix: 1)
    let inUse = checkpointName(number: 8, suffix: 1)
    let same = checkpointName(number: 10, suffix: 1)
    let newer = checkpointName(number: 11, suffix: 1)
    for name in [older, inUse, same, newer, "lost+found", "notes"] { try unfinished(name) }
    files.close(try files.create("/state/rulesd/README"))
    try store.prune(keep: 1, alive: [inUse])
    #expect(
      try files.list("/state/rulesd") == [inUse, newest.name, same, newer, "README", "lost+found", "notes"].sorted())
    #expect(try store.list().map(\.name) == [newest.name])
  }

  /// Another daemon finishes its checkpoint between our look and our removal: it gets it back whole; a slow one that had
  /// not finished fails.
  @Test func aSlowWriterIsNeverToldThatItStored() throws {
    var random = SplitMix(state: 4)
    let files = SimulatedFileSystem()
    let store = try directoryStore(files)
    let newest = try store.write(randomManifest(&random, number: 10), [])
    let late = try store.write(randomManifest(&random, number: 5), randomSections(&random, count: 2, bytesMax: 50))
    // What `prune` sees after it has moved the directory that had no manifest a moment ago.
    try files.rename("/state/rulesd/\(late.name)", to: "/state/rulesd/trash-\(late.name)")
    #expect(try store.list().map(\.name) == [newest.name])
    try store.prune(keep: 2, alive: [])
    #expect(try store.list().map(\.name) == [late.name, newest.name])
    #expect(try store.problems(of: late) == [])

    // A writer whose directory is pruned while it writes.
    let slow = randomManifest(&random, number: 6)
    let other = try directoryStore(files)
    let content = SectionContent(operatorID: "o", scope: .keys(0..<1), keys: 0) { _ in
      try store.prune(keep: 2, alive: [])
      return 0
    }
    #expect(throws: CheckpointFailure.self) { try other.store(slow, [content]) }
    #expect(try store.survey().map(\.name) == [late.name, newest.name])
  }
}
