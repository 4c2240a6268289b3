# The commands of the project. `make` or `make help` lists them.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# The marker file of the virtual environment. Its name contains the Python version, so that the
# environment is created again for another version.
ENV := $(VENV)/$(shell $(PYTHON) -c 'import sys; print("python%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none)
# Use uv if it is installed, because it is ten times as fast as pip. Both use the certificates of
# the system.
ifneq ($(shell command -v uv 2>/dev/null),)
INSTALL = UV_SYSTEM_CERTS=1 uv pip install --quiet --python $(PY)
else
INSTALL = $(PYTHON) -m pip --disable-pip-version-check --quiet --python $(PY) install
endif
# The number of test processes, or auto. To use a debugger, set JOBS=0: all tests then run in one
# process.
JOBS ?= auto
PYTEST = $(PY) -m pytest -n $(JOBS)
# Tests that must not run in parallel with others. They record audio in browsers, or send requests
# with deadlines to a slow upstream.
SERIAL_TESTS := tests/realtime tests/attacks/test_faulty_upstream.py
# Tests of an update from the last release. They deploy both versions, which takes minutes.
UPGRADE_TESTS := tests/integration/test_upgrade.py

CDK := aws-cdk@2.1148.1

.DEFAULT_GOAL := help
.PHONY: help run test test-all test-more soak bench clients docs docs-serve lint release synth bootstrap deploy destroy lock clean

help: ## list the commands
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(ENV).run ## start Steno on http://127.0.0.1:8000 (or PORT=...) and transcribe a sample
	@$(PY) -m infra.local

test: $(ENV).dev lint ## run lint and the main tests (with="-k cutter" selects tests)
	@$(PYTEST) $(with)

test-all: test test-more ## run the tests of both test and test-more

test-more: $(ENV).all ## run the other tests: deployed stack, browsers, attacks, exhaustive cases
	@$(PYTEST) tests/simulations tests/integration tests/browsers tests/examples tests/attacks $(addprefix --ignore=,$(SERIAL_TESTS) $(UPGRADE_TESTS)) $(with)
	@$(PYTEST) -m exhaustive
	@$(PY) -m pytest $(SERIAL_TESTS)

clients: $(ENV).all ## test with packages from npm and PyPI: API clients, the React example, Lighthouse
	@$(PYTEST) tests/clients

soak: $(ENV).all ## run the attack tests for an hour, write docs/about/reliability.md (with="-k crash" selects tests)
	@$(PY) -m pytest tests/attacks tests/simulations tests/steps/test_crash_points.py $(UPGRADE_TESTS) --soak -m "" $(with)

bench: $(ENV).bench ## run the benchmarks and write benchmarks/results.json and docs/about/benchmarks.png
	@$(PY) -m benchmarks

lint: $(ENV).dev ## run ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --quiet .
	@$(PY) -m mypy

synth: $(ENV).dev ## write the CloudFormation template to cdk.out
	@npx --yes $(CDK) synth --quiet $(with)

bootstrap: $(ENV).dev ## prepare your AWS account for CDK (once per account and region)
	@npx --yes $(CDK) bootstrap $(with)

destroy: $(ENV).dev ## delete the stack from your AWS account, except its data (with="-c name=...")
	@npx --yes $(CDK) destroy $(with)

docs: $(ENV).all ## write the documentation to site/
	@$(PY) -m infra.docs
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo 'Wrote site/index.html.'

docs-serve: $(ENV).all ## show the documentation on http://127.0.0.1:8001, and update it on changes
	@$(PY) -m infra.docs
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs serve --strict --dev-addr 127.0.0.1:8001

deploy: $(ENV).dev ## deploy the stack to your AWS account (with="-c auth=jwt ..." sets options)
	@npx --yes $(CDK) deploy $(with)

lock: ## update handler/requirements.lock after the requirements have changed (requires uv)
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command "make lock" -o handler/requirements.lock \
		handler/requirements.txt handler/requirements-worker.txt

release: ## test, commit, tag and archive a release (VERSION=1.2.3)
	@$(PYTHON) -m infra.release check "$(VERSION)"
	@$(MAKE) test-all
	@$(PYTEST) $(UPGRADE_TESTS)
	@$(PYTHON) -m infra.release write "$(VERSION)"

clean: ## delete the virtual environment, the bundles, cdk.out and site
	rm -rf $(VENV) .bundles cdk.out site

$(ENV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo '$(PYTHON) is not Python 3.11 or later. Choose another: PYTHON=python3.13 make ...'; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv --without-pip $(VENV)
	@touch $@

$(ENV).run: $(ENV) handler/requirements.txt infra/requirements.txt
	@echo 'Installing the packages for `make run` into $(VENV) ...'
	@$(INSTALL) pip -r infra/requirements.txt
	@touch $@

$(ENV).dev: $(ENV).run requirements.txt
	@echo 'Installing the packages for `make test` into $(VENV) ...'
	@$(INSTALL) -r requirements.txt
	@touch $@

$(ENV).all: $(ENV).dev tests/requirements.txt
	@echo 'Installing the packages for `make test-more` into $(VENV) ...'
	@$(INSTALL) -r tests/requirements.txt
	@touch $@

$(ENV).bench: $(ENV).dev benchmarks/requirements.txt
	@echo 'Installing the packages for `make bench` into $(VENV) ...'
	@$(INSTALL) -r benchmarks/requirements.txt
	@touch $@
