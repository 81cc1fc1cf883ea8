import Runtime
import Glibc
public final class JSONLinesSink: RecordSink {
  let fd: Int32
  public init(path: String) throws { fd = path == "-" ? 1 : open(path, O_WRONLY|O_CREAT|O_TRUNC, 0o644) }
  public func write(_ batch: OutputBatch) throws {
    var out: [UInt8] = []
    for e in batch.entries { out.append(contentsOf: batch.bytes[e.start..<e.start+e.length]); out.append(10) }
    _ = out.withUnsafeBytes { Glibc.write(fd, $0.baseAddress, $0.count) }
  }
  public func flush() throws {}
  public var problem: String? { nil }
  public func close() {}
}
