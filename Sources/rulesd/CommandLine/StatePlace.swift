import Glibc

/// Where the daemon keeps its checkpoints, and where `checkpoint` looks for them, when nobody says: systemd's state
/// directory, or the user's.
func defaultStatePlace() -> String {
  func variable(_ name: String) -> String? {
    getenv(name).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
  }
  if let directory = variable("STATE_DIRECTORY") { return directory }
  if let directory = variable("XDG_STATE_HOME") { return "\(directory)/rulesd" }
  if let home = variable("HOME") { return "\(home)/.local/state/rulesd" }
  return "/var/lib/rulesd"
}
