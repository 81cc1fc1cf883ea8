import Foundation
import Runtime
import Testing

@testable import rulesd

private struct TextCapture: StateCapture {
  let text: String
  var keyCount: Int { text.count }
  func encode(into writer: StateWriter) { writer.append(text) }
}

/// A directory with checkpoints 1 to 3 of the default group, the second a savepoint.
private struct Scene: ~Copyable {
  let path: String
  let names: [String]

  init() throws {
    path = FileManager.default.temporaryDirectory.appendingPathComponent("rulesd-\(UUID().uuidString)").path
    let store = try DirectoryCheckpointStore(path: path, group: "rulesd")
    var names: [String] = []
    for number in 1...3 {
      let manifest = CheckpointManifest(
        name: checkpointName(number: UInt64(number), suffix: 0xABCD), number: UInt64(number),
        createdNanos: 1_795_230_000_000_000_000 + Int64(number), group: "rulesd", revision: "0123456789abcdef", workers: 2,
        isSavepoint: number == 2,
        partitions: [
          StoredPartition(
            source: "requests", topic: "search.events", partition: 7, offset: 1_234, watermark: 1_795_229_990_000_000_000),
          StoredPartition(source: "requests", topic: "search.events", partition: 8, offset: -1, watermark: .min),
        ],
        operators: [
          StoredOperator(id: "window:a1", kind: "window", summary: "1m windows by service", rules: ["lag", "p99"])
        ])
      _ = try store.write(
        manifest,
        [
          StateSection(operatorID: "window:a1", scope: .keys(0..<128), capture: TextCapture(text: "first half")),
          StateSection(operatorID: "window:a1", scope: .keys(128..<256), capture: TextCapture(text: "second half")),
          StateSection(operatorID: "alert:lag", scope: .keys(0..<256), capture: TextCapture(text: "pending")),
        ])
      names.append(manifest.name)
    }
    self.names = names
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  func run(_ arguments: String...) -> (exit: ExitCode, output: String, errors: String) {
    runCaptured(["checkpoint"] + arguments + ["--checkpoints", path])
  }
}

@Suite struct CheckpointCommandTests {
  @Test func lists() throws {
    let scene = try Scene()
    let text = scene.run("list")
    #expect(text.exit == .ok)
    let lines = text.output.split(separator: "\n")
    #expect(lines.count == 4)
    #expect(lines.first?.hasPrefix("NAME ") == true)
    #expect(lines.dropFirst().map { $0.hasSuffix("savepoint") } == [false, true, false])
    #expect(lines.last?.hasPrefix("\(scene.names[2])  2026-11-21T03:00:00.000Z  0123456789ab  ") == true)
    let json = scene.run("list", "--format", "json").output.split(separator: "\n").compactMap { JSONValue($0.utf8) }
    #expect(json.compactMap { $0["name"]?.text } == scene.names)
    #expect(json.map { $0["savepoint"] } == [.bool(false), .bool(true), .bool(false)])
    #expect(json.first?["keys"] == .number(28))
    #expect(json.first?["partitions"] == .number(2))
    let other = scene.run("list", "--group", "pages")
    #expect(other.exit == .ok)
    #expect(other.output.isEmpty)
    #expect(other.errors.contains("group pages has no checkpoints in \(scene.path)"))
  }

