# Two commands do everything: make demo, make test. Each installs or builds what it lacks and says what it does.

# The same flags and the same cgo setting everywhere: anything else compiles the control plane a second time.
export GOFLAGS := -trimpath -buildvcs=false
export CGO_ENABLED := 0

version := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
ldflags := -s -w -X github.com/flakeship/flakeship/internal/action.Version=$(version)
actions := nix-cache-check nix-build-images push-images deploy-manifests
# All but the program that links the control plane: a linter of it, and go test runs one, looks through all of Kubernetes.
e2e_packages := go list ./... | grep -v '/e2e/cmd/services$$'

# What runs Nix, and is tested with several versions of it.
nix_packages := ./internal/nix ./cmd/nix-cache-check ./cmd/nix-build-images

.PHONY: help demo test unit nix-versions e2e lint generate build bench fuzz dist release verify-dist clean

help:
	@echo 'make demo      run the whole pipeline on an example monorepo, with real services'
	@echo 'make test      lint, unit tests, end-to-end tests'
	@echo 'make unit      the quick tests alone'
	@echo 'make nix-versions  those of them that run Nix, with newer versions of it'
	@echo 'make build     the four binaries, in bin/'
	@echo 'make generate  action.yml files, README tables, docs/handoff.md'
	@echo 'make bench     measure against the stock tools'
	@echo 'make fuzz      each fuzz target for ten seconds'
	@echo 'make dist VERSION=v0.1.0         the binaries of a release, in dist/'
	@echo 'make release VERSION=v0.1.0      a release commit and its tag, here; nothing is pushed'
	@echo 'make verify-dist VERSION=v0.1.0  build a tag again and compare'

demo:
	@e2e/install.sh demo
	@cd e2e && go run ./cmd/demo

test: lint unit nix-versions e2e

unit:
	@e2e/install.sh test
	@# -count=1: Go's test cache does not know of the programs and files that tests build and run.
	go test -count=1 -timeout 20m ./...
	cd tools && go test -count=1 -timeout 20m ./...

nix-versions:
	@e2e/install.sh test
	go run ./internal/testenv/nixversions go test -count=1 -timeout 20m $(nix_packages)

e2e:
	@e2e/install.sh test
	@cd e2e && go run ./cmd/build
	cd e2e && go test -count=1 -timeout 20m $$($(e2e_packages))
	cd e2e/kstatus && go test -count=1 ./...

lint:
	@e2e/install.sh test
	@test -z "$$(gofmt -l .)" || { echo 'gofmt is not happy with:'; gofmt -l .; exit 1; }
	go vet ./...
	@# go vet compiles what it looks at but says nothing for minutes: the build before it shows progress.
	@cd e2e && go run ./cmd/build >/dev/null
	cd e2e && go vet $$($(e2e_packages))
	go tool -modfile=tools/go.mod staticcheck ./...
	cd tools && go vet ./... && go tool staticcheck ./...
	cd e2e && go tool -modfile=../tools/go.mod staticcheck $$($(e2e_packages))
	go tool -modfile=tools/go.mod actionlint -config-file .github/actionlint.yaml \
	  .gitea/workflows/*.yaml .github/workflows/*.yaml examples/monorepo/.gitea/workflows/* \
	  examples/monorepo/.github/workflows/* e2e/testdata/monorepo/.gitea/workflows/* \
	  e2e/pipeline/testdata/*.yaml
	@diff -r .gitea/workflows .github/workflows # one project on two forges: the same jobs
	nix/vendor-hash.sh --check

generate:
	FLAKESHIP_GENERATE=1 go test ./internal/handoff -run Documented
	FLAKESHIP_GENERATE=1 go test ./cmd/... -run ActionYAML
	FLAKESHIP_GENERATE=1 go test ./actions/ -run RootAction

build:
	@mkdir -p bin
	go build -ldflags '$(ldflags)' -o bin/ $(addprefix ./cmd/,$(actions))

# Each prints ours and the stock tool's times on the same work. They want an idle machine.
bench:
	@e2e/install.sh test
	@for b in startup eval check build copy push; do echo "== $$b"; go run ./bench/$$b || exit 1; echo; done
	@cd e2e && for b in unchanged deploy; do echo "== $$b"; go run ./bench/$$b || exit 1; echo; done

fuzz:
	@go list ./... | while read -r package; do \
	  for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
	    echo "$$package $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime 10s $$package || exit 1; \
	  done; done

# VERSION is missing when release says how it is used.
dist:
	@cd tools && go run ./release dist '$(VERSION)' ../dist

release:
	@cd tools && go run ./release tag '$(VERSION)'

verify-dist:
	@cd tools && go run ./release verify '$(VERSION)'

clean:
	rm -rf bin dist .cache .demo
