# make verify   set up, then run the claims on the embedded models (60 pairs, two workers)
# make verify-full   the same on the default budget
# make drift    claims on mini and on SmolLM2, which were trained, held against their pins; after a
#               wanted change: make drift DRIFT=--claims-update. make drift-gemma3-270m takes longer
# make real     the seed's claims on the KV cache on SmolLM2, a real language model, which it fetches:
#               about 16 minutes on two cores; PAIRS=32 takes 22
# make test     set up, then run the tests, but for the slow ones
# make test-slow   those
# make kill     runs that are killed with -9 and started again, against one that was not: ten minutes
# make calibrate   how often the suite itself is wrong: 10,000 studies a cell, tables and a figure
# make fuzz     2,000 damaged inputs, each refused in one line or answered (table in reports/fuzz)
# make check    lint, types, import rules
# make docs     the documentation as a site, in build/site; a broken link is an error
# make docs-neighbours   the scripts of docs/coming-from.md: one experiment by four neighbours
# make bench    speed: the parts, the reference work, how time and memory grow
# make bench-ratio   the engine against a bare decode loop, held against a stored ratio
# make bench-peers   the same work by nnsight, TransformerLens and pyvene
# make gpu      everything that is to be measured on a GPU; SMALL=1 tries it on any machine (docs/gpu.md)
# make dist     the wheel and the sdist, in dist/
# make gpu-pack what a machine with a GPU and no network is brought, in gpu-pack/
# make compat   the tests of the engine on the oldest transformers that is supported
#
# Everything is installed in .venv/ (override the interpreter with PYTHON=python3.12).

PYTHON ?= python3
# Threads that wait by spinning make a shared machine many times slower.
export OMP_WAIT_POLICY ?= PASSIVE
RUN := .venv/bin/python -m
PIP := $(RUN) pip install --quiet --disable-pip-version-check --constraint constraints.txt

# The models in packages whose claims are pinned. SmolLM2 in every run, Gemma on demand.
DRIFTING := drift-smollm2 drift-gemma3-270m

GPU_PYTHON := $(if $(wildcard .venv/bin/python),.venv/bin/python,$(PYTHON))

.PHONY: verify verify-full drift drift-mini $(DRIFTING) real test test-slow fuzz kill check docs docs-neighbours compat dist bench bench-ratio bench-peers calibrate gpu gpu-pack clean
.DEFAULT_GOAL := verify

verify: .venv/.runtime
	@echo "== verify: pytest claims (planted models, evidence in reports/latest) =="
	$(RUN) pytest claims --claims-profile smoke -n 2 --dist loadgroup

verify-full: .venv/.runtime
	@echo "== verify-full: the same with 200 pairs and 50 tokens, about ten minutes =="
	$(RUN) pytest claims -n 2 --dist loadgroup

# Trials are run anew: those of an earlier run would hide a change of the harness.
drift: drift-mini drift-smollm2

drift-mini: .venv/.runtime
	@echo "== drift: pytest claims on mini against claims/pins/mini.json (evidence in reports/mini) =="
	$(RUN) pytest claims --model mini -n 2 --no-resume --claims-out reports/mini $(DRIFT)

# One process: two would run what cells share twice. Two threads on every machine, as in the pins.
$(DRIFTING): drift-%: .venv/.gguf
	@echo "== drift: the seed's last cell on $* against claims/pins/$*.json (reports/drift-$*) =="
	$(RUN) kv_claims get $*
	OMP_NUM_THREADS=2 $(RUN) pytest real claims/test_kv_cache.py -k L25+L27-w32 --model $* \
		--claims-profile smoke --no-resume --claims-out reports/drift-$* $(DRIFT)

# Exit status 1 of pytest says that a claim does not hold there: a result, and no failure of this.
real: .venv/.gguf
	@echo "== real: kv-claims get smollm2, then the claims on the KV cache (reports/smollm2) =="
	$(RUN) kv_claims get smollm2
	$(RUN) pytest real claims/test_kv_cache.py --model smollm2 --pairs $(or $(PAIRS),24) \
		--max-new-tokens 40 --claims-out reports/smollm2 || [ $$? -eq 1 ]

test: .venv/.test
	@echo "== test: pytest tests =="
	$(RUN) pytest tests -n 2 -W error --benchmark-disable -m "not slow"

test-slow: .venv/.test
	@echo "== test-slow: the tests that make test leaves out =="
	$(RUN) pytest tests -n 2 -W error --benchmark-disable -m slow

fuzz: .venv/.test
	@echo "== fuzz: damaged tasks, tables, pins, evidence, trials, ledgers, model folders (reports/fuzz) =="
	$(RUN) tests.reliability.fuzz --mutants 2000 --seed 15

check: .venv/.check
	@echo "== check: ruff, mypy, import-linter =="
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	.venv/bin/python .venv/bin/lint-imports

