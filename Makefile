# Everything that one does with this repository. Tools are pinned in
# tools/go.mod and run from there; nothing is installed globally.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-print-directory

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LISTEN   ?= 127.0.0.1:8080
DATA     ?= ./data
FUZZTIME ?= 60s
SLICES   ?= 1 2 3 4 5
MINUTES  ?= 25
CAMPAIGN ?=
BUGS     ?=
TOOL     := go tool -modfile=tools/go.mod

# The Debian packages that the targets below need beyond Go and make: a C
# compiler for the race detector, git for versions and the list of committed
# files, curl for what the pages tell to type, wrk as the load of the benchmark,
# the proxies that stand in front of the server, strace, what makes and mounts the disks
# whose power is cut.
PACKAGES := curl e2fsprogs gcc git haproxy libc6-dev mount nginx-light strace wrk

# The folders with tests for `make campaign` and `make test-system`.
CAMPAIGNS    = $(shell grep -rl --include='*_test.go' '^func TestSystemCampaign' . | xargs -r dirname | sort -u)
SYSTEM_TESTS = $(shell grep -rl --include='*_test.go' '^func TestSystem' . | xargs -r dirname | sort -u)

.PHONY: help deps build run test test-system campaign race check lint fmt tidy docs model linearize fuzz bugs bench calm cover vuln clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

deps: ## install what a bare Debian machine with Go lacks (as root)
	@if ! command -v dpkg-query >/dev/null; then \
		echo "Not a Debian system. Install the equivalents of: $(PACKAGES)" >&2; exit 1; \
	fi; \
	missing=(); \
	for package in $(PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing+=($$package); \
	done; \
	if [ $${#missing[@]} -eq 0 ]; then echo "Nothing is missing."; exit 0; fi; \
	if [ "$$(id -u)" -ne 0 ]; then \
		echo "Missing: $${missing[*]}. Run: sudo apt-get install $${missing[*]}" >&2; exit 1; \
	fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get -o Acquire::Retries=3 update -q; \
	apt-get -o Acquire::Retries=3 install -qy --no-install-recommends "$${missing[@]}"

build: ## build bin/sessiond
	CGO_ENABLED=0 go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/sessiond .

run: build ## start the server (LISTEN=127.0.0.1:8080, DATA=./data)
	bin/sessiond serve --listen $(LISTEN) --data $(DATA)

test: ## run all tests that need no privilege and little time
	go test -timeout 5m ./...

test-system: ## run the tests that need root or patience; what they lack fails them
	@[ -n "$(SYSTEM_TESTS)" ] || { echo "test-system: found no TestSystem…" >&2; exit 1; }
	go test -count=1 -v -p 1 -tags system -run '^TestSystem' -timeout 20m $(SYSTEM_TESTS)

campaign: ## run the long campaigns, or go on with them, for 25 minutes (MINUTES=25 CAMPAIGN=Crash for one of them)
	@CAMPAIGN_DIR=$(CURDIR)/.campaign CAMPAIGN_PAGE=$(CURDIR)/docs/reliability.md \
		CAMPAIGN_UNTIL=$$(($$(date +%s) + 60 * $(MINUTES))) \
		go test -count=1 -v -p 1 -tags system -run '^TestSystemCampaign$(CAMPAIGN)' -timeout 0 $(CAMPAIGNS) | \
		grep -v -e '^ *--- PASS' -e '^=== '; \
	exit $${PIPESTATUS[0]}

race: ## run the tests under the race detector
	CGO_ENABLED=1 go test -race -timeout 15m ./...

check: lint tidy build race ## all that must pass before a change lands, besides the tests

lint: ## run golangci-lint, formatting included
	$(TOOL) golangci-lint run ./...

fmt: ## format the code
	$(TOOL) golangci-lint fmt ./...

tidy: ## check that both go.mod files are tidy and their modules unaltered
	go mod tidy -diff
	go mod verify
	cd tools && go mod tidy -diff
	cd tools && go mod verify

docs: ## write the generated part of docs/
	go run . docs --out docs

model: ## compare the keeper with its model, 50,000 sequences and 500 on bolt (SLICES="1 2 3 4 5")
	@go test -c -o bin/model.test ./internal/session
	@for slice in $(SLICES); do \
		for run in 'Map 10000' 'MapOnBolt 100'; do \
			set -- $$run; \
			echo "== slice $$slice: TestKeeperBehavesLikeA$$1, $$2 sequences"; \
			bin/model.test -test.v -test.timeout 0 -test.run "^TestKeeperBehavesLikeA$$1\$$" \
				-rapid.checks $$2 -rapid.seed $$slice -rapid.nofailfile; \
		done; \
	done

linearize: ## check 50,000 concurrent operations for linearizability
	go test -count=1 -v -tags system -run '^TestSystemLinearizability$$' .

fuzz: ## run every fuzz target, one after the other (FUZZTIME=60s each)
	@targets=$$(go test -list '^Fuzz' ./... | \
		awk '/^Fuzz/ {name[++n] = $$1} /^ok/ {for (i = 1; i <= n; i++) print $$2, name[i]; n = 0}'); \
	[ -n "$$targets" ] || { echo "fuzz: found no Fuzz…" >&2; exit 1; }; \
	said=$$(mktemp); trap 'rm -f "$$said"' EXIT; \
	while read -r package name; do \
		echo "== $$package $$name"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s "$$package" </dev/null 2>&1 | tee "$$said" || \
			{ grep -q '^    context deadline exceeded$$' "$$said" && ! grep -q 'Failing input written' "$$said"; } || exit 1; \
	done <<<"$$targets"

bugs: ## put twelve mistakes into copies of the code, each of which must turn its test red (as root; BUGS="no-crc …" for some)
	@testdata/bugs/run $(BUGS)

bench: ## compare with bare fasthttp and bare bbolt, side by side (needs wrk)
	go test -count=1 -tags bench -run '^TestBench$$' -v -timeout 30m ./internal/bench

calm: ## measure validate beside listings, a purge and revocations (CALM_SESSIONS=20000 CALM_TOMBSTONES=20000 CALM_REVOKED=2000 CALM_ROUNDS=1 to try)
	go test -count=1 -tags bench -run '^TestCalm$$' -v -timeout 90m ./internal/bench

cover: ## measure which statements the tests reach (cover.out)
	go test -coverpkg=./... -coverprofile=cover.out ./...
	go tool cover -func=cover.out | tail -n 1

vuln: ## look for known vulnerabilities (VULNDB=file:///… where the database is not reachable)
	$(TOOL) govulncheck $(if $(VULNDB),-db $(VULNDB)) ./...

clean: ## remove what was built; data stays
	rm -rf bin cover.out
