# The only entrance. `make` lists what there is.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# A virtual environment of the interpreter that PYTHON names; naming another one builds it anew.
ENV := $(VENV)/$(shell $(PYTHON) -c 'import sys; print("python%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none)
# uv where it is installed, because it is ten times as fast; pip otherwise. Both use the system's certificates.
ifneq ($(shell command -v uv 2>/dev/null),)
INSTALL = UV_SYSTEM_CERTS=1 uv pip install --quiet --python $(PY)
else
INSTALL = $(PYTHON) -m pip --disable-pip-version-check --quiet --python $(PY) install
endif
# How many processes run the tests: auto, or a number. 0 runs them in one process, for a debugger.
JOBS ?= auto
PYTEST = $(PY) -m pytest -n $(JOBS)
# What needs the machine for itself: browsers that record sound, and requests with deadlines before a slow engine.
ALONE := tests/realtime tests/attacks/test_faulty_upstream.py

CDK := aws-cdk@2.1148.1

.DEFAULT_GOAL := help
.PHONY: help run test test-all test-more soak bench lint synth bootstrap deploy destroy lock clean

help: ## this list
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(ENV).run ## set up, start Steno on http://127.0.0.1:8000 (PORT=...) and transcribe a sample
	@$(PY) -m infra.local

test: $(ENV).dev lint ## lint, type check, and test every behaviour once (with="-k cutter" for some)
	@$(PYTEST) $(with)

test-all: test test-more ## the same, and the deployed stack, browsers and attacks

# What `make test` leaves out.
test-more: $(ENV).all
	@$(PYTEST) tests/simulations tests/integration tests/browsers tests/attacks $(ALONE:%=--ignore=%) $(with)
	@$(PYTEST) -m exhaustive
	@$(PY) -m pytest $(ALONE)

soak: $(ENV).all ## attack it for an hour and write docs/reliability.md (with="-k crash" for some)
	@$(PY) -m pytest tests/attacks tests/simulations tests/steps/test_crash_points.py --soak -m "" $(with)

bench: $(ENV).bench ## measure Steno beside a tutorial's app: a table, benchmarks/results.json and a chart
	@$(PY) -m benchmarks

lint: $(ENV).dev ## ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --quiet .
	@$(PY) -m mypy

synth: $(ENV).dev ## the CloudFormation template, into cdk.out
	@npx --yes $(CDK) synth --quiet $(with)

bootstrap: $(ENV).dev ## prepare the AWS account of your credentials for CDK, once
	@npx --yes $(CDK) bootstrap

destroy: $(ENV).dev ## take the stack out of the account; bucket and table stay
	@npx --yes $(CDK) destroy

deploy: $(ENV).dev ## into the AWS account of your credentials (with="-c auth=jwt ...")
	@npx --yes $(CDK) deploy $(with)

lock: ## write the hashes of the deployed packages anew, after their requirements changed (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command "make lock" -o handler/requirements.lock \
		handler/requirements.txt handler/requirements-worker.txt

clean: ## remove what was set up
	rm -rf $(VENV) .bundles cdk.out

$(ENV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo 'Steno needs Python 3.11 or later, and $(PYTHON) is not: PYTHON=python3.13 make ...'; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv --without-pip $(VENV)
	@touch $@

$(ENV).run: $(ENV) handler/requirements.txt infra/requirements.txt
	@echo "Installing what Steno needs into $(VENV) ..."
	@$(INSTALL) pip -r infra/requirements.txt
	@touch $@

$(ENV).dev: $(ENV).run requirements.txt
	@echo "Installing what its tests need into $(VENV) ..."
	@$(INSTALL) -r requirements.txt
	@touch $@

$(ENV).all: $(ENV).dev tests/requirements.txt
	@echo "Installing what the other tests need into $(VENV) ..."
	@$(INSTALL) -r tests/requirements.txt
	@touch $@

$(ENV).bench: $(ENV).dev benchmarks/requirements.txt
	@echo "Installing what the benchmarks need into $(VENV) ..."
	@$(INSTALL) -r benchmarks/requirements.txt
	@touch $@
