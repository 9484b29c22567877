# Thin on purpose: every target calls run.py, which also works alone where there is no make.
#   make book               make book PROFILE=smoke        make full CHAPTER=baselines
PYTHON ?= python3
JOB = $(PYTHON) run.py $@
export PROFILE CHAPTER JOBS

.PHONY: help book test lab full check refs lock clean
help:
	@$(PYTHON) run.py --help
book test lab full check refs lock clean:
	@$(JOB)
