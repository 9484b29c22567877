# Thin on purpose: every target calls run.py, which also works alone where there is no make.
#   make book               make book PROFILE=smoke        make full CHAPTER=baselines        make new METHOD=my_method
#   make test PYTHON=python3.13    (run.py looks for it where it is not on the path)
PYTHON ?= python3
RUN = $(shell $(PYTHON) -c "print('$(PYTHON)')" 2>/dev/null || echo python3) run.py
export PYTHON PROFILE CHAPTER METHOD JOBS DEVICE

.PHONY: help book test lab full gpu check new refs lock clean
help:
	@$(RUN) --help
book test lab full gpu check new refs lock clean:
	@$(RUN) $@
