/// XXH64 with seed 0 (Collet, "xxHash fast digest algorithm", 0.1.1), taken in pieces: what `xxh64sum` prints.
/// Guards against damage, not against malice.
struct Checksum {
  private static let prime1: UInt64 = 0x9E37_79B1_85EB_CA87
  private static let prime2: UInt64 = 0xC2B2_AE3D_27D4_EB4F
  private static let prime3: UInt64 = 0x1656_67B1_9E37_79F9
  private static let prime4: UInt64 = 0x85EB_CA77_C2B2_AE63
  private static let prime5: UInt64 = 0x27D4_EB2F_1656_67C5

  private var lanes: SIMD4<UInt64> = [prime1 &+ prime2, prime2, 0, 0 &- prime1]
  private var total: UInt64 = 0
  /// What does not fill a stripe of 32 bytes yet.
  private var pending: [UInt8] = []

  init() { pending.reserveCapacity(32) }

  static func of(_ bytes: some Collection<UInt8>) -> UInt64 {
    var checksum = Checksum()
    Array(bytes).withUnsafeBytes { checksum.update($0) }
    return checksum.value
  }

  private static func rotate(_ value: UInt64, _ count: UInt64) -> UInt64 { value &<< count | value &>> (64 &- count) }

  private static func round(_ lane: UInt64, _ input: UInt64) -> UInt64 {
    rotate(lane &+ input &* prime2, 31) &* prime1
  }

  private static func word(_ bytes: UnsafeRawBufferPointer, _ offset: Int) -> UInt64 {
    UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  mutating func update(_ bytes: UnsafeRawBufferPointer) {
    total &+= UInt64(bytes.count)
    var rest = bytes
    if !pending.isEmpty {
      let taken = min(32 - pending.count, rest.count)
      pending.append(contentsOf: rest.prefix(taken))
      rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(taken))
      guard pending.count == 32 else { return }
      let stripe = pending
      stripe.withUnsafeBytes { consume($0) }
      pending.removeAll(keepingCapacity: true)
    }
    let whole = rest.count & ~31
    consume(UnsafeRawBufferPointer(rebasing: rest.prefix(whole)))
    pending.append(contentsOf: rest.dropFirst(whole))
  }

  private mutating func consume(_ stripes: UnsafeRawBufferPointer) {
    var (a, b, c, d) = (lanes[0], lanes[1], lanes[2], lanes[3])
    var offset = 0
    while offset < stripes.count {
      a = Self.round(a, Self.word(stripes, offset))
      b = Self.round(b, Self.word(stripes, offset + 8))
      c = Self.round(c, Self.word(stripes, offset + 16))
      d = Self.round(d, Self.word(stripes, offset + 24))
      offset += 32
    }
    lanes = [a, b, c, d]
  }

  /// Of everything so far.
  var value: UInt64 {
    var hash: UInt64
    if total >= 32 {
      hash = Self.rotate(lanes[0], 1) &+ Self.rotate(lanes[1], 7) &+ Self.rotate(lanes[2], 12)
      hash &+= Self.rotate(lanes[3], 18)
      for index in 0..<4 { hash = (hash ^ Self.round(0, lanes[index])) &* Self.prime1 &+ Self.prime4 }
    } else {
      hash = Self.prime5
    }
    hash &+= total
    pending.withUnsafeBytes { rest in
      var offset = 0
      while offset + 8 <= rest.count {
        hash = Self.rotate(hash ^ Self.round(0, Self.word(rest, offset)), 27) &* Self.prime1 &+ Self.prime4
        offset += 8
      }
      if offset + 4 <= rest.count {
        let half = UInt64(UInt32(littleEndian: rest.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
        hash = Self.rotate(hash ^ half &* Self.prime1, 23) &* Self.prime2 &+ Self.prime3
        offset += 4
      }
      while offset < rest.count {
        hash = Self.rotate(hash ^ UInt64(rest[offset]) &* Self.prime5, 11) &* Self.prime1
        offset += 1
      }
    }
    hash = (hash ^ hash &>> 33) &* Self.prime2
    hash = (hash ^ hash &>> 29) &* Self.prime3
    return hash ^ hash &>> 32
  }
}
