// swift-tools-version: 6.0
import PackageDescription

let swiftSettings: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  // Small accessors of Runtime are called from Operators' inner loops; without this a generic method in
  // another module runs about 12 times slower (bench/README.md).
  .unsafeFlags(["-cross-module-optimization"], .when(configuration: .release)),
  // Tasks are classes that one thread owns; checking each access to their members costs a tenth of the run. Debug
  // builds, which the tests run, check.
  .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
]

func library(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: swiftSettings)
}

func tests(
  _ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []
) -> Target {
  .testTarget(
    name: name, dependencies: dependencies, exclude: exclude, swiftSettings: swiftSettings)
}

let package = Package(
  name: "rulesd",
  products: [.executable(name: "rulesd", targets: ["rulesd"])],
  targets: [
    // Doors to C and C++.
    .target(name: "CColumns"),
    .target(
      name: "CDecode", dependencies: ["CColumns"],
      cxxSettings: [.unsafeFlags(["-O3"])],
      linkerSettings: [.linkedLibrary("simdjson")]),
    .systemLibrary(name: "CRdkafka", pkgConfig: "rdkafka", providers: [.apt(["librdkafka-dev"])]),
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
    .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
    .systemLibrary(
      name: "CMicrohttpd", pkgConfig: "libmicrohttpd", providers: [.apt(["libmicrohttpd-dev"])]),
    .systemLibrary(name: "CPq", pkgConfig: "libpq", providers: [.apt(["libpq-dev"])]),
    .systemLibrary(name: "CPcre2", pkgConfig: "libpcre2-8", providers: [.apt(["libpcre2-dev"])]),

    library("Catalog", []),
    library("RuleLang", ["Catalog"]),
    library("Runtime", ["Catalog", "CColumns", "CZstd"]),
    library("Operators", ["Catalog", "Runtime", "CColumns", "CPcre2"]),
    library(
      "Connectors",
      ["Catalog", "Runtime", "CColumns", "CDecode", "CRdkafka", "CZlib", "CZstd", "CMicrohttpd", "CPq"]),
    library("Planner", ["Catalog", "RuleLang", "Runtime", "Operators", "CColumns"]),
    library("Traffic", []),
    .executableTarget(
      name: "rulesd",
      dependencies: [
        "Catalog", "RuleLang", "Runtime", "Operators", "Connectors", "Planner", "Traffic", "CColumns",
      ],
      swiftSettings: swiftSettings,
      // The daemon's memory; the tests and the sanitizers keep the C library's, so not in debug builds.
      linkerSettings: [.linkedLibrary("jemalloc", .when(configuration: .release))]),

    tests("RuleLangTests", ["RuleLang", "Catalog", "Operators"], exclude: ["Cases", "Wanted"]),
    tests(
      "RuntimeTests", ["Runtime", "CColumns", "Catalog", "RuleLang", "Operators", "Planner"]),
    tests("OperatorsTests", ["Operators", "Runtime", "Catalog", "CColumns"], exclude: ["Patterns"]),
    tests("ConnectorsTests", ["Connectors", "Runtime", "CColumns", "CDecode", "CRdkafka"]),
    tests(
      "PlannerTests", ["Planner", "RuleLang", "Operators", "Runtime", "Catalog", "CColumns"],
      exclude: ["Cases", "Changes"]),
    tests("TrafficTests", ["Traffic"]),
    tests(
      "EndToEnd",
      ["rulesd", "RuleLang", "Runtime", "Operators", "Connectors", "Planner", "Traffic", "Catalog"],
      exclude: ["Cases", "duckdb", "promtool", "prometheus", "Kill"]),
  ],
  cxxLanguageStandard: .cxx17
)
