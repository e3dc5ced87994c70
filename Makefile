# Everything works on a fresh machine with Python >= 3.11: `make demo INPUT=...` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= demo
WORKERS ?= 2
EXTRAS = dev,fast$(if $(filter 1,$(PEERS)),$(comma)peers)
comma = ,

.PHONY: demo test lint wheel clean help

help:
	@echo "make demo INPUT=file.simtel.zst   install and run the main job into $(DEMO)/"
	@echo "make test                         install and run the tests (PEERS=1: beside ctapipe too)"
	@echo "make lint                         ruff"
	@echo "make wheel                        build the wheel into dist/"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is Python %d.%d: astri_gpu needs 3.11 or newer, use make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# One mark per set of extras, renewed when the dependencies change.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[$(subst +,$(comma),$*)]'
	@touch $@

# A path given as INPUT may hold spaces and quotes, so it travels in the environment.
demo: export ASTRI_GPU_DEMO_INPUT = $(value INPUT)
demo:
	@test -n "$$ASTRI_GPU_DEMO_INPUT" || { echo "make demo needs a sim_telarray file until the built-in simulation exists: make demo INPUT=file.simtel.zst" >&2; exit 2; }
	@test -r "$$ASTRI_GPU_DEMO_INPUT" || { echo "make demo: cannot read $$ASTRI_GPU_DEMO_INPUT" >&2; exit 2; }
	@$(MAKE) --no-print-directory $(VENV)/.installed-fast
	mkdir -p $(DEMO)
	$(BIN)/astri-gpu ingest input="$$ASTRI_GPU_DEMO_INPUT" output=$(DEMO)/dl0.zarr overwrite=true
	$(BIN)/astri-gpu process $(DEMO)/dl0.zarr output=$(DEMO)/dl2.zarr images=true overwrite=true
	$(BIN)/astri-gpu info $(DEMO)/dl2.zarr
	$(BIN)/astri-gpu display $(DEMO)/dl2.zarr output=$(DEMO)/event.png overwrite=true
	@echo "Look at $(DEMO)/event.png"

test: $(VENV)/.installed-$(subst $(comma),+,$(EXTRAS))
	$(BIN)/pytest -n $(WORKERS) $(PYTEST)

lint: $(VENV)/.installed-dev+fast
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

wheel: $(VENV)/.installed-dev+fast
	rm -rf dist
	$(BIN)/python -m build --wheel --sdist .

clean:
	rm -rf $(DEMO) dist build *.egg-info
