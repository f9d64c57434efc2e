# `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup up test bench lint format istio-schema istiod lock images kind kind-down compose compose-down

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements/dev.txt pyproject.toml
	@echo "==> Creating $(VENV) and installing the locked dependencies (about a minute the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "The venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(STAMP) ## Install the locked dependencies into .venv

up: $(STAMP) ## Run the guestbook on http://localhost:8080 (Ctrl-C stops it)
	@exec $(BIN)/guestbook up

test: $(STAMP) ## Run the tests (everything this machine can run)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

bench: $(STAMP) ## Measure speed, start and memory (writes bench.json; AREAS="message ui" for some)
	@$(BIN)/python -m bench $(AREAS)

lint: $(STAMP) ## Check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	@$(BIN)/python -m scripts.docstrings

format: $(STAMP) ## Format the code
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

istio-schema: $(STAMP) ## Write the types of Istio's kinds from its schema (VERSION=x takes another)
	@$(BIN)/python -m scripts.istio_schema $(VERSION)

istiod: $(STAMP) ## Record what istiod makes of the tests' manifests (needs Go; docs/istiod.md)
	@command -v go > /dev/null || { echo "Go is missing: https://go.dev/doc/install" >&2; exit 1; }
	@echo "==> Building istiod's packages (a quarter of an hour the first time, a minute later)"
	@go build -C scripts/istiod -o $(abspath $(BIN))/istiod .
	@$(BIN)/python -m tests.istiod.record $(BIN)/istiod
	@echo "==> Asking for verdicts"
	@$(BIN)/python -m scripts.istiod_verdicts $(BIN)/istiod
	@$(BIN)/python -m tests.istiod.analyses $(BIN)/istiod

images: ## Build the images (REGISTRY=, TAG=, PLATFORMS=, PUSH=1; see docs/images.md)
	@REGISTRY='$(REGISTRY)' TAG='$(TAG)' PLATFORMS='$(PLATFORMS)' PUSH='$(PUSH)' scripts/images.sh

compose: ## Build and run the guestbook with Docker Compose on http://localhost:8080
	@. scripts/build-info.sh \
		&& echo "==> The guestbook will be on http://localhost:$${GUESTBOOK_PORT:-8080} (Ctrl-C stops it)" \
		&& exec docker compose up

compose-down: ## Stop Compose, profiles included, and remove its containers; the messages stay
	docker compose --profile '*' down

kind: ## Run the guestbook with Istio on a local kind cluster, on http://localhost:8080
	@scripts/kind.sh up

kind-down: ## Remove the kind cluster
	@scripts/kind.sh down

# Options with "=" and a header in each file: Renovate reads the command there, and runs it again.
COMPILE := uv pip compile --quiet --universal --python-version=3.11 --generate-hashes pyproject.toml

lock: ## Update requirements/ from pyproject.toml (needs uv)
	$(COMPILE) --all-extras --group=dev --output-file=requirements/dev.txt
	for extra in ui message guestbook load lab; do \
		$(COMPILE) --extra=$$extra --constraint=requirements/dev.txt --output-file=requirements/$$extra.txt; \
	done
