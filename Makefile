# `make demo` and `make test` are the two to know; both install what is missing on Debian 12.

.PHONY: demo test build release bench deps test-swift test-duckdb test-kafka clean

# The incident, many times faster than life, through an embedded broker and the path of `rulesd run`.
demo: release
	.build/release/rulesd demo rules/search-quality

test: test-swift test-duckdb

# Debug: assertions and overflow checks are on.
build: deps
	scripts/build.sh

release: deps
	scripts/build.sh -c release --product rulesd

test-swift: deps
	scripts/build.sh --build-tests
	swift test --skip-build

# The same windows in SQL, computed by another engine.
test-duckdb: build
	scripts/venv.sh .venv-test duckdb
	.venv-test/bin/python Tests/EndToEnd/duckdb/compare.py --rulesd .build/debug/rulesd

# Against real brokers: make test-kafka BROKERS=localhost:9092
test-kafka: release
	@test -n "$(BROKERS)" || { echo "usage: make test-kafka BROKERS=host:port" >&2; exit 2; }
	scripts/test-kafka.sh "$(BROKERS)"

bench: release
	bench/run.sh

deps:
	@scripts/deps.sh

clean:
	rm -rf .build .venv-test .venv-bench bench/out
