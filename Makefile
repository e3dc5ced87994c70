# Everything works on a fresh machine with Python >= 3.11: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= demo
WORKERS ?= 2
GAMMAS ?= 100000
PROTONS ?= 100000
EXTRAS = dev,fast$(if $(filter 1,$(PEERS)),$(comma)peers)
comma = ,

.PHONY: demo demo-simulated demo-file test lint wheel clean help

help:
	@echo "make demo                         install, simulate, train forests, reconstruct, report in $(DEMO)/"
	@echo "make demo INPUT=file.simtel.zst   the same road with a sim_telarray file, as far as it goes"
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

demo: $(if $(value INPUT),demo-file,demo-simulated)

demo-simulated: $(VENV)/.installed-fast
	mkdir -p $(DEMO)
	$(BIN)/astri-gpu simulate production=gamma n_showers=$(GAMMAS) seed=1 output=$(DEMO)/gamma_dl0.zarr overwrite=true
	$(BIN)/astri-gpu simulate production=proton n_showers=$(PROTONS) seed=2 output=$(DEMO)/proton_dl0.zarr overwrite=true
	$(BIN)/astri-gpu simulate production=gamma view=diffuse n_showers=$(GAMMAS) seed=3 output=$(DEMO)/train_gamma_dl0.zarr overwrite=true
	$(BIN)/astri-gpu simulate production=proton n_showers=$(PROTONS) seed=4 output=$(DEMO)/train_proton_dl0.zarr overwrite=true
	$(BIN)/astri-gpu process $(DEMO)/gamma_dl0.zarr output=$(DEMO)/gamma_dl2.zarr images=true overwrite=true
	$(BIN)/astri-gpu process $(DEMO)/proton_dl0.zarr output=$(DEMO)/proton_dl2.zarr overwrite=true
	$(BIN)/astri-gpu process $(DEMO)/train_gamma_dl0.zarr $(DEMO)/train_proton_dl0.zarr output=$(DEMO)/train overwrite=true
	$(BIN)/astri-gpu train '$(DEMO)/train/*.zarr' output=$(DEMO)/forests.skops overwrite=true
	$(BIN)/astri-gpu reconstruct $(DEMO)/gamma_dl2.zarr model=$(DEMO)/forests.skops output=$(DEMO)/gamma_dl2b.zarr overwrite=true
	$(BIN)/astri-gpu reconstruct $(DEMO)/proton_dl2.zarr model=$(DEMO)/forests.skops output=$(DEMO)/proton_dl2b.zarr overwrite=true
	$(BIN)/astri-gpu info $(DEMO)/gamma_dl2b.zarr
	$(BIN)/astri-gpu report $(DEMO)/gamma_dl2b.zarr $(DEMO)/proton_dl2b.zarr output=$(DEMO)/report overwrite=true
	@echo "Look at $(DEMO)/report/report.html (the essence: $(DEMO)/report/overview.png)"

# A path given as INPUT may hold spaces and quotes, so it travels in the environment.
demo-file: export ASTRI_GPU_DEMO_INPUT = $(value INPUT)
demo-file:
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
