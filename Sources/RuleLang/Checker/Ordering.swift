/// Definitions in an order in which each stands behind what it uses.
struct DependencyOrder {
  var order: [Int] = []
  /// For each definition that leads back to itself, the one whose use closes the circle.
  var cycles: [Int: Int] = [:]

  /// Depth first, on a stack of its own: a chain may be longer than the machine's stack is deep.
  /// Independent definitions keep their order.
  init(count: Int, uses: (Int) -> [Int]) {
    enum Mark { case new, open, done }
    var marks = [Mark](repeating: .new, count: count)
    for root in 0..<count where marks[root] == .new {
      var stack: [(node: Int, pending: [Int])] = [(root, uses(root).reversed())]
      marks[root] = .open
      while let top = stack.indices.last {
        guard let next = stack[top].pending.popLast() else {
          marks[stack[top].node] = .done
          order.append(stack[top].node)
          stack.removeLast()
          continue
        }
        switch marks[next] {
        case .new:
          marks[next] = .open
          stack.append((next, uses(next).reversed()))
        case .open: cycles[stack[top].node] = next
        case .done: break
        }
      }
    }
  }
}
