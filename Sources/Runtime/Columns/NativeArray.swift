/// A growable array of plain values that is never shared, so that nothing is counted or checked for uniqueness in an
/// inner loop. The door through which state (group tables, aggregates) touches raw memory: indexes are asserted in
/// debug builds, and growth is the owner's explicit call.
public struct NativeArray<Element: BitwiseCopyable>: ~Copyable {
  public private(set) var base: UnsafeMutablePointer<Element>
  /// Slots that hold an initialised value.
  public private(set) var count: Int
  @usableFromInline var capacity: Int

  public init(repeating value: Element, count: Int, capacity: Int = 0) {
    self.capacity = max(count, capacity, 8)
    self.count = count
    base = .allocate(capacity: self.capacity)
    base.initialize(repeating: value, count: count)
  }

  /// Takes no memory until something is stored: a thousand rules have many arrays that stay empty.
  public init() {
    capacity = 0
    count = 0
    base = Self.nowhere
  }

  /// The same values in memory of its own, with as much room to grow: one copy of memory.
  public init(copying other: borrowing NativeArray) {
    self.init()
    guard other.count > 0 else { return }
    capacity = other.capacity
    count = other.count
    base = .allocate(capacity: capacity)
    base.initialize(from: other.base, count: count)
  }

  deinit { if capacity > 0 { base.deallocate() } }

  /// An aligned address that is never read nor written.
  private static var nowhere: UnsafeMutablePointer<Element> {
    guard let pointer = UnsafeMutablePointer<Element>(bitPattern: MemoryLayout<Element>.alignment) else {
      preconditionFailure("an alignment is not zero")
    }
    return pointer
  }

  @inlinable public subscript(index: Int) -> Element {
    get {
      assert(index >= 0 && index < count)
      return base[index]
    }
    nonmutating set {
      assert(index >= 0 && index < count)
      let slots = base
      slots[index] = newValue
    }
  }

  /// Makes `count` at least `newCount`, the new slots holding `value`. Amortised O(1) a slot.
  public mutating func grow(to newCount: Int, filling value: Element) {
    guard newCount > count else { return }
    reserve(newCount)
    (base + count).initialize(repeating: value, count: newCount - count)
    count = newCount
  }

  public mutating func append(_ value: Element) {
    if count == capacity { reserve(count + 1) }
    (base + count).initialize(to: value)
    count += 1
  }

  /// Copies `count` values behind the last one.
  public mutating func append(bytes: UnsafePointer<Element>, count added: Int) {
    if added > capacity - count { reserve(count + added) }
    (base + count).update(from: bytes, count: added)
    count += added
  }

  public mutating func removeAll() { count = 0 }

  private mutating func reserve(_ wanted: Int) {
    guard wanted > capacity else { return }
    let newCapacity = max(wanted, capacity * 2, 8)
    let moved = UnsafeMutablePointer<Element>.allocate(capacity: newCapacity)
    if capacity > 0 {
      moved.moveInitialize(from: base, count: count)
      base.deallocate()
    }
    base = moved
    capacity = newCapacity
  }
}

/// Bytes that live as long as the arena: keys of a group table, strings of `first`/`last`.
public struct ByteArena: ~Copyable {
  /// Bytes that have been copied in never change nor move, so several arenas may keep a block alive.
  private final class Block: @unchecked Sendable {
    // @unchecked: written only by the arena that allocated it, behind what others can see.
    let memory: UnsafeMutableRawPointer
    init(bytes: Int) { memory = .allocate(byteCount: bytes, alignment: 16) }
    deinit { memory.deallocate() }
  }

  private var blocks: [Block] = []
  private var next: UnsafeMutablePointer<UInt8>?
  private var left = 0
  /// Bytes allocated, for state accounting.
  public private(set) var bytes = 0

  public init() {}

  /// An arena that keeps all bytes of another alive where they are; new bytes go to blocks of its own.
  public init(sharing other: borrowing ByteArena) {
    blocks = other.blocks
    bytes = other.bytes
  }

  /// Copies `length` bytes and returns where they are now.
  public mutating func copy(_ data: UnsafePointer<UInt8>?, _ length: Int) -> UnsafePointer<UInt8>? {
    guard length > 0, let data else { return nil }
    if length > left {
      let size = max(length, min(65_536, max(256, bytes)))
      let block = Block(bytes: size)
      blocks.append(block)
      bytes += size
      next = block.memory.assumingMemoryBound(to: UInt8.self)
      left = size
    }
    guard let target = next else { return nil }
    target.update(from: data, count: length)
    next = target + length
    left -= length
    return UnsafePointer(target)
  }
}
