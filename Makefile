# Purser. `make run` and `make test` need Go, make and gcc, and see to Postgres themselves.

PROTOVALIDATE := github.com/bufbuild/protovalidate@v1.2.2
VERSION       := $(shell git describe --tags --always --dirty 2>/dev/null)
BUF           := go tool buf
STATICCHECK   := go tool staticcheck
FUZZTIME      := 10s

.PHONY: run test fuzz lint build tools postgres docs clean
.PHONY: proto proto-deps proto-lint proto-breaking proto-fresh proto-baseline

## run: everything in one process, on an embedded event store and a private Postgres
run: postgres build
	bin/purser dev

## test: every test there is
test: postgres proto-deps
	go test -race -timeout 15m ./...
	$(MAKE) fuzz

## fuzz: hostile input for the event store, a short while each; FUZZTIME=10m for longer
fuzz:
	@for target in .:FuzzAppend .:FuzzRead storage:FuzzRecord storage:FuzzReceiveBackup; do \
		go test -run '^$$' -fuzz "^$${target#*:}$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s ./services/eventstore/$${target%:*} || exit 1; \
	done

## lint: every static check there is
lint: proto-lint proto-breaking proto-fresh
	@unformatted=$$(gofmt -l cmd examples internal proto services); if [ -n "$$unformatted" ]; then echo "not gofmt-clean: $$unformatted"; exit 1; fi
	go mod tidy -diff
	go vet ./...
	$(STATICCHECK) ./...

## build: bin/purser
build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/purser ./cmd/purser

## tools: bin/grpcurl
tools:
	go build -o bin/grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl

postgres:
	@sh deploy/install-postgres.sh

## docs: the generated part of docs/
docs:
	go run ./cmd/purser reference configuration > docs/reference/configuration.md
	go run ./cmd/purser reference errors > docs/reference/errors.md

## proto: generate Go from the .proto files
proto: proto-deps
	$(BUF) generate proto

proto-deps: .proto-deps/buf/validate/validate.proto

# Fetched as a Go module because that is the one registry a build needs anyway.
.proto-deps/buf/validate/validate.proto:
	@mkdir -p $(@D)
	@cp "$$(go mod download -json $(PROTOVALIDATE) | sed -n 's/^.*"Dir": "\(.*\)".*$$/\1/p')/proto/protovalidate/buf/validate/validate.proto" $@
	@chmod u+w $@

proto-lint: proto-deps
	$(BUF) lint proto
	$(BUF) format --diff --exit-code proto

## proto-breaking: stored events and the API stay readable by what was released
proto-breaking: proto-deps
	$(BUF) breaking proto --against proto/baseline.binpb

proto-fresh: proto-deps
	@tmp=$$(mktemp -d) && trap 'rm -rf $$tmp' EXIT && $(BUF) generate proto -o $$tmp && \
		diff -r --exclude='*.proto' --exclude='*.binpb' --exclude=clients.go --exclude='*.json' proto $$tmp/proto || { echo 'generated code is stale: make proto'; exit 1; }

## proto-baseline: renew what proto-breaking compares with, at a release
proto-baseline: proto-deps
	$(BUF) build proto --exclude-source-info -o proto/baseline.binpb

clean:
	rm -rf bin .proto-deps
