import CColumns
import Catalog

extension GroupTable {
  /// A group, and bits of its first key value that come before those of another group only if its key does.
  private struct Place: BitwiseCopyable {
    var lead: UInt64
    var group: Int32
  }

  /// All groups, or those given, in the order of `isOrderedBefore`: windows emit their rows in it.
  ///
  /// Most comparisons are of one word: of a string column the eight bytes behind what all its values begin with, so
  /// that `service-001`, `service-002` differ in theirs.
  public func ordered(_ groups: [Int32]? = nil) -> [Int32] {
    let count = groups?.count ?? self.count
    guard count > 1, width > 0, nulls.count == 0 else {
      let all = groups ?? (0..<Int32(truncatingIfNeeded: count)).map { $0 }
      return count > 1 ? all.sorted { isOrderedBefore(Int($0), Int($1)) } : all
    }
    return withUnsafeTemporaryAllocation(of: Place.self, capacity: count) { places in
      for index in 0..<count {
        places.initializeElement(at: index, to: Place(lead: 0, group: groups?[index] ?? Int32(truncatingIfNeeded: index)))
      }
      setLeads(of: places)
      sort(places)
      return places.map(\.group)
    }
  }

  private func isBefore(_ a: Place, _ b: Place) -> Bool {
    a.lead == b.lead ? isOrderedBefore(Int(a.group), Int(b.group)) : a.lead < b.lead
  }

  private func sort(_ places: UnsafeMutableBufferPointer<Place>) {
    var places = places
    // Windows of a thousand rules have a dozen groups each: by insertion, which needs no memory.
    guard places.count <= 24 else { return places.sort(by: isBefore) }
    for index in 1..<places.count {
      let place = places[index]
      var hole = index
      while hole > 0, isBefore(place, places[hole - 1]) {
        places[hole] = places[hole - 1]
        hole -= 1
      }
      places[hole] = place
    }
  }

  private func setLeads(of places: UnsafeMutableBufferPointer<Place>) {
    switch keyTypes[0] {
    case .string:
      let first = strings[Int(places[0].group) * width]
      var shared = first.length
      for place in places { shared = min(shared, rd_shared_prefix(first, strings[Int(place.group) * width])) }
      for index in places.indices {
        places[index].lead = rd_lead(strings[Int(places[index].group) * width], shared)
      }
    case .int64, .bool:
      for index in places.indices {
        places[index].lead = words[Int(places[index].group) * width] ^ (1 << 63)
      }
    case .float64:
      // The usual map of doubles to integers of the same order; -0.0 is never a key.
      for index in places.indices {
        let bits = words[Int(places[index].group) * width]
        places[index].lead = bits >> 63 == 0 ? bits | (1 << 63) : ~bits
      }
    }
  }
}
