import Glibc

// A reader that goes away (`rulesd … | head`) is an error from write, told like any other, not a signal.
signal(SIGPIPE, SIG_IGN)
exit(runCommandLine(Array(CommandLine.arguments.dropFirst()), .process()).rawValue)
