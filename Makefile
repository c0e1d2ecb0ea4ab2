# Every check of .ci/run, one at a time, and the long ones that it leaves out.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS  = -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# How long each fuzz target runs, and each soak test.
FUZZTIME ?= 1m
SOAKTIME ?= 30m

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/stent
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/stent ./cmd/stent

.PHONY: demo
demo: ## run the demo at http://127.0.0.1:4000
	go run ./cmd/stent demo

.PHONY: test
test: ## run all tests that need only Go
	go test ./...

.PHONY: race
race: ## run them under the race detector
	go test -race ./...

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME
	.ci/fuzz $(FUZZTIME)

.PHONY: bench
bench: ## run the benchmarks
	go test -run '^$$' -bench . -benchmem ./...

.PHONY: lint
lint: ## check format, vet and staticcheck
	.ci/run format vet staticcheck

.PHONY: e2e
e2e: ## run real clients and servers through the proxy
	.ci/run install e2e

.PHONY: image
image: ## build the container image and proxy a session through it
	.ci/run install image

.PHONY: soak
soak: ## run the soak tests for SOAKTIME each
	STENT_SOAK=$(SOAKTIME) go test -run '^TestSoak' -timeout 0 -v ./...

.PHONY: kills
kills: ## play the chat with phoenix.js and in a browser through fifty kills of its backend
	STENT_KILLS=50 go test -count=1 -v -run TestBrowser -timeout 0 ./cmd/chat
	cd proxy/e2e && STENT_E2E=1 STENT_KILLS=50 go test -count=1 -v -run 'TestChat$$' -timeout 0 .

.PHONY: compare
compare: ## measure against other proxies with the benchmark rig beside the repository
	.ci/compare $(COMPARE)

.PHONY: ci
ci: ## run all that has to pass before a change lands
	.ci/run