  @Test func shows() throws {
    let scene = try Scene()
    let result = scene.run("show", scene.names[1])
    #expect(result.exit == .ok)
    for part in [
      "savepoint \(scene.names[1])", "by group rulesd, 2 workers", "in 3 sections, 28 keys",
      "  requests  search.events/7         1234  2026-11-21T02:59:50.000Z",
      "  requests  search.events/8    none read  none", "  window:a1  window    21  55 B  ", "lag, p99 (1m windows by service)",
      "  alert:lag  -          7  ",
    ] { #expect(result.output.contains(part), "\(part) in\n\(result.output)") }
    let json = JSONValue(Array(scene.run("show", scene.names[1], "--format", "json").output.utf8))
    #expect(json?["name"] == .string(scene.names[1]))
  }

  @Test func verifies() throws {
    let scene = try Scene()
    let good = scene.run("verify")
    #expect(good.exit == .ok)
    #expect(good.output.components(separatedBy: "good: 3 sections").count == 4)
    let file = "\(scene.path)/rulesd/\(scene.names[0])/state-00001"
    var bytes = Array(try Data(contentsOf: URL(fileURLWithPath: file)))
    bytes[bytes.count - 1] ^= 1
    try Data(bytes).write(to: URL(fileURLWithPath: file))
    try "{}".write(toFile: "\(scene.path)/rulesd/\(scene.names[1])/manifest", atomically: true, encoding: .utf8)
    let bad = scene.run("verify")
    #expect(bad.exit == .refused)
    #expect(bad.output.contains("\(scene.names[0])  damaged: section alert:lag, key groups 0 to 255 of checkpoint "))
    #expect(bad.output.contains("\(scene.names[1])  damaged: the manifest"))
    #expect(bad.output.contains("\(scene.names[2])  good"))
    #expect(scene.run("verify", scene.names[0]).exit == .refused)
    #expect(scene.run("verify", scene.names[1]).exit == .refused)
    #expect(scene.run("verify", scene.names[2]).exit == .ok)
    #expect(scene.run("list").output.contains("\(scene.names[1])  damaged"))
  }

  @Test func exportsAndRestores() throws {
    let scene = try Scene()
    let file = "\(scene.path)/kept.ckpt"
    #expect(scene.run("export", scene.names[2], file).exit == .ok)
    #expect(scene.run("export", scene.names[2], file).errors.contains("File exists"))
    let restored = scene.run("restore", file)
    #expect(restored.exit == .ok)
    #expect(restored.output.hasPrefix("c-0000000004-"))
    let elsewhere = scene.run("restore", file, "--group", "pages")
    #expect(elsewhere.output == scene.names[2] + "\n")
    #expect(scene.run("verify", "--group", "pages").output.contains("\(scene.names[2])  good"))
    #expect(scene.run("list").output.split(separator: "\n").last?.hasSuffix("savepoint") == true)
    try "nothing".write(toFile: file, atomically: true, encoding: .utf8)
    let refused = scene.run("restore", file)
    #expect(refused.exit == .usage)
    #expect(refused.errors.contains("this is no exported checkpoint"))
  }

  @Test func refusesWithAHint() throws {
    let scene = try Scene()
    var mistyped = scene.names[1]
    mistyped.removeLast()
    for (arguments, message, hint) in [
      (["show", mistyped], "group rulesd has no checkpoint `\(mistyped)`", "did you mean `\(scene.names[1])`?"),
      (["show", "latest"], "has no checkpoint `latest`", "rulesd checkpoint list"),
      (["shwo", "x"], "there is no `checkpoint shwo`", "did you mean `show`?"),
      (["frob"], "there is no `checkpoint frob`", "one of list, show"),
      (["show"], "rulesd checkpoint show NAME", ""), (["list", "x"], "rulesd checkpoint list", ""),
      (["verify", "--format", "json"], "--format is for list and show", ""),
      (["restore", "/nonexistent/x"], "No such file or directory", ""),
    ] {
      let result = runCaptured(["checkpoint"] + arguments + ["--checkpoints", scene.path])
      #expect(result.exit == .usage)
      #expect(result.errors.contains(message), "\(result.errors)")
      #expect(hint.isEmpty || result.errors.contains(hint), "\(result.errors)")
    }
    #expect(runCaptured(["checkpoint", "list", "--checkpoints", "none"]).errors.contains("keeps nothing"))
    let place = runCaptured(["checkpoint", "list", "--checkpoints", "postgresql://u:s3cret@host/db"])
    #expect(place.exit == .usage)
    #expect(place.errors.contains("password") && !place.errors.contains("s3cret"))
  }
}
