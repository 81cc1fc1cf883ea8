/// A 64-bit hash that is the same in every process and on every machine: FNV-1a, mixed at the end (the finaliser of
/// MurmurHash3), so that short texts differ in all digits. For names and change detection, not against an adversary.
public struct StableHash: Sendable {
  private var state: UInt64 = 0xcbf2_9ce4_8422_2325

  public init() {}

  /// Of one text.
  public init(_ text: String) { add(text) }

  public mutating func add(byte: UInt8) { state = (state ^ UInt64(byte)) &* 0x100_0000_01b3 }

  /// A text and where it ends: `ab`, `c` is not `a`, `bc`.
  public mutating func add(_ text: String) { add(counted: text.utf8) }

  /// Bytes and how many there are.
  public mutating func add(counted bytes: some Collection<UInt8>) {
    var count = UInt64(bytes.count)
    for _ in 0..<8 {
      add(byte: UInt8(truncatingIfNeeded: count))
      count >>= 8
    }
    for byte in bytes { add(byte: byte) }
  }

  public var value: UInt64 {
    var mixed = state
    mixed = (mixed ^ mixed >> 33) &* 0xff51_afd7_ed55_8ccd
    mixed = (mixed ^ mixed >> 33) &* 0xc4ce_b9fe_1a85_ec53
    return mixed ^ mixed >> 33
  }

  /// 16 hexadecimal digits.
  public var digits: String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.utf8.count) + digits
  }
}
