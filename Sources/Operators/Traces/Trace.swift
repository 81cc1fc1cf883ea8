import Catalog
import Runtime

/// `trace` and `edges`: puts the spans of a trace together, and when it has gone quiet says what they show.
///
/// A trace is over when no span of it has come for `gapNanos` of event time, or `longestNanos` after its first. Its row (and
/// one row for each call between two services) has that time. What is said of it is `TraceAnalysis`'.
public struct Trace: GatherOperation {
  /// A column of the rows that come out.
  public enum Column: Sendable, Hashable {
    /// A key of the trace, by its place among the input's keys.
    case key(Int)
    case start, duration, root, rootService, error, spans, errors, services, criticalPath, slowestSpan, slowestService
    case slowestTime, selfTimes, missingRoot, orphans, loops, skewed, lostSpans
    // Of calls; `start`, `duration` and `error` are theirs there.
    case caller, callee
  }

  /// Where a span's columns are among what rows take along.
  public struct SpanColumns: Sendable, Hashable {
    public var span: Int
    public var parent: Int
    public var service: Int
    /// Nil: the row's event time.
    public var start: Int?
    public var duration: Int
    public var error: Int?
    public var name: Int?
    public init(span: Int, parent: Int, service: Int, start: Int?, duration: Int, error: Int?, name: Int?) {
      self.span = span
      self.parent = parent
      self.service = service
      self.start = start
      self.duration = duration
      self.error = error
      self.name = name
    }
  }

  public static let spanLimitDefault = 100_000

  public var gapNanos: Int64
  public var longestNanos: Int64
  /// Most spans of a trace that are kept; more are counted.
  public var spanLimit: Int
  /// Keys and bytes as of a join; see there.
  public var limits: Join.Limits
  public var columns: SpanColumns
  /// Of traces, the first of the exchange's outputs; empty when nobody reads them.
  public var traces: [Column]
  /// Of calls, the second.
  public var edges: [Column]
  public var readsTraces: Bool
  public var readsEdges: Bool

  public init(
    gapNanos: Int64, longestNanos: Int64, spanLimit: Int, limits: Join.Limits = Join.Limits(), columns: SpanColumns,
    traces: [Column], edges: [Column], readsTraces: Bool = true, readsEdges: Bool = true
  ) {
    self.gapNanos = gapNanos
    self.longestNanos = longestNanos
    self.spanLimit = spanLimit
    self.limits = limits
    self.columns = columns
    self.traces = traces
    self.edges = edges
    self.readsTraces = readsTraces
    self.readsEdges = readsEdges
  }

  public func makeTask(_ definition: GatherExchange, _ context: TaskContext) -> KeyedTask {
    TraceTask(self, definition, context)
  }
}

/// A span as it is kept: 56 bytes, texts apart.
struct SpanRecord: BitwiseCopyable {
  struct Text: BitwiseCopyable {
    var offset: UInt32 = 0
    var length: UInt32 = 0
  }
  /// Nanoseconds since the epoch, within `eventTimeNanos`.
  var start: Int64
  /// Nanoseconds, 0 to `durationNanosMax`.
  var duration: Int64
  var id: Text
  /// Empty where it has none.
  var parent: Text
  var service: Text
  var name: Text
  /// 1: it failed.
  var flags: UInt64

  /// Longer than any span: 30 days. What claims to be longer counts as this.
  static let durationNanosMax: Int64 = 30 * 86_400 * 1_000_000_000

  var end: Int64 { start + duration }
  var hasFailed: Bool { flags & 1 != 0 }
}

/// The spans of one trace, in the order in which they came.
final class TraceSpans {
  var spans = NativeArray<SpanRecord>()
  /// Ids, services and names of the spans, one behind another.
  var text = NativeArray<UInt8>()
  var first: Int64
  var last: Int64
  /// Spans beyond the limit.
  var lost: Int64 = 0
  /// A capture reads it: it must be copied before it changes, while the capture is not encoded.
  var isShared = false

  init(at time: Int64) {
    first = time
    last = time
  }

  init(copying other: TraceSpans) {
    spans = NativeArray(copying: other.spans)
    text = NativeArray(copying: other.text)
    first = other.first
    last = other.last
    lost = other.lost
  }

  var bytes: Int { 96 + spans.count * MemoryLayout<SpanRecord>.stride + text.count }

  func bytes(_ part: SpanRecord.Text) -> UnsafeBufferPointer<UInt8> {
    precondition(Int(part.offset) + Int(part.length) <= text.count, "a text of a span lies in its trace's texts")
    return UnsafeBufferPointer(start: text.base + Int(part.offset), count: Int(part.length))
  }

  /// Keeps a text of a span.
  func append(_ data: UnsafePointer<UInt8>?, _ length: Int) -> SpanRecord.Text {
    // Ids, names and services are short; more than 1 KiB of one is of no use in a path.
    let kept = min(length, 1_024)
    guard kept > 0, let data, text.count + kept <= Int(UInt32.max) else { return SpanRecord.Text() }
    let offset = text.count
    text.grow(to: offset + kept, filling: 0)
    (text.base + offset).update(from: data, count: kept)
    return SpanRecord.Text(offset: UInt32(offset), length: UInt32(kept))
  }
}
