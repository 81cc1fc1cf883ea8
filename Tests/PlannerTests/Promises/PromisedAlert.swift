import RuleLang

/// An alert as Prometheus has it, slow and obviously right: told at every evaluation which label sets are true, it says
/// what is to be reported. The other side of what the engine reports.
struct PromisedAlert {
  struct Report: Hashable, Comparable {
    var time: Int64
    var state: String
    var labels: [String]
    static func < (a: Self, b: Self) -> Bool {
      (a.time, a.labels.joined(), a.state) < (b.time, b.labels.joined(), b.state)
    }
  }

  private struct Instance {
    var since: Int64
    var isFiring = false
    var falseSince: Int64?
  }

  var forNanos: Int64
  var keepFiringNanos: Int64
  private var active: [[String]: Instance] = [:]
  var isAnyActive: Bool { !active.isEmpty }

  init(_ alert: TypedAlert) {
    forNanos = alert.forNanos
    keepFiringNanos = alert.keepFiringNanos
  }

  /// The same label sets under other durations.
  mutating func adopt(_ alert: TypedAlert) {
    forNanos = alert.forNanos
    keepFiringNanos = alert.keepFiringNanos
  }

  /// Evaluations were left out: whether it was true all the time nobody knows.
  mutating func skip() { active = active.filter { $0.value.isFiring } }

  mutating func evaluate(at time: Int64, _ isTrue: Set<[String]>) -> [Report] {
    var reports: [Report] = []
    for labels in isTrue.union(active.keys) {
      func report(_ state: String) { reports.append(Report(time: time, state: state, labels: labels)) }
      guard isTrue.contains(labels) else {
        guard var instance = active[labels], instance.isFiring else {
          active[labels] = nil
          continue
        }
        let since = instance.falseSince ?? time
        instance.falseSince = since
        active[labels] = instance
        if time - since >= keepFiringNanos {
          active[labels] = nil
          report("resolved")
        }
        continue
      }
      var instance = active[labels] ?? Instance(since: time)
      instance.falseSince = nil
      if !instance.isFiring, time - instance.since >= forNanos {
        instance.isFiring = true
        report("firing")
      } else if active[labels] == nil {
        report("pending")
      }
      active[labels] = instance
    }
    return reports
  }

  /// When a condition was true, by label set: out of what the same alert reports with neither `for` nor `keep_firing`.
  struct Truth {
    private var changes: [[String]: [(time: Int64, isTrue: Bool)]] = [:]
    private(set) var first: Int64?
    private(set) var last: Int64?

    init(_ reports: [Report]) {
      for report in reports.sorted() {
        changes[report.labels, default: []].append((report.time, report.state == "firing"))
        first = min(first ?? report.time, report.time)
        last = max(last ?? report.time, report.time)
      }
    }

    func at(_ time: Int64) -> Set<[String]> {
      Set(changes.keys.filter { changes[$0]?.last { $0.time <= time }?.isTrue == true })
    }
  }
}
