# Two commands to know: `make demo` and `make test`. Both set up what they need, and are quick the second time.
# They want Python 3.11 or newer, make, and a package index (pip's own settings choose it). Nothing else.

VENV ?= .venv
BUILD := build
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A shim may be on the path for a Python that is not installed, so each candidate is asked, not looked up.
PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3 python, \
            $(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))

# What is installed is a function of pyproject.toml's content: a checkout changes times, not content.
KEY := $(firstword $(shell cksum < pyproject.toml))

.PHONY: help demo lab test check bench conformance-ray docs clean browser
.DELETE_ON_ERROR:

help:
	@echo "make demo    run the quickstart notebook on this machine, cell by cell; writes $(BUILD)/quickstart.html"
	@echo "make lab     open the notebooks in JupyterLab"
	@echo "make test    everything the tests need, then the tests"
	@echo "make check   format, lint, types, import directions, documents in step with the code"
	@echo "make bench   nbray and its peers side by side"
	@echo "make conformance-ray   the conformance tests against the real Ray, to see where the two differ"
	@echo "make docs    write the generated parts of docs/ again"
	@echo "make clean   remove what these targets made, $(VENV) included"

demo: $(VENV)/.nbray-demo-$(KEY)
	$(BIN)/python notebooks/run.py notebooks/01-quickstart.ipynb --html $(BUILD)/quickstart.html

lab: $(VENV)/.nbray-lab-$(KEY)
	$(BIN)/jupyter lab --notebook-dir=notebooks

# One suite, once: the checks of `make check` that are tests (structure, documents) run here too.
test: $(VENV)/.nbray-test-$(KEY) browser
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else # a browser, JupyterLab and kernels want the machine for themselves; the rest mostly waits for processes
	$(BIN)/python -m pytest tests/browser
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/browser
endif

check: $(VENV)/.nbray-test-$(KEY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check
	$(BIN)/python -m pytest -q tests/test_structure.py

bench: $(VENV)/.nbray-bench-$(KEY)
	$(BIN)/python -m benchmarks

# The same tests against the real Ray: what fails here is in docs/differences.md with its reason, or is a bug of ours.
conformance-ray: $(VENV)/.nbray-test-$(KEY) $(VENV)/.nbray-bench-$(KEY)
	PATH="$(abspath $(BIN)):$$PATH" CONFORMANCE_SUBJECT=ray RAY_USAGE_STATS_ENABLED=0 $(BIN)/python -m pytest -W default tests/conformance $(ARGS)

docs: $(VENV)/.nbray-test-$(KEY)
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(BUILD) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis $(VENV)

# The name after `.nbray-` is an extra of pyproject.toml. A new key leaves the stamps of the old one behind as litter: swept.
$(VENV)/.nbray-%-$(KEY): | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@rm -f $(VENV)/.nbray-$*-*
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "nbray needs Python 3.11 or newer, and none of python3.13, python3.12, python3.11, python3 is." \
	  "Install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment." \
	  "On Debian and Ubuntu its module is a package of its own: apt-get install python3-venv" >&2; exit 1; }

# The browser tests use the system's Chromium. Without one they skip and say so, and CI does not accept a skip.
browser:
	@for each in "$$NBRAY_BROWSER" chromium chromium-browser google-chrome; do \
	  command -v "$$each" >/dev/null && exit 0; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; \
	else \
	  echo "No Chromium here: the browser tests will be skipped. Install one, or set NBRAY_BROWSER=/path/to/chromium." >&2; \
	fi
