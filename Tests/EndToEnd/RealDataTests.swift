import Foundation
import Runtime
import Testing

@testable import rulesd

/// The Numenta Anomaly Benchmark's CloudWatch series, where the folder with them stands beside the
/// repository.
private let series = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .deletingLastPathComponent().deletingLastPathComponent()
  .appendingPathComponent("shared/data/nab/realAWSCloudwatch/ec2_cpu_utilization_ac20cd.csv")

@Suite struct RealDataTests {
  @Test(
    .enabled(
      if: FileManager.default.fileExists(atPath: series.path), "../shared/data/nab is not on this machine"))
  func cpuOfAnInstanceThatStuck() throws {
    let lines = try String(contentsOf: series, encoding: .utf8).split(whereSeparator: \.isNewline).dropFirst()
    #expect(lines.count > 4_000)
    var records = ""
    var hours: [Substring: [Double]] = [:]
    for line in lines {
      let fields = line.split(separator: ",")
      let value = try #require(Double(fields[1]))
      records += #"{"timestamp":"\#(fields[0])","value":\#(value)}"# + "\n"
      hours[fields[0].prefix(13), default: []].append(value)
    }
    var example = try DryRunCase(
      """
      source cpu { time ts  watermark 10m  fields { ts: timestamp(rfc3339) from timestamp, value: float } }
      stream hourly = cpu | window tumbling 1h | aggregate n = count(), mean = avg(value)
      metric cpu_mean = hourly.mean
      alert CpuStuck { on hourly  when mean > 90  for 2h  severity page }
      """)
    example.inputs = [("cpu", 0, records)]
    let output = try example.run(workers: 2, batchRows: 100).split(separator: "\n").compactMap {
      JSONValue(Array($0.utf8))
    }
    let means = output.filter { $0["type"] == .string("metric") }
    #expect(means.count == hours.count)
    for record in means {
      let start = try #require(record["window"]?["start"]?.text)
      let values = try #require(hours[start.prefix(13).replacing("T", with: " ")[...]])
      guard case .number(let mean) = record["values"]?["value"] else {
        Issue.record("no value in \(record)")
        continue
      }
      #expect(abs(mean - values.reduce(0, +) / Double(values.count)) < 1e-9 * mean)
    }
    // The benchmark's people marked 2014-04-14 07:49 to 2014-04-15 17:34.
    let firing = output.filter { $0["state"] == .string("firing") }.compactMap { $0["time"]?.text }
    #expect(firing.count == 1)
    #expect(firing.allSatisfy { $0 > "2014-04-14T07:49" && $0 < "2014-04-15T17:34" }, "\(firing)")
  }
}
