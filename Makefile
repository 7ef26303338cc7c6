# make help lists the targets. Each one makes the virtual environment that it needs.
PYTHON ?= python3
# == takes a build for the CPU before others, where pip has been told of one; elsewhere it comes with CUDA.
TORCH ?= torch==2.13.0
OLDEST ?= python3.11
BIN := .venv/bin
NNLITE = $(BIN)/nnlite
SETTINGS := setup.cfg pyproject.toml Makefile

.PHONY: help demo test annotated exercise coverage mutants site tour test-browser gpu test-gpu test-torch test-lowest test-python lint wheel audit-packages fuzz lines idea cupy-names bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# One thread gives the same figures on any number of cores, and waits for no other program.
demo: export OPENBLAS_NUM_THREADS = 1
demo: .venv/nnlite ## train two models on the embedded digits, attack them, draw two pictures
	$(NNLITE) train --overwrite
	$(NNLITE) train --reg dgl1 --lam 0.01 --phi 0.1 --overwrite
	$(NNLITE) attack --adversary rect --plot demo/accuracy.png --images demo/digits.png

test: .venv/test ## run all tests, those of the documentation included, in a process for each core
	$(BIN)/python -m pytest -n logical --dist worksteal

exercise: .venv/nnlite ## say whether an exercise of docs/exercises.md is solved: make exercise N=3
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python docs/exercises/check.py $(N)

coverage: .venv/test ## run all tests and list the lines and branches that none reaches; below 95 % it fails
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

mutants: .venv/test ## change the engine in each place and see whether a test fails; takes hours
	$(BIN)/pip install --quiet --no-compile --editable ".[test,mutation]"
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -W ignore::SyntaxWarning tests/tools/mutants.py

# Warnings are errors. Node comes from the package index, like everything else.
site: .venv/site build/katex ## build the site into build/site, where it is read without a network, and check its links
	rm -rf build/site
	$(BIN)/sphinx-build -W --keep-going --quiet -c docs/site docs build/site
	NNLITE_SITE=build/site $(BIN)/python -m pytest -q tests/test_site.py tests/test_tour.py

tour: .venv/site ## run the notebook of the docs and write its outputs anew
	$(BIN)/python tests/tools/tour.py

test-browser: .venv/test ## run the tests of the explorer's page in Chromium, which Debian has with its driver
	$(BIN)/pip install --quiet --no-compile --editable ".[test,browser]"
	$(BIN)/python -m pytest -m browser tests/evaluation

# The tests among the rest; ask for single parts with: make gpu PARTS="step models".
gpu: .venv/test ## measure all there is on a GPU in 8 minutes, without the network, into build/gpu/report.md
	$(BIN)/python tests/tools/gpu.py $(PARTS)

test-gpu: .venv/test ## run the tests that need CuPy and a GPU
	$(BIN)/python -m pytest -m gpu

# Not in .venv: torch is a hundred times as large as nnlite. torchattacks asks for a library of HTTP of 2020, for nothing.
test-torch: ## run the tests that need PyTorch, onnxruntime and the attacks of others, in an environment of their own
	$(PYTHON) -m venv build/torch
	build/torch/bin/pip install --quiet --no-compile --editable ".[test-torch]" "$(TORCH)"
	build/torch/bin/pip install --quiet --no-compile --no-deps "torchattacks==3.5.1"
	OPENBLAS_NUM_THREADS=1 build/torch/bin/python -m pytest tests/interop/test_interop_torch.py \
		tests/interop/test_interop_onnx.py tests/test_docs.py -k "torch or onnx or ecosystem"

test-lowest: ## run the tests with Python 3.11 and the lower bounds in setup.cfg
	$(OLDEST) -m venv --clear build/lowest
	sed -nE 's/^    ([a-z][a-z0-9-]*)>=/\1==/p' setup.cfg > build/lowest/bounds.txt
	build/lowest/bin/pip install --quiet --no-compile --constraint build/lowest/bounds.txt --editable ".[test]"
	build/lowest/bin/python -m pytest -m "not once" -o filterwarnings=  # old libraries warn about newer ones below them

