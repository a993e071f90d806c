# `make` lists the targets. Everything works on a fresh clone with Go, make and git; `make deps` gets the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

LINT := go tool -modfile=tools/go.mod golangci-lint
FUZZTIME ?= 30s
BENCH ?= .
BENCH_OUT ?= dist/bench.txt

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## start everything on this machine, replay a web log, show served features, compare them all with the archive
	@tools/deps.sh --demo
	@$(MAKE) --no-print-directory build
	examples/weblog/demo.sh

.PHONY: test
test: deps ## every test on real stores, without the race detector
	go test ./...

.PHONY: test-kafka
test-kafka: deps ## the speed layer, the law and the corpus on Apache Kafka itself (Java 17 and Maven)
	tools/kafka.sh go test -count=1 -p 1 -timeout 30m ./speed ./speed/archive
	tools/kafka.sh go test -count=1 -timeout 30m -run 'TestTheLawOnTheWholePath|TestCorpusOnTheWholePath' ./cmd/millrace

.PHONY: check
check: deps lint build ## what a change must pass: format, lint, build, tests under the race detector, tidy go.mod
	CGO_ENABLED=0 go build -trimpath -tags noengine -o bin/millrace-static ./cmd/millrace
	go test -race -tags synctests ./...

.PHONY: lint
lint: ## format diff, linters, go.mod tidy, deployment files
	$(LINT) fmt --diff
	$(LINT) run
	go mod tidy -diff
	go -C tools mod tidy -diff
	go -C tools/deploy mod tidy -diff
	go -C tools/deploy test ./...

.PHONY: fmt
fmt: ## format the code
	$(LINT) fmt

.PHONY: build
build: ## bin/millrace
	go build -trimpath -buildvcs=auto -o bin/millrace ./cmd/millrace

.PHONY: bench
bench: deps build ## RESULT lines beside their floors, then benchmarks ten times into dist/bench.txt, for benchstat (BENCH=regexp chooses)
	go run ./loadtest speed
	go run ./loadtest read
	@mkdir -p $(dir $(BENCH_OUT))
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count=10 ./... | tee $(BENCH_OUT)

.PHONY: bench-smoke
bench-smoke: deps build ## every benchmark and measurement once, small, to see that it runs
	go run ./loadtest speed -events 50000 -users 5000
	go run ./loadtest read -events 20000 -users 5000 -rounds 1 -round 200ms
	go test -run '^$$' -bench . -benchtime=1x ./...

.PHONY: fuzz
fuzz: deps ## each fuzz target for FUZZTIME (30s)
	@grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed -E 's|^(.*)/[^/]*:func (.*)$$|\1 \2|' | sort | while read -r dir name; do \
		echo "fuzz $$dir $$name"; \
		go test "$$dir" -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME); \
	done

.PHONY: deps
deps: ## install what is missing: redis-server, the ClickHouse library
	@tools/deps.sh

.PHONY: clean
clean: ## remove what the other targets built
	rm -rf bin dist
