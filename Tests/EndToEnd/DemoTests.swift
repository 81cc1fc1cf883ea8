import Testing

@testable import rulesd

@Suite struct DemoTests {
  /// Live through the broker and dry over the recording, the alerts are the same: the demo itself compares
  /// them.
  @Test func theDryRunSaysTheSame() throws {
    let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let pack = "/\(root)/rules/search-quality"
    let output = CapturedOutput()
    let errors = CapturedOutput()
    let process = CommandEnvironment.process()
    let environment = CommandEnvironment(
      standardOutput: output, standardError: errors, monotonicNanos: process.monotonicNanos,
      sleep: process.sleep, epochNanos: process.epochNanos)
    let exit = runCommandLine(["demo", pack, "--rate", "40", "--speed", "600"], environment)
    #expect(exit == .ok, "\(output.text)\n\(errors.text)")
    #expect(output.text.contains("5 alerts fired, 5 resolved"), "\(output.text)")
    #expect(output.text.contains("byte for byte"))
  }
}
