# Thin on purpose: every target calls run.py, which also works alone where there is no make.
#   make book               make book PROFILE=smoke        make full CHAPTER=baselines        make new METHOD=my_method
PYTHON ?= python3
JOB = $(PYTHON) run.py $@
export PROFILE CHAPTER METHOD JOBS

.PHONY: help book test lab full check new refs lock clean
help:
	@$(PYTHON) run.py --help
book test lab full check new refs lock clean:
	@$(JOB)
