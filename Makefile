# `make help` lists the targets. Everything is made inside of .venv/, build/, demo-data/ and lab-data/; only `make lab`
# needs root.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

NATIVE := $(sort $(wildcard native/*.c))
HEADERS := $(wildcard native/*.h tests/c/*.h)
C_TESTS := $(sort $(wildcard tests/c/test_*.c))
CAPTURES := $(sort $(wildcard pcaps/*.pcap ../shared/captures/*.pcap))

WARNINGS := -std=c11 -Wall -Wextra -Wno-unused-parameter
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY:

.PHONY: help demo lab test ctest proof lowest soak asan lint gate bench causes golden dashboards docs venv clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed ## set up, measure a bundled capture and print the summary
	@rm -rf demo-data
	@$(BIN)/vmsensor read pcaps/demo.pcap --store demo-data
	@echo
	@echo "The results are kept in demo-data/. Look at them again, or go on to your own traffic:"
	@echo "  $(BIN)/vmsensor show demo-data"
	@echo "  $(BIN)/vmsensor read FILE.pcap"
	@echo "  $(BIN)/vmsensor interfaces"
	@echo
	@echo "To see them in Grafana, on 1 January 2026, 00:00 to 00:02 (UTC), the time of this capture:"
	@echo "  docker run -d --network host influxdb:1.8        # or: apt-get install influxdb"
	@echo "  $(BIN)/vmsensor influx setup --influx-url http://127.0.0.1:8086 --retention 3650d"
	@echo "  $(BIN)/vmsensor push demo-data --influx-url http://127.0.0.1:8086"
	@echo "  $(BIN)/vmsensor grafana export grafana && docker run -d --network host -v \"\$$PWD/grafana:/etc/grafana/provisioning\" grafana/grafana"

lab: export LAB_SECONDS ?= 60
lab: export LAB_DATA ?= lab-data
lab: $(VENV)/installed ## as root: a small cloud on this machine, measured live for a minute (LAB_SECONDS), then removed
	@$(BIN)/python -m tests.cloud

# Most tests wait for a clock, a server or a packet. Files run side by side, more of them than there are processors; what
# needs the processors for itself (marker alone) comes after them. `pytest -q` by hand runs everything one by one.
# The program is started a thousand times: without compiled modules, kept apart from the sources, it takes half as long
# again.
one_by_one = env -u PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX=$(CURDIR)/build/pycache $(BIN)/pytest -q
side_by_side = $(one_by_one) --numprocesses $(1)

# Both parts run, also when the first has failures: whoever mends wants to see all of them.
both_parts = failed=0; $(call side_by_side,$(1)) -m "$(2) and not alone" || failed=1; \
	$(one_by_one) -m "$(2) and alone" || failed=1; exit $$failed

test: ctest $(VENV)/installed ## set up and run all tests, C tests included
	@$(call both_parts,4,not proof)

ctest: $(C_TESTS:tests/c/%.c=build/ctest/%) ## C unit tests
	@for test in $^; do $$test || exit 1; done

proof: $(VENV)/installed ## the long tests: known traffic, a minute at full rate, ten ordinary minutes without an event
	@$(call both_parts,2,proof)

lowest: build/lowest/installed ## the tests again, with the lowest release of each package that the sensor needs
	@$(call side_by_side,4,not proof and not alone)
lowest: private BIN := build/lowest/bin

soak: $(VENV)/installed ## as root: a quarter of an hour at half the best rate; memory stays flat, packets add up
	@$(BIN)/python -m tests.soak

asan: $(C_TESTS:tests/c/%.c=build/asan/%) build/asan/replay ## C tests and all captures under AddressSanitizer and UBSan
	@for test in $(filter-out %/replay,$^); do $$test || exit 1; done
	@build/asan/replay $(CAPTURES)

lint: $(VENV)/installed ## ruff, mypy and the C compiler's warnings
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --diff .
	@$(BIN)/mypy
	@$(CC) $(WARNINGS) -Werror -fsyntax-only -Inative $(NATIVE) $(wildcard tests/c/*.c)

gate: $(VENV)/installed ## instructions a packet, by callgrind: fails when it takes 5 % more than on record
	@$(BIN)/python -m tests.bench.instructions

bench: $(VENV)/installed build/nfstream/installed ## speed and memory, beside others; BENCH=growth: a part, BENCH=--update: the page
	@$(BIN)/python -m tests.bench $(BENCH)

causes: $(VENV)/installed ## what tshark and the sensor say of each TCP flow of all captures, and why they differ
	@$(BIN)/python -m tests.oracles.causes

golden: $(VENV)/installed ## rewrite the golden files from what the program prints now; look at the diff
	@$(BIN)/pytest -q tests/test_golden.py --update-golden

dashboards: $(VENV)/installed ## rewrite the Grafana dashboards from their code
	@$(BIN)/python -m dashboards

docs: $(VENV)/installed ## rewrite the generated parts of README.md and docs/
	@$(BIN)/python docs/generate.py

venv: $(VENV)/installed ## only set up .venv

clean: ## remove everything that these targets made
	@rm -rf $(VENV) build demo-data lab-data grafana *.egg-info sensor/_native.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find sensor native tests pcaps docs -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the virtual environment ---------------------------------------------------------------------------------------

# $(call need,TEST,MESSAGE): one clear line instead of what fails later without it.
need = @$(1) >/dev/null 2>&1 || { echo "make: $(2)" >&2; exit 1; }
include_path = $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))'

# What is installed depends on these. When only C has changed, the extension alone is built again, without a network.
DESCRIPTION := pyproject.toml setup.py sensor/__init__.py

$(VENV)/installed: $(DESCRIPTION) $(NATIVE) $(HEADERS) native/build.py
	$(if $(filter $(DESCRIPTION),$?),$(install),$(build_extension))
	@touch $@

define install
	$(call need,command -v $(PYTHON),no $(PYTHON) here; on Debian or Ubuntu: apt-get install python3 python3-venv python3-dev)
	$(call need,$(PYTHON) -c 'import sys; sys.exit(sys.hexversion < 0x30a0000)',$(PYTHON) is older than 3.10; name a newer one: make PYTHON=python3.11)
	$(call need,$(PYTHON) -c 'import venv; from ensurepip import version',Python cannot make virtual environments yet; on Debian or Ubuntu: apt-get install python3-venv)
	$(call need,command -v $(CC),no C compiler here; on Debian or Ubuntu: apt-get install build-essential python3-dev)
	$(call need,test -e "$$($(include_path))/Python.h",the Python headers are missing; on Debian or Ubuntu: apt-get install build-essential python3-dev)
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing vmsensor and its tools into $(VENV), about a minute the first time ..."
	@$(BIN)/pip install -qq --disable-pip-version-check --editable '.[test,lint,dashboards,prometheus]'
endef

# Another environment for the same checkout: pyproject.toml's lower bounds are what is installed.
build/lowest/installed: $(DESCRIPTION) tests/lowest.py $(VENV)/installed
	@echo "Installing the lowest releases into build/lowest ..."
	@$(PYTHON) -m venv build/lowest
	@$(VENV)/bin/python tests/lowest.py pyproject.toml > build/lowest/lowest.txt
	@build/lowest/bin/pip install -qq --disable-pip-version-check --constraint build/lowest/lowest.txt \
		--editable '.[test,dashboards,prometheus]'
	@touch $@

# A peer that `make bench` measures; it needs other packages than the sensor does. Without it, its rows say so.
build/nfstream/installed:
	@echo "Installing NFStream into build/nfstream ..."
	@$(PYTHON) -m venv build/nfstream && \
		build/nfstream/bin/pip install -qq --disable-pip-version-check 'nfstream>=6.6.0' && touch $@ || \
		{ rm -rf build/nfstream; echo "make: NFStream cannot be installed here; the benchmark goes on without it"; }

define build_extension
	@echo "Building the extension again ..."
	@$(BIN)/python setup.py --quiet build_ext --inplace
endef

# --- C programs ----------------------------------------------------------------------------------------------------

build/ctest/%.o: %.c $(HEADERS)
	@mkdir -p $(@D)
	@$(CC) $(WARNINGS) -O2 -g -Inative -c -o $@ $<

build/asan/%.o: %.c $(HEADERS)
	@mkdir -p $(@D)
	@$(CC) $(WARNINGS) $(SANITIZE) -O1 -g -Inative -c -o $@ $<

build/ctest/%: build/ctest/tests/c/%.o $(NATIVE:%.c=build/ctest/%.o)
	@$(CC) -pthread -o $@ $^

build/asan/%: build/asan/tests/c/%.o $(NATIVE:%.c=build/asan/%.o)
	@$(CC) $(SANITIZE) -pthread -o $@ $^
