# What a newcomer needs is `make test`; everything else is a part of it, or a tool for the work on Baton.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: build setup demo test lint generate check-generated unit unit-dpdk asan tsan fuzz test-migrate cover mutants peers judge-selftest c-apps go-apps e2e soak-reject bench-transfer bench-fastpath sim fmt clean

# Hugepages (2 MiB) that the demo and the scenarios reserve, and give back; 0 runs them without.
HUGEPAGES ?= 160
# Who continues connections at the demo's targets: kernel, userspace, or auto: the kernel where it can.
IMPORT ?= auto
ONLY ?=

# How long the data path is fuzzed, and what of it: all but DPDK's ports and the generators.
FUZZ_SECONDS ?= 60
FUZZED = $(filter-out %_dpdk.c cgo/gen.c cgo/source.c,$(wildcard cgo/*.c))

# The first seed of the simulation.
FROM = $(shell printf %d 0x$$(git rev-parse --short=8 HEAD 2>/dev/null || echo 1))

LINT := go tool -modfile=.ci/tools/go.mod golangci-lint

build: ## the programs, into bin/
	go build -tags dpdk -o bin/ ./cmd/baton
	CGO_ENABLED=0 go build -o bin/ ./cmd/baton-target ./cmd/batonctl

demo: setup build ## the main job on real traffic, judged
	go build -o bin/baton-demo ./bench/demo
	bin/baton-demo -hugepages $(HUGEPAGES) -import $(IMPORT)

setup: ## install the Debian packages that are missing
	scripts/deps.sh

test: setup lint check-generated unit unit-dpdk asan tsan fuzz test-migrate cover sim peers judge-selftest e2e ## everything that gates a change

lint:
	test -z "$$(gofmt -l $$(git ls-files '*.go'))"
	clang-format --dry-run --Werror $$(git ls-files '*.c' '*.h')
	$(LINT) run --allow-parallel-runners

generate: ## protobuf and BPF objects
	go generate ./...

check-generated: generate
	git diff --exit-code -- '*.pb.go' '*_bpfel.go' '*_bpfel.o' '*_bpfeb.go' '*_bpfeb.o'

unit: ## without DPDK: the same data path on an in-memory port
	go test -race ./...

unit-dpdk: ## with DPDK ports
	go test -race -tags dpdk ./cgo ./fastpath ./cmd/baton ./bench/pktgen

asan: ## the C of the data path under AddressSanitizer and UndefinedBehaviorSanitizer
	CGO_CFLAGS="-O1 -g -fsanitize=undefined -fno-sanitize-recover=undefined" CGO_LDFLAGS=-fsanitize=undefined \
		go test -asan ./cgo ./fastpath

fuzz: ## the C of the data path, by libFuzzer for FUZZ_SECONDS: scripts of frames, commands and time
	mkdir -p bin/fuzz-corpus
	clang-14 -std=gnu11 -O2 -g -Wall -Wextra -Werror -Icgo -D__SANITIZE_ADDRESS__ -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=undefined -o bin/fuzz-pipeline bench/fuzz/pipeline.c $(FUZZED) -lpthread
	ASAN_OPTIONS=malloc_context_size=4:quarantine_size_mb=16 bin/fuzz-pipeline -max_total_time=$(FUZZ_SECONDS) -max_len=1500 \
		-print_final_stats=1 -artifact_prefix=bin/ bin/fuzz-corpus bench/fuzz/corpus

tsan: ## what threads of the data path share, under ThreadSanitizer, without SIMD
	mkdir -p bin
	gcc -std=gnu11 -O1 -g -Wall -Wextra -Werror -Wno-tsan -fsanitize=thread -o bin/tsan cgo/testdata/tsan.c \
		$$(ls cgo/*.c | grep -v -e _dpdk -e /gen -e /source) -lpthread
	bin/tsan

test-migrate: ## the suite of the TCP core with a transfer after every event: export, octets, import
	go test -count=1 ./control/tcp -migrate

cover: ## statements of the connection's core that its own tests reach: at least 95 %
	set -o pipefail; go test -count=1 -cover ./control/tcp ./control/transfer | \
		awk '{ print } match($$0, /[0-9.]+%/) { n++; if (substr($$0, RSTART) + 0 < 95) bad = 1 } END { exit bad || n != 2 }'

mutants: ## plant bugs in the TCP core and the record: the unit tests have to find all, the simulation alone at least 8
	go run ./control/mutants
	go run ./control/mutants -tests ./control/sim -run TestSchedules -args "-seeds=300" -min 8

peers: ## the TCP core against gVisor's and the kernel's TCP, over bad links; half a minute
	cd control/peers && go test -count=1 ./...

judge-selftest: ## one built capture per rule that must fail under its name
	go test -run Selftest -v ./bench/judge

pktgen: ## packet generator and sink, for floods, throughput and latency over any DPDK port
	go build -tags dpdk -o bin/pktgen ./bench/pktgen

c-apps: bin/c-target bin/c-router ## the library for applications in C, and its examples

bin/c-%: control/app/c/%.c control/app/c/baton_app.c control/app/c/baton_app.h
	mkdir -p bin
	gcc -std=gnu11 -O2 -g -Wall -Wextra -Werror -fsanitize=address,undefined -o $@ $(filter %.c,$^) -ljson-c

go-apps: ## the examples of applications in Go
	CGO_ENABLED=0 go build -o bin/ ./control/app/examples/...

e2e: build pktgen c-apps go-apps ## scenarios in network namespaces, judged; ONLY=regex picks some
	go build -o bin/baton-demo ./bench/demo
	go build -o bin/baton-e2e ./bench/e2e
	timeout --signal=INT 1200 bin/baton-e2e -hugepages $(HUGEPAGES) $(AGAIN) -only '$(ONLY)'

soak-reject: build ## 100,000 connections, 30 % of whose offers are rejected at random, the same ones with the same SEED
	go build -o bin/baton-soak ./bench/soak
	timeout --signal=INT 600 bin/baton-soak -hugepages $(HUGEPAGES) $(if $(SEED),-seed $(SEED))

bench-transfer: build ## what a hand-over costs; results and machine into bench/results/transfer.json
	go build -o bin/baton-bench-transfer ./bench/transfer
	bin/baton-bench-transfer -hugepages $(HUGEPAGES)

sim: ## random schedules in virtual time, other ones for each commit: SEEDS=20000 of them, or SEED=n with its transcript
	go run ./control/sim/run $(if $(SEED),-seed $(SEED),-seeds $(or $(SEEDS),2000) -from $(FROM))

bench-fastpath: ## what a frame costs, and against rte_hash; results, machine and plot into bench/results/fastpath.*
	go build -tags dpdk -o bin/baton-bench-fastpath ./bench/fastpath
	bin/baton-bench-fastpath

fmt:
	gofmt -w $$(git ls-files '*.go')
	clang-format -i $$(git ls-files '*.c' '*.h')

clean:
	rm -rf bin
