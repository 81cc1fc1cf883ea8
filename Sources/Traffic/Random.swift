import Glibc

/// A seeded generator of our own, so that one seed means the same bytes on every machine and with every
/// release of Swift.
///
/// xoshiro256++ 1.0 by Blackman and Vigna (prng.di.unimi.it), its state filled by SplitMix64 as its authors
/// advise. Not for secrets.
public struct TrafficRandom: Sendable {
  private var a: UInt64
  private var b: UInt64
  private var c: UInt64
  private var d: UInt64

  public init(seed: UInt64) {
    var mixer = SplitMix64(state: seed)
    a = mixer.next()
    b = mixer.next()
    c = mixer.next()
    d = mixer.next()
  }

  public mutating func next() -> UInt64 {
    let sum = a &+ d
    let result = (sum &<< 23 | sum &>> 41) &+ a
    let shifted = b &<< 17
    c ^= a
    d ^= b
    b ^= c
    a ^= d
    c ^= shifted
    d = d &<< 45 | d &>> 19
    return result
  }

  /// At least 0 and below 1, with 53 random bits.
  public mutating func unit() -> Double {
    Double(next() &>> 11) * 0x1p-53
  }

  /// At least 0 and below `bound`, which is above 0. Multiply and shift (Lemire): a bias below 2^-32 is no
  /// matter here.
  public mutating func below(_ bound: Int) -> Int {
    Int(truncatingIfNeeded: ((next() &>> 32) &* UInt64(truncatingIfNeeded: bound)) &>> 32)
  }

  public mutating func chance(_ probability: Double) -> Bool {
    unit() < probability
  }

  /// Two independent normal values, mean 0 and deviation 1 (Box and Muller).
  public mutating func normalPair() -> (Double, Double) {
    let radius = (-2 * log(1 - unit())).squareRoot()
    let angle = 2 * Double.pi * unit()
    return (radius * cos(angle), radius * sin(angle))
  }

  /// The waiting time of a Poisson process with `rate` events per unit of time.
  public mutating func waiting(rate: Double) -> Double {
    -log(1 - unit()) / rate
  }
}

/// Steele, Lea and Flood's SplitMix64: spreads a small seed over 64 bits.
struct SplitMix64 {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ mixed &>> 30) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ mixed &>> 27) &* 0x94D0_49BB_1331_11EB
    return mixed ^ mixed &>> 31
  }
}