# What depends on Python most, and little on other libraries; another choice: make test-python TESTS=tests
TESTS = $(filter-out tests/test_docs.py tests/test_site.py tests/test_tour.py,$(wildcard tests/test_*.py)) tests/storage
test-python: ## run the tests of the engine and of files with another Python: make test-python PYTHON=python3.14
	$(PYTHON) -m venv --clear build/python
	build/python/bin/pip install --quiet --no-compile --editable ".[test]"
	OPENBLAS_NUM_THREADS=1 build/python/bin/python -m pytest -m "not once" $(TESTS)

lint: .venv/lint ## check style, docstrings, spelling, types, and the commands and links in the docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	rm -rf build/lint && $(BIN)/pip install --quiet --no-deps --target build/lint .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_docs.py -k "not run"

# Not in the clone, whose nnlite/ would be imported; -o: the demo needs no .venv/nnlite there.
wheel: .venv/bin/python ## build a wheel in dist/, and run the demo with it in an empty environment, outside the clone
	rm -rf dist build/lib
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	place=$$(mktemp -d) && trap "rm -rf $$place" EXIT && $(PYTHON) -m venv $$place/venv && \
	$$place/venv/bin/pip install --quiet --no-compile dist/*.whl && mkdir $$place/home && cd $$place/home && \
	unset PYTHONPATH NNLITE_DATA XDG_CACHE_HOME && export HOME=$$PWD && ../venv/bin/python -m nnlite --version && \
	$(MAKE) --file $(CURDIR)/Makefile -o .venv/nnlite demo NNLITE=../venv/bin/nnlite

audit-packages: .venv/test ## ask whether a weakness is known of a package that the tests use; needs the network
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet pip-audit
	$(BIN)/pip freeze --exclude-editable > build/audit/packages.txt
	build/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement build/audit/packages.txt

fuzz: .venv/bin/python ## feed 100,000 hostile inputs to each reader of files; takes an hour
	$(BIN)/pip install --quiet --no-compile --editable ".[fuzz]"
	for reader in idx unpacked rotated attack weights run checkpoint grid audit plan scores report csv npz \
		estimator outcomes; do \
		$(BIN)/python tests/tools/fuzz $$reader --inputs 100000 || exit 1; done

lines: .venv/nnlite ## after a change to the engine: its sizes into README.md, its source into docs/annotated.md
	@$(PYTHON) tests/tools/code_lines.py
	@$(BIN)/python tests/tools/shown_source.py docs/annotated.md

annotated: .venv/test ## run the annotated paper, docs/annotated.md, and compare it with the list of sentences
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/test_annotated.py \
		"tests/test_docs.py::test_code_in_the_docs_runs[annotated.md]"

idea: .venv/nnlite ## draw the README's diagram of one step of DataGrad
	OPENBLAS_NUM_THREADS=1 $(BIN)/python docs/images/idea.py

cupy-names: ## ask CuPy, without a GPU, whether it has what nnlite calls, with the keywords used
	$(PYTHON) -m venv build/cupy
	build/cupy/bin/pip install --quiet "$$(grep -o 'cupy-.*' setup.cfg)"
	build/cupy/bin/python tests/tools/cupy_names.py

bench: .venv/nnlite ## time training steps beside their own matrix products
	$(BIN)/nnlite bench step --reg none
	$(BIN)/nnlite bench step --reg dgl1

clean: ## delete the virtual environment, caches, and what the demo made
	rm -rf .venv build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nnlite needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

.venv/nnlite: .venv/bin/python $(SETTINGS)
	$(BIN)/pip install --quiet --no-compile --editable .
	@touch $@

.venv/site: .venv/test
	$(BIN)/pip install --quiet --no-compile --editable ".[test,site]"
	@touch $@

build/katex: .venv/site
	$(BIN)/npm install --silent --no-audit --no-fund --prefix $@ katex@0.16.22
	@touch $@

.venv/test .venv/lint: .venv/nnlite $(SETTINGS)
	$(BIN)/pip install --quiet --no-compile --editable ".[test,lint]"
	@touch .venv/test .venv/lint
