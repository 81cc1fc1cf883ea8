# `make demo` and `make test` are the two to know; both install what is missing on Debian 12.

.PHONY: demo test build release bench quality deps test-swift test-duckdb test-promtool test-prometheus test-kafka test-kill test-faults test-faults-short sanitize soak simulate-faults test-mutations clean

# The incident, many times faster than life, through an embedded broker and the path of `rulesd run`.
demo: release
	.build/release/rulesd demo rules/search-quality

test: test-swift test-duckdb test-promtool test-prometheus test-kill test-faults-short $(if $(RULESD_TEST_BROKERS),test-kafka)

# Debug: assertions and overflow checks are on.
build: deps
	scripts/build.sh

# The Swift library is linked in: one binary, and 2 ms less to start.
release: deps
	scripts/build.sh -c release --product rulesd --static-swift-stdlib

test-swift: deps
	scripts/build.sh --build-tests
	swift test --skip-build --skip FaultHistoryTests
	swift test --skip-build --filter FaultHistoryTests

# Deliberate mistakes in the protocol, each of which a history must notice; part of `make test`.
test-mutations: deps
	scripts/build.sh --build-tests
	swift test --skip-build --filter FaultHistoryTests.brokenProtocols

# More histories with faults than `make test` runs.
SEEDS ?= 20000
simulate-faults: deps
	scripts/build.sh --build-tests
	RULESD_FAULT_SEEDS=$(SEEDS) swift test --skip-build --filter FaultHistoryTests

# The same windows in SQL, computed by another engine.
test-duckdb: build
	scripts/venv.sh .venv-test duckdb
	.venv-test/bin/python Tests/EndToEnd/duckdb/compare.py --rulesd .build/debug/rulesd
	.venv-test/bin/python Tests/EndToEnd/duckdb/joins.py --rulesd .build/debug/rulesd

# The same alerts in Prometheus: `for` and `keep_firing` of 500 random series. SEED=… makes others.
test-promtool: build
	Tests/EndToEnd/promtool/compare.py --rulesd .build/debug/rulesd --seed $(SEED)

# Burn alerts against Prometheus, evaluating the SRE workbook's rules on the same counters.
test-prometheus: build
	python3 Tests/EndToEnd/prometheus/compare.py --rulesd .build/debug/rulesd

# Against real brokers: RULESD_TEST_BROKERS=localhost:9092 make test-kafka. `make test` does it too when that is set.
BROKERS ?= $(RULESD_TEST_BROKERS)
test-kafka: release
	@test -n "$(BROKERS)" || { echo "usage: RULESD_TEST_BROKERS=host:port make test-kafka" >&2; exit 2; }
	scripts/test-kafka.sh "$(BROKERS)"

# Daemons killed with SIGKILL at random moments, against the dry run; on the mock cluster, and on real brokers when they are
# named. SEED=… makes another history.
ROUNDS ?= 50
SEED ?= 1
test-kill: release
	RULESD_TEST_BROKERS= Tests/EndToEnd/Kill/kill.py --rounds $(ROUNDS) --seed $(SEED)
	$(if $(BROKERS),Tests/EndToEnd/Kill/kill.py --rounds $(ROUNDS) --seed $(SEED) --brokers $(BROKERS))

# What breaks around a daemon, one thing at a time; ten minutes. FAULTS="broker-down zombie" makes these alone.
test-faults: release
	RULESD_TEST_BROKERS= Tests/EndToEnd/Kill/faults.py --seed $(SEED) $(FAULTS)

# Each once, shorter and four at a time: part of `make test`.
test-faults-short: release
	RULESD_TEST_BROKERS= Tests/EndToEnd/Kill/faults.py --seed $(SEED) --short --lanes 4 $(FAULTS)

# All tests under AddressSanitizer and ThreadSanitizer; half an hour.
sanitize: deps
	scripts/sanitize.sh

# Flat memory under load.
MINUTES ?= 20
soak: release
	RULESD_TEST_BROKERS= Tests/EndToEnd/Kill/soak.py --minutes $(MINUTES) --seed $(SEED)

bench: release
	bench/run.sh

# How well log lines are put into patterns, over a folder laid out as scripts/quality.py says.
quality: release
	@test -n "$(DATA)" || { echo "usage: make quality DATA=FOLDER" >&2; exit 2; }
	python3 scripts/quality.py --rulesd .build/release/rulesd "$(DATA)"

deps:
	@scripts/deps.sh

clean:
	rm -rf .build .venv-test .venv-bench bench/out
