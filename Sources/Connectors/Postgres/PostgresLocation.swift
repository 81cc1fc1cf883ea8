import CPq
import Runtime

/// A `postgresql://` URI that was looked at: it can be used, and what is shown of it holds no secret.
struct PostgresLocation {
  let uri: String
  /// `postgresql://user@host:port/database`, whatever else the URI says left out.
  let shown: String

  /// Throws when it is no URI of libpq, and when there is a password in it.
  init(_ uri: String) throws(CheckpointFailure) {
    var problem: UnsafeMutablePointer<CChar>?
    guard let parsed = PQconninfoParse(uri, &problem) else {
      defer { PQfreemem(problem) }
      // libpq's words may repeat the URI, and a password in it.
      throw CheckpointFailure(
        "the checkpoint store's address is no PostgreSQL address; write postgresql://USER@HOST:PORT/DATABASE")
    }
    defer { PQconninfoFree(parsed) }
    var values: [String: String] = [:]
    var option = parsed
    while let keyword = option.pointee.keyword {
      if let value = option.pointee.val { values[String(cString: keyword)] = String(cString: value) }
      option += 1
    }
    guard values["password"] == nil, values["sslpassword"] == nil else {
      throw CheckpointFailure(
        "the checkpoint store's address holds a password, which every user of this machine can see; put it into a "
          + "password file (~/.pgpass, PGPASSFILE, passfile=…)")
    }
    var shown = "postgresql://"
    if let user = values["user"] { shown += "\(user)@" }
    shown += values["host"] ?? values["hostaddr"] ?? ""
    if let port = values["port"] { shown += ":\(port)" }
    self.uri = uri
    self.shown = shown + "/\(values["dbname"] ?? "")"
  }
}
