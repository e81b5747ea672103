# Everything a newcomer needs: `make demo`, `make ui`, `make test`. Each installs what is missing first.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TEST_INSTALLED := $(VENV)/.installed-test
# Python to make .venv with; without it the first of these that has a right version.
PYTHON ?=
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3 python)
ON_WORKERS = $(if $(filter 1,$(WORKERS)),,-n $(or $(WORKERS),auto) --dist loadfile)
SCREENSHOTS_DIR ?= assets
# Models and data of the pictures, which show the paths; made for them, and removed afterwards.
SCREENSHOTS_WORLD ?= /srv/one-to-all

.DEFAULT_GOAL := help
.PHONY: help install demo ui studio fleet test test-fast explore lint format docs golden benchmark gpu pictures screenshots diagrams clean clean-data

help: ## list these targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# A .venv whose Python is gone (moved, upgraded away) or of another version is made again.
$(BIN)/python: infra/find_python.sh
	@set -e; python=$$(sh infra/find_python.sh $(PYTHONS)); \
	sh infra/find_python.sh $@ >/dev/null 2>&1 || rm -rf $(VENV); \
	test -x $@ || $$python -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt $(BIN)/python
	@echo "Installing the packages into $(VENV): 2 to 5 minutes, about 3 GB (more where torch comes with CUDA) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(TEST_INSTALLED): $(INSTALLED)
	@echo "Installing what the tests use ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

install: $(INSTALLED) ## create .venv and install the pinned packages; `make test` adds what tests need

demo: $(INSTALLED) ## make a clip with tiny models: the whole pipeline, in about a minute (AGAIN=1 redoes it; DRIVER=my-dance.mp4, REFERENCE=picture.png take your own)
	$(BIN)/python -m orchestration.demo $(if $(AGAIN),--again) $(if $(DRIVER),--driver "$(DRIVER)") $(if $(REFERENCE),--reference "$(REFERENCE)")

ui: $(INSTALLED) ## start the studio on http://127.0.0.1:3100 and the Dagster UI on http://127.0.0.1:3000 (STUDIO_PORT, DAGSTER_PORT)
	$(BIN)/python -m orchestration.local_ui

studio: $(INSTALLED) ## start the studio, the page of those who make clips, on http://127.0.0.1:3100 (STUDIO_PORT=3101)
	$(BIN)/python -m orchestration.studio

fleet: $(INSTALLED) ## start a fleet on this machine: Redis, UI, daemon, a CPU worker, one worker per GPU (WORKERS=N for another number)
	$(BIN)/python -m orchestration.fleet.local_fleet $(if $(WORKERS),--workers $(WORKERS)) $(if $(DAGSTER_PORT),--port $(DAGSTER_PORT))

test: $(TEST_INSTALLED) lint ## run lint and all tests, on all CPUs (WORKERS=1: one after the other)
	$(BIN)/python -m pytest $(ON_WORKERS)

test-fast: $(TEST_INSTALLED) ## run the fast unit and golden tests: about a minute and a half
	$(BIN)/python -m pytest tests/unit tests/golden -m "not slow and not browser and not s3" $(ON_WORKERS)

explore: $(TEST_INSTALLED) ## run the property tests with many new random examples (make test repeats the same ones)
	$(BIN)/python -m pytest $$(grep -rl '^from hypothesis' tests) --hypothesis-profile=explore --timeout=3600
	OUTAGE_SWEEP=1 $(BIN)/python -m pytest tests/integration/fleet/test_production_instance.py -k outage
	EXPLORE=1 $(BIN)/python -m pytest tests/unit/benchmarks/test_on_gpu.py -k scaled_down
	$(BIN)/python benchmarks/night.py --requests 40

golden: $(TEST_INSTALLED) ## compare the engine and the pose stage with test vectors (GOLDEN_DIR=/folder for others)
	$(BIN)/python -m pytest tests/golden

lint: $(TEST_INSTALLED) docs ## check style, types, import rules, declared dependencies and the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

# A quiet build would not fail: mkdocs counts only warnings that it prints. The variable silences a notice of the theme.
docs: $(TEST_INSTALLED) ## build the documentation as a site in build/site; a broken link or a page outside the navigation fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(TEST_INSTALLED) ## let ruff fix and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(TEST_INSTALLED) ## run all benchmarks that need no GPU; each prints ratios
	for script in $(filter-out benchmarks/on_gpu.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

gpu: $(TEST_INSTALLED) ## on a machine with a GPU: run the tests that need one, then measure everything (OUT=/folder, MINUTES=25)
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python benchmarks/on_gpu.py $(if $(OUT),--out $(OUT)) $(if $(MINUTES),--minutes $(MINUTES))

pictures: $(TEST_INSTALLED) ## draw the pictures of docs/requests.md: what each field does to the puppet
	$(BIN)/python assets/make_request_pictures.py

screenshots: $(TEST_INSTALLED) ## take the screenshots of README and docs in a browser, with a larger request
	SCREENSHOTS_DIR=$(SCREENSHOTS_DIR) SCREENSHOTS_WORLD=$(SCREENSHOTS_WORLD) \
		$(BIN)/python -m pytest tests/integration/orchestration/test_browser.py

diagrams: $(TEST_INSTALLED) ## draw the diagrams of README and docs
	$(BIN)/python assets/make_diagrams.py

clean: ## remove the caches of Python and of the checking tools; clips, weights and .venv stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-data: ## delete everything in data/: clips, inbox, history of runs, caches; weights and .venv stay
	find data -mindepth 1 -maxdepth 1 -not -name README.md -exec rm -rf {} +
