# The commands of a checkout. `make setup` needs only Python 3.11, 3.12 or 3.13, git and make.
SUPPORTED := 13 12 11
# The newest of them that starts: version managers put commands on the PATH that only say what to do.
PYTHON ?= $(or $(shell for minor in $(SUPPORTED); do \
  python3.$$minor -c '' 2>/dev/null && echo python3.$$minor && break; done),$(error \
  no Python 3.11, 3.12 or 3.13 was found; install one of them, or name it with PYTHON=...))
BIN := .venv/bin
VENV ?= .venv
PROCESSES ?= 2
SECONDS ?= 7200
# Hundreds of short processes import the same modules: compiled anew in each, they take a tenth of the suite's time.
unexport PYTHONDONTWRITEBYTECODE
comma := ,
INSTALL := pip install --quiet --disable-pip-version-check -c constraints.txt

# PyTorch's own index has builds without CUDA, 2.14.1+cpu for 2.14.1, which pip prefers. PyPI's builds for x86 have CUDA.
TORCH_INDEX ?= $(if $(filter cpu,$(VARIANT)),https://download.pytorch.org/whl/cpu)
ENGINE ?= $(or $(shell command -v docker || command -v podman),$(error \
  neither docker nor podman was found; install one of them, or name the program with ENGINE=...))

.PHONY: help setup runtime image hashes demo site test test-all test-slow test-long test-faults soak fuzz bench lint format docs dist clean

help:
	@echo "make demo    label a bucket of generated street scenes, end to end (about five minutes)"
	@echo "make site    Prefect, Ray and S3 on this machine, with sample images and a schedule, until Ctrl-C"
	@echo "make test    every promise, on real parts (a quarter of an hour on two cores)"
	@echo "make test-slow  what takes long and is proved by another test, too: whole sites, kills of whole trainings"
	@echo "make test-all  both, and what is long by nature: random kills, many hosts, every page's commands"
	@echo "make test-faults  kill actors, codec workers, drivers and nodes at 100 random moments each (an hour)"
	@echo "make soak    jobs on a bad day: keys of 65 s, 1 % of requests failing, restarts, killed drivers (two hours; SECONDS=300)"
	@echo "make fuzz    damaged images, models and lists for their readers, for a minute"
	@echo "make bench   run the benchmarks and put their tables into docs/performance.md (half an hour, idle)"
	@echo "make lint    ruff, mypy and the import rule"
	@echo "make format  let ruff format the code"
	@echo "make docs    write docs/api/ and docs/cli.md from the code"
	@echo "make dist    write the wheel and the source archive of this version to dist/"
	@echo "make setup   make .venv with everything that the others need"
	@echo "make runtime VENV=DIR  install into DIR what runs in production; container images are made with it"
	@echo "make image VARIANT=cpu|cuda  build the container image fcn-pipeline:VARIANT with docker or podman"
	@echo "make hashes  write requirements-hashed.txt: the files that runtime would install here, and their hashes"
	@echo "make clean   remove .venv, caches and the output of demo and site"

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m $(INSTALL) -e '.[test,lint]'
	@touch $@

# What runs in production, without the tests' packages: deploy/docker/Dockerfile makes its images with this. VARIANT=cpu
# takes PyTorch without CUDA.
runtime: INSTALL += $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
runtime:
	$(PYTHON) -m venv $(VENV)
	$(if $(HASHES),$(VENV)/bin/python -m $(INSTALL) --require-hashes -r $(HASHES))
	$(VENV)/bin/python -m $(INSTALL) $(if $(HASHES),--no-deps --no-build-isolation) '.[onnx,query,openvino,kubernetes,mlflow]'

# BASE=, TORCH_INDEX=, PIP_CONF=FILE and CERTIFICATES=FILE are for sites with a mirror: docs/deploy.md. OPTIONS go to the
# engine. Podman's own image format has no health checks.
image: VARIANT := $(or $(VARIANT),cpu)
image:
	DOCKER_BUILDKIT=1 $(ENGINE) build $(if $(findstring podman,$(ENGINE)),--format docker) \
	  --file deploy/docker/Dockerfile --tag fcn-pipeline:$(VARIANT) --build-arg VARIANT=$(VARIANT) \
	  $(if $(BASE),--build-arg PYTHON_IMAGE=$(BASE)) --build-arg TORCH_INDEX=$(TORCH_INDEX) \
	  $(if $(PIP_CONF),--secret id=pip.conf$(comma)src=$(PIP_CONF)) \
	  $(if $(CERTIFICATES),--secret id=certificates$(comma)src=$(CERTIFICATES)) $(OPTIONS) .

# What `runtime` would install on a machine like this one, each file with its hash, for HASHES=requirements-hashed.txt.
hashes: setup
	$(BIN)/python -m $(INSTALL) --dry-run --ignore-installed --report pip-report.json \
	  '.[onnx,query,openvino,kubernetes,mlflow]' 'setuptools>=77'
	$(BIN)/python deploy/docker/hash_requirements.py < pip-report.json > requirements-hashed.txt
	rm pip-report.json

demo: setup
	@$(BIN)/python -m flows.demo

# OPTIONS="--s3-port 9100": `python -m deploy.local --help` has them all.
site: setup
	@$(BIN)/python -m deploy.local $(OPTIONS)

# Two processes, each with a Ray, a folder for Rays and servers of its own, that its test files share. ORDER=random draws the order of files
# and tests anew; the seed stands at the top of the output.
PYTEST = $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder \
  $(if $(filter random,$(ORDER)),,-p no:randomly)

test: setup
	$(PYTEST) -m 'not long and not slow' $(OPTIONS)

test-slow: setup
	$(PYTEST) -m 'slow and not long' $(OPTIONS)

test-long: setup
	$(PYTEST) -m long $(OPTIONS)

test-all: test test-slow test-long

test-faults: setup
	FCN_FAULT_SEEDS=$${FCN_FAULT_SEEDS:-100} $(BIN)/python -m pytest tests/faults

# Two hours; SECONDS=300 for less. Not part of test-all, for its length.
soak: setup
	$(BIN)/python -m tests.soak --seconds $(SECONDS)

# With a seed, so that a change is judged by what it changes; without one, every call tries other inputs.
fuzz: setup
	$(BIN)/python -m tests.fuzz.run --seconds 60 --seed 1

# OPTIONS="predictor scaling": only these.
bench: setup
	$(BIN)/python benchmarks/write_tables.py $(OPTIONS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/python docs/make_api.py

dist: setup
	rm -rf build dist
	$(BIN)/python -m build --no-isolation .

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache demo-output site *.egg-info
