# What a newcomer needs is `make test`; everything else is a part of it, or a tool for the work on Baton.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: build setup test lint generate check-generated unit unit-dpdk asan judge-selftest fmt clean

LINT := go tool -modfile=.ci/tools/go.mod golangci-lint

build: ## the programs, into bin/
	go build -tags dpdk -o bin/ ./cmd/baton
	CGO_ENABLED=0 go build -o bin/ ./cmd/baton-target ./cmd/batonctl

setup: ## install the Debian packages that are missing
	scripts/deps.sh

test: setup lint check-generated unit unit-dpdk asan judge-selftest build ## everything that gates a change

lint:
	test -z "$$(gofmt -l $$(git ls-files '*.go'))"
	clang-format --dry-run --Werror $$(git ls-files '*.c' '*.h')
	$(LINT) run

generate: ## protobuf and BPF objects
	go generate ./...

check-generated: generate
	git diff --exit-code -- '*.pb.go' '*_bpfel.go' '*_bpfel.o' '*_bpfeb.go' '*_bpfeb.o'

unit: ## without DPDK: the same data path on an in-memory port
	go test -race ./...

unit-dpdk: ## with DPDK ports
	go test -race -tags dpdk ./cgo ./fastpath ./cmd/baton

asan: ## the C of the data path under AddressSanitizer
	go test -asan ./cgo ./fastpath

judge-selftest: ## one built capture per rule that must fail under its name
	go test -run Selftest -v ./bench/judge

fmt:
	gofmt -w $$(git ls-files '*.go')
	clang-format -i $$(git ls-files '*.c' '*.h')

clean:
	rm -rf bin