# -W: a warning, such as a link or a name that is not there, is an error.
docs: .venv/.docs
	@echo "== docs: build/site/index.html =="
	$(RUN) sphinx --builder html -E -W --keep-going --quiet docs build/site

# In the environment of `make bench-peers`: nothing of it is in .venv/.
docs-neighbours:
	@echo "== docs-neighbours: one experiment by nnsight, TransformerLens, pyvene and lm-eval =="
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint tests/benchmarks/peers-constraints.txt \
		--editable . nnsight transformer-lens pyvene lm_eval
	.venv-peers/bin/python docs/examples/neighbours/run_all.py

bench: .venv/.test
	@echo "== bench: pytest tests/benchmarks, timed; the reference work (reports/bench) =="
	@mkdir -p reports/bench
	$(RUN) pytest tests/benchmarks --benchmark-only --benchmark-json=reports/bench/parts.json
	OMP_NUM_THREADS=1 $(RUN) kv_claims bench --reference --growth --out reports/bench

dist: .venv/.test
	@echo "== dist: the wheel, with the seed's claims and mini, and the sdist (dist/) =="
	rm -rf dist
	$(RUN) build --outdir dist .

# A ratio of two times of one process against a stored one; never a time.
bench-ratio: .venv/.runtime
	@echo "== bench-ratio: the engine against a bare decode loop =="
	OMP_NUM_THREADS=1 $(RUN) kv_claims bench --reference --held-against tests/benchmarks/ratio.json

# Nothing here is in .venv/: the neighbours bring a hundred packages, and need an older transformers.
# PEERS=--small tries it, PEERS='--rounds 5' takes longer.
bench-peers:
	@echo "== bench-peers: the reference work by nnsight, TransformerLens and pyvene, in .venv-peers/ =="
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint tests/benchmarks/peers-constraints.txt \
		--editable . nnsight transformer-lens pyvene
	OMP_NUM_THREADS=1 .venv-peers/bin/python -m tests.benchmarks.peers $(PEERS)

# No .venv/ is made: a machine with a GPU brings a torch of its own. SMALL=1 tries every step on a CPU;
# MODEL=folder is the real model; ONLY=a,b, SKIP=a,b, FROM=a and REST=1 run a part of it; MINUTES=9.
gpu gpu-pack: export PYTHONPATH := $(CURDIR)/harness$(if $(PYTHONPATH),:$(PYTHONPATH))
gpu:
	@echo "== gpu: what is to be measured on a GPU (reports/gpu) =="
	$(GPU_PYTHON) -m kv_claims.benching.gpu $(if $(SMALL),--small) $(if $(REST),--rest) \
		$(if $(MODEL),--model '$(MODEL)') $(if $(ONLY),--only '$(ONLY)') $(if $(SKIP),--skip '$(SKIP)') \
		$(if $(FROM),--from '$(FROM)') $(if $(MINUTES),--minutes '$(MINUTES)') $(GPU)

# PACK='--with neighbours,smollm2 --has freeze.txt'
gpu-pack:
	@echo "== gpu-pack: wheels and weights for a machine without network (gpu-pack/) =="
	$(GPU_PYTHON) -m kv_claims.benching.gpu.pack $(PACK)

# Exit status 1 says that some cell falls short; docs/calibration.md says which do, and why.
calibrate: .venv/.runtime
	@echo "== calibrate: studies of a known truth, judged (tables in reports/calibration) =="
	$(RUN) kv_claims calibrate

# KILLS=2 tries it.
kill: .venv/.runtime
	@echo "== kill: 20 kills of a run in one process, 20 with two workers (table in reports/kill) =="
	$(RUN) tests.reliability.kill --kills $(or $(KILLS),20)

compat: .venv/.test
	@echo "== compat: transformers 5.0, in .venv-compat/ =="
	$(PYTHON) -m venv .venv-compat
	.venv-compat/bin/python -m pip install --quiet --disable-pip-version-check \
		"$$(grep '^torch==' constraints.txt)" --editable '.[test]' 'transformers==5.0.*'
	.venv-compat/bin/python -m pytest tests/models tests/patch tests/run tests/properties

clean:
	rm -rf .venv .venv-compat .venv-peers build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

.venv/.created:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else \
		f"kv-claims needs Python 3.11 or newer, {sys.executable} is {v[0]}.{v[1]}")'
	@echo "== setting up .venv (the first time takes a few minutes) =="
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.runtime: .venv/.created pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

.venv/.test: .venv/.runtime
	$(PIP) --editable '.[test]'
	@touch $@

.venv/.gguf: .venv/.runtime
	$(PIP) --editable '.[gguf]'
	@touch $@

.venv/.check: .venv/.test
	$(PIP) --editable '.[test,check]'
	@touch $@

.venv/.docs: .venv/.runtime
	$(PIP) --editable '.[docs]'
	@touch $@
