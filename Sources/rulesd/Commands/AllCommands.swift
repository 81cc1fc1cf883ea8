/// The commands, in the order of the help page. A new one is its own file and a line here.
let allCommands: [Command] = [
  checkCommand,
  explainCommand,
  planCommand,
  dryRunCommand,
  runCommand,
  simulateCommand,
  benchCommand,
  demoCommand,
]
