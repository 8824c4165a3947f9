# make demo and make test set up .venv themselves; the second time they start at once.
PYTHON ?= python3
BIN := .venv/bin
# nbdev's commands are found by name, and its kernels must be those of .venv
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help demo test test-newest bench soak parity export outputs clean
help:
	@echo "make demo         recordings to a voice in a few minutes, offline, with the machine lost in the middle"
	@echo "make test         notebooks in step with the library, every notebook run, pytest, ruff"
	@echo "make test-newest  the same with the newest versions of everything (.venv-newest)"
	@echo "make bench        what a checkpoint, a resume, preparing 10 hours, a sentence, the panel, a voice's clients and a step cost, and what a step teaches (.bench/)"
	@echo "make soak         KILLS=300 SEED=1: train, kill and resume at random under a Drive that lies (about 2 s a kill)"
	@echo "make parity       a voice of FastSpeech2_HS by ESPnet itself and Coqui's HiFi-GAN (.venv-parity) and by Vaani, compared"
	@echo "make export       after changing a notebook: write vaani_lib and docs/modules.md from nbs/, clean the notebooks"
	@echo "make outputs      run the notebooks that people open and keep in them what they show, for GitHub"

demo: .venv/ready
	$(BIN)/vaani demo

test: .venv/ready-dev
	tests/run

bench: .venv/ready-dev
	$(BIN)/python tests/bench_resume.py .bench
	$(BIN)/python tests/bench_prepare.py .bench
	$(BIN)/python tests/bench_speech.py .bench
	$(BIN)/python tests/bench_panel.py .bench
	$(BIN)/python tests/bench_serve.py .bench
	$(BIN)/python tests/bench_learning.py .bench
	$(BIN)/python -c "from vaani_lib.bench_table import compare_all; compare_all('.bench')"

# One thread: a process that has several cannot be forked. Without SEED one is drawn, and said.
soak: .venv/ready-dev
	OMP_NUM_THREADS=1 TRANSFORMERS_VERBOSITY=error $(BIN)/python tests/lost_machines.py $${TMPDIR:-/tmp}/vaani-soak --verbose \
		--kills $(or $(KILLS),300) $(if $(SEED),--seed $(SEED))

# ESPnet and Coqui TTS without what training and recognition need; torch and the rest are those of .venv, whose folder a .pth file names.
parity: .venv/ready
	$(BIN)/python -m venv .venv-parity
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > "$$(.venv-parity/bin/python -c 'import site; print(site.getsitepackages()[0])')/vaani.pth"
	.venv-parity/bin/python -m pip install -q --disable-pip-version-check --no-deps -r tests/requirements-parity.txt
	PYTHONPATH=. .venv-parity/bin/python -W ignore tests/parity.py $(if $(RECORD),--record)

export: .venv/ready-dev
	nbdev_export
	nbdev_clean
	$(BIN)/python tests/write_modules.py

outputs: .venv/ready-dev
	$(BIN)/python tests/write_outputs.py
	nbdev_clean

.venv/ready: requirements.txt requirements-colab.txt setup.py settings.ini
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Vaani needs Python 3.11 to 3.13 and $(PYTHON) is %d.%d: make PYTHON=python3.12 ..." % v)'
	@echo "Setting up .venv: PyTorch is several GB, so this takes some minutes, once."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@# librosa keeps what numba compiles at its import. Two processes that write there for the first time can mix up
	@# each other's code, and every later process crashes: so one does it alone.
	EAGER_IMPORT=1 $(BIN)/python -c "import librosa"
	@touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-dev.txt
	@touch $@

test-newest:
	$(PYTHON) -m venv .venv-newest
	grep -v '^-r' requirements.txt | sed -E '/^torch/!s/==.*//' > .venv-newest/newest.txt
	grep -v '^-r' requirements-dev.txt > .venv-newest/dev.txt
	.venv-newest/bin/python -m pip install -q --disable-pip-version-check -r .venv-newest/newest.txt -r requirements-colab.txt -r .venv-newest/dev.txt
	.venv-newest/bin/python -m pip install -q --disable-pip-version-check --no-deps -e .
	EAGER_IMPORT=1 .venv-newest/bin/python -c "import librosa"
	PATH=$(CURDIR)/.venv-newest/bin:$$PATH tests/run

clean:
	rm -rf .venv .venv-newest .venv-parity demo .bench
