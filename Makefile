# Two commands, each from nothing: `make serve` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
CLIENTS := .venv-clients
CLAUDE_CODE := @anthropic-ai/claude-code@2.1.332
CODEX := @openai/codex@0.171.0
OPENCODE := opencode-ai@1.18.33
AGENTS := tests/agents plugins/anthropic_api/tests/test_anthropic_claude_code.py \
	plugins/responses_api/tests/test_responses_codex.py
NODE_CLIENTS := openai@7.57.0 ollama@0.6.4 \
	lmstudio-sdk-1@npm:@lmstudio/sdk@1.5.0 lmstudio-sdk-2@npm:@lmstudio/sdk@2.0.0
# What the newest of them asks for was never published.
NODE_OVERRIDES := {"private": true, "overrides": {"@lmstudio/lms-isomorphic": "0.4.6"}}
MANIFESTS := pyproject.toml install.txt constraints.txt $(wildcard plugins/*/pyproject.toml)

.PHONY: serve test lint demo

serve: $(VENV)/.installed demo
	$(BIN)/lmx serve

test: $(VENV)/.installed-test $(CLIENTS)/.installed demo
	$(BIN)/python scripts/embedding_model.py
	$(BIN)/python -m pytest -n 3 --dist loadfile
	$(CLIENTS)/bin/python -m pytest tests/contract
	@if $(BIN)/python scripts/loopback_only.py true; then \
		$(BIN)/python scripts/loopback_only.py $(BIN)/python -m pytest $(AGENTS); \
	else echo "The coding agents are not tried: no network namespace can be made here."; fi

lint: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

demo: $(VENV)/.installed
	$(BIN)/python scripts/demo_model.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(MANIFESTS) | $(VENV)/bin/python
	@echo "Installing; the first time builds llama.cpp, which takes some minutes ..."
	$(PIP) install -r install.txt -c constraints.txt
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install -e '.[test]' -c constraints.txt
	@touch $@

# Apart from the server's own packages, with which they would not agree on versions.
$(CLIENTS)/.installed: constraints-clients.txt Makefile
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/pip --disable-pip-version-check install --no-deps -r constraints-clients.txt
	command -v npm > /dev/null || { echo "npm is missing: it brings the Node clients that are tested"; exit 1; }
	echo '$(NODE_OVERRIDES)' > $(CLIENTS)/package.json
	npm install --prefix $(CLIENTS) --no-save --no-package-lock --no-audit --no-fund \
		$(NODE_CLIENTS) $(CLAUDE_CODE) $(CODEX) $(OPENCODE)
	node $(CLIENTS)/node_modules/@anthropic-ai/claude-code/install.cjs
	node $(CLIENTS)/node_modules/opencode-ai/postinstall.mjs
	@touch $@
