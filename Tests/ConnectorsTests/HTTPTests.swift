import Foundation
import Glibc
import Testing

@testable import Connectors

/// A connection to a local port; -1 when it is refused.
func openConnection(_ port: UInt16) -> Int32 {
  let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
  var name = sockaddr_in()
  name.sin_family = sa_family_t(AF_INET)
  name.sin_port = port.bigEndian
  inet_pton(AF_INET, "127.0.0.1", &name.sin_addr)
  let connected = withUnsafePointer(to: &name) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
    }
  }
  if connected { return descriptor }
  close(descriptor)
  return -1
}

func sendText(_ descriptor: Int32, _ text: String) {
  let bytes = Array(text.utf8)
  _ = send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
}

/// Whether something comes within that time.
func hasAnswer(_ descriptor: Int32, millis: Int32) -> Bool {
  var wait = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
  var byte: UInt8 = 0
  return poll(&wait, 1, millis) > 0 && recv(descriptor, &byte, 1, Int32(MSG_PEEK)) > 0
}

/// Sends bytes as they are and reads until the server closes.
func httpExchange(_ port: UInt16, _ request: String) -> String {
  let descriptor = openConnection(port)
  guard descriptor >= 0 else { return "refused" }
  defer { close(descriptor) }
  sendText(descriptor, request)
  var answer: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 4_096)
  while true {
    let count = recv(descriptor, &buffer, buffer.count, 0)
    if count <= 0 { break }
    answer += buffer[..<count]
  }
  return String(decoding: answer, as: UTF8.self)
}

@Suite struct HTTPTests {
  private func serve() throws -> HTTPServer {
    var limits = HTTPLimits()
    limits.idleSeconds = 2
    return try HTTPServer(bind: "127.0.0.1", port: 0, limits: limits) { request in
      switch request.path {
      case "/healthz": .text("ok\n")
      case "/echo path": .json("{\"q\":\"\(request.query["q"] ?? "-")\",\"method\":\"\(request.method)\"}")
      default: .notFound
      }
    }
  }

  @Test func answers() throws {
    let server = try serve()
    defer { server.stop() }
    #expect(server.port > 0)
    let close = "Host: x\r\nConnection: close\r\n\r\n"
    let healthy = httpExchange(server.port, "GET /healthz HTTP/1.1\r\n\(close)")
    #expect(healthy.hasPrefix("HTTP/1.1 200 OK\r\n"))
    #expect(healthy.contains("Content-Type: text/plain; charset=utf-8\r\n"))
    #expect(healthy.hasSuffix("\r\n\r\nok\n"))
    let echo = httpExchange(server.port, "GET /echo%20path?q=a%22b&r HTTP/1.1\r\n\(close)")
    #expect(echo.hasSuffix("{\"q\":\"a\"b\",\"method\":\"GET\"}"))
    let head = httpExchange(server.port, "HEAD /healthz HTTP/1.1\r\n\(close)")
    #expect(head.contains("Content-Length: 3\r\n") && head.hasSuffix("\r\n\r\n"))
    #expect(httpExchange(server.port, "GET /nowhere HTTP/1.1\r\n\(close)").hasPrefix("HTTP/1.1 404"))
    #expect(httpExchange(server.port, "DELETE /healthz HTTP/1.1\r\n\(close)").hasPrefix("HTTP/1.1 405"))
  }

  @Test func garbageAndOversizedHeaders() throws {
    let server = try serve()
    defer { server.stop() }
    let garbage = httpExchange(server.port, "\u{0}\u{1}\u{2} nonsense\r\n\r\n")
    #expect(!garbage.hasPrefix("HTTP/1.1 200"))
    let long = String(repeating: "a", count: 100_000)
    let oversized = httpExchange(server.port, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: \(long)\r\n\r\n")
    #expect(!oversized.hasPrefix("HTTP/1.1 200"))
    #expect(httpExchange(server.port, "GET /healthz HTTP/1.0\r\n\r\n").hasPrefix("HTTP/1.1 200"))
  }

  @Test func addressesAndStopping() throws {
    #expect(throws: HTTPFailure.self) { try HTTPServer(bind: "nowhere", port: 0) { _ in .notFound } }
    let server = try serve()
    #expect(throws: HTTPFailure.self) {
      try HTTPServer(bind: "127.0.0.1", port: server.port) { _ in .notFound }
    }
    server.stop()
    server.stop()
    #expect(httpExchange(server.port, "GET /healthz HTTP/1.0\r\n\r\n") == "refused")
  }
}
