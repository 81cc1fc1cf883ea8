import Foundation
import Testing

@testable import rulesd

/// Real files, changed as editors, deploys, Kubernetes and git-sync change them. Each step is one look, no time passes.
@Suite struct RuleWatcherTests {
  /// Looks are a second apart, and so are the edits that they tell apart. Here that is a tick of the kernel's coarse clock,
  /// which is what a file's times are taken from.
  private func write(_ text: String, _ path: String) throws {
    usleep(11_000)
    try FileManager.default.createDirectory(
      atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
    try text.write(toFile: path, atomically: false, encoding: .utf8)
  }

  private func revision(_ paths: [String]) throws -> String { ruleRevision(try readRuleFiles(paths)) }

  /// A watcher that has settled on what is there.
  private func settled(_ paths: [String]) throws -> RuleWatcher {
    var watcher = RuleWatcher(paths: paths, revision: try revision(paths))
    for _ in 0..<4 { #expect(watcher.poll() == nil) }
    return watcher
  }

  /// Looks until something is told, at most so many times; how many looks it took.
  private func looks(_ watcher: inout RuleWatcher, max: Int = 6) -> (count: Int, revision: String)? {
    for count in 1...max { if let revision = watcher.poll() { return (count, revision) } }
    return nil
  }

  private func link(_ path: String, to target: String) throws {
    // As `ln -sfn` and the kubelet do it: a new link, renamed over the old one.
    try FileManager.default.createSymbolicLink(atPath: path + ".new", withDestinationPath: target)
    #expect(rename(path + ".new", path) == 0)
  }

  @Test func isSilentWhileNothingChanges() throws {
    let directory = try TemporaryDirectory()
    try write("1", directory.path("rules/a.rules"))
    var watcher = try settled([directory.path("rules")])
    for _ in 0..<20 { #expect(watcher.poll() == nil) }
    // Neither other files, nor hidden ones, nor a touch.
    try write("x", directory.path("rules/readme.md"))
    try write("x", directory.path("rules/.a.rules.swp"))
    #expect(utimes(directory.path("rules/a.rules"), nil) == 0)
    #expect(chmod(directory.path("rules/a.rules"), 0o600) == 0)
    #expect(looks(&watcher) == nil && watcher.problem == nil)
  }

  @Test func tellsOnceOfAnEditThatIsStill() throws {
    let directory = try TemporaryDirectory()
    let path = directory.path("rules")
    try write("1", "\(path)/a.rules")
    var watcher = try settled([path])
    try write("22", "\(path)/a.rules")
    let told = try #require(looks(&watcher))
    #expect(told.count == 2)
    #expect(told.revision == (try revision([path])))
    #expect(looks(&watcher) == nil)
    // While it goes on changing nothing is told.
    for step in 0..<5 {
      try write(String(repeating: "3", count: step + 3), "\(path)/a.rules")
      #expect(watcher.poll() == nil)
    }
    #expect(looks(&watcher)?.count == 1)
    #expect(looks(&watcher) == nil)
  }

  @Test func bytesCountAndNotTheFile() throws {
    let directory = try TemporaryDirectory()
    let path = directory.path("a.rules")
    try write("1", path)
    var watcher = try settled([path])
    try write("2", path)
    #expect(watcher.poll() == nil)
    // Back again before it was still.
    try write("1", path)
    #expect(looks(&watcher) == nil)
    // Another file with the same bytes, renamed over it.
    try write("1", directory.path("b.tmp"))
    #expect(rename(directory.path("b.tmp"), path) == 0)
    #expect(looks(&watcher) == nil)
    try write("2", path)
    #expect(looks(&watcher) != nil)
    try write("1", path)
    #expect(looks(&watcher) != nil)
  }

  /// The size stays, and so does the time of modification, to the nanosecond.
  @Test func anEditInDisguiseIsSeen() throws {
    let directory = try TemporaryDirectory()
    let path = directory.path("a.rules")
    try write("for 5m", path)
    var before = stat()
    #expect(stat(path, &before) == 0)
    var watcher = try settled([path])
    try write("for 6m", path)
    var times = [before.st_atim, before.st_mtim]
    #expect(utimensat(AT_FDCWD, path, &times, 0) == 0)
    var after = stat()
    #expect(stat(path, &after) == 0)
    #expect(after.st_size == before.st_size && after.st_mtim.tv_nsec == before.st_mtim.tv_nsec)
    #expect(looks(&watcher)?.revision == (try revision([path])))
  }

  @Test func filesComeAndGo() throws {
    let directory = try TemporaryDirectory()
    let path = directory.path("rules")
    try write("1", "\(path)/a.rules")
    var watcher = try settled([path])
    try write("2", "\(path)/below/b.rules")
    #expect(looks(&watcher)?.count == 2)
    #expect(rename("\(path)/below/b.rules", "\(path)/below/c.rules") == 0)
    #expect(looks(&watcher)?.count == 2)
    #expect(unlink("\(path)/below/c.rules") == 0)
    #expect(looks(&watcher)?.count == 2)
    #expect(watcher.revision == (try revision([path])))
  }

  /// `a.rules -> ..data/a.rules`, `..data -> ..2026_1`: an update makes `..2026_2` and turns `..data`.
  @Test func aConfigMapIsSwapped() throws {
    let directory = try TemporaryDirectory()
    let mount = directory.path("mount")
    try write("1", "\(mount)/..2026_1/a.rules")
    try FileManager.default.createSymbolicLink(atPath: "\(mount)/..data", withDestinationPath: "..2026_1")
    try FileManager.default.createSymbolicLink(atPath: "\(mount)/a.rules", withDestinationPath: "..data/a.rules")
    var watcher = try settled([mount])
    try write("2", "\(mount)/..2026_2/a.rules")
    #expect(looks(&watcher) == nil)
    try link("\(mount)/..data", to: "..2026_2")
    try FileManager.default.removeItem(atPath: "\(mount)/..2026_1")
    #expect(looks(&watcher)?.revision == (try revision([mount])))
    // The same content in another place is no change.
    try write("2", "\(mount)/..2026_3/a.rules")
    try link("\(mount)/..data", to: "..2026_3")
    #expect(looks(&watcher) == nil)
  }

  /// `current -> worktrees/<commit>`, where the rules are in a folder of the tree.
  @Test func aCheckoutIsSwapped() throws {
    let directory = try TemporaryDirectory()
    try write("1", directory.path("worktrees/aaa/rules/a.rules"))
    try write("2", directory.path("worktrees/bbb/rules/a.rules"))
    try FileManager.default.createSymbolicLink(
      atPath: directory.path("current"), withDestinationPath: "worktrees/aaa")
    let path = directory.path("current/rules")
    var watcher = try settled([path])
    try link(directory.path("current"), to: "worktrees/bbb")
    #expect(looks(&watcher)?.count == 2)
    #expect(watcher.revision == (try revision([path])))
    try link(directory.path("current"), to: "worktrees/aaa")
    #expect(looks(&watcher)?.count == 2)
  }

  @Test func aMomentWithoutTheDirectoryIsNoChange() throws {
    let directory = try TemporaryDirectory()
    let path = directory.path("rules")
    try write("1", "\(path)/a.rules")
    var watcher = try settled([path])
    #expect(rename(path, directory.path("away")) == 0)
    #expect(looks(&watcher) == nil)
    #expect(watcher.problem?.contains(path) == true)
    #expect(rename(directory.path("away"), path) == 0)
    #expect(looks(&watcher) == nil)
    #expect(watcher.problem == nil)
    // Empty, then filled with something else.
    try FileManager.default.removeItem(atPath: "\(path)/a.rules")
    #expect(looks(&watcher) == nil)
    #expect(watcher.problem?.contains("no .rules file") == true)
    try write("2", "\(path)/a.rules")
    #expect(looks(&watcher)?.revision == (try revision([path])))
    #expect(watcher.problem == nil)
    // A link to nowhere.
    try link("\(path)/b.rules", to: "nowhere")
    #expect(looks(&watcher) == nil)
    #expect(watcher.problem != nil)
    #expect(unlink("\(path)/b.rules") == 0)
    #expect(looks(&watcher) == nil && watcher.problem == nil)
  }

  /// What changed between the reading of the rules and the first look is told.
  @Test func whatRunsIsWhatCounts() throws {
    let directory = try TemporaryDirectory()
    let path = directory.path("a.rules")
    try write("1", path)
    let running = try revision([path])
    try write("2", path)
    var watcher = RuleWatcher(paths: [path], revision: running)
    #expect(looks(&watcher)?.count == 2)
    #expect(looks(&watcher) == nil)
  }

  /// Random edits: after enough quiet looks the watcher has told of the content that is there, if it is another than the
  /// one told before, and never told one twice in a row.
  @Test(arguments: 0..<10) func neverMissesAndNeverRepeats(_ seed: Int) throws {
    var random = SystemSeed(seed)
    let directory = try TemporaryDirectory()
    let path = directory.path("rules")
    try write("0", "\(path)/a.rules")
    var watcher = try settled([path])
    var told = watcher.revision
    for _ in 0..<25 {
      let file = "\(path)/\(["a", "b", "c"][random.next(3)]).rules"
      switch random.next(4) {
      case 0: try write("\(random.next(3))", file)
      case 1:
        try write("\(random.next(3))", directory.path("new"))
        #expect(rename(directory.path("new"), file) == 0)
      case 2: unlink("\(path)/b.rules")
      default: break
      }
      let quiet = random.next(4)
      for _ in 0..<quiet {
        guard let revision = watcher.poll() else { continue }
        #expect(revision != told)
        told = revision
      }
      if quiet >= 2 { #expect(told == (try revision([path]))) }
    }
  }
}

/// A small generator that is the same for a seed.
private struct SystemSeed {
  private var state: UInt64
  init(_ seed: Int) { state = UInt64(seed) &* 0x9E37_79B9_7F4A_7C15 &+ 1 }
  mutating func next(_ count: Int) -> Int {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Int((state >> 33) % UInt64(count))
  }
}
