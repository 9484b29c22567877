"""The tested package behind *Borrowed Strength*.

Data flows one way through its rooms, and a room imports only the rooms before it::

    data -> preprocess -> nn -> train -> methods -> evaluate -> studies -> results -> figures -> chapter

Importing ``shared`` itself loads nothing heavy. Import the room you need: ``from shared.data import load``.
"""

import contextlib
import importlib
import os
import sys

__version__ = "0.1.0"

# OpenMP threads that spin while they wait slow a shared machine many times over, and TensorFlow's start-up
# lines land in notebooks. Both are read once, when the libraries load, so they are set here, before any of them.
for _name, _value in {
    "OMP_WAIT_POLICY": "PASSIVE",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}.items():
    os.environ.setdefault(_name, _value)


def load_triton() -> None:
    """Load triton, where it is installed, before anything loads TensorFlow.

    A torch built for CUDA brings triton and loads it at its first optimiser. TensorFlow 2.20 and later lay their LLVM
    open to all libraries, and a triton that is loaded after them crashes the process (tensorflow issue 124205). Where
    TensorFlow is there already, triton is barred, and torch does without it.
    """
    if "tensorflow" in sys.modules:
        sys.modules.setdefault("triton", None)
        return
    with contextlib.suppress(Exception):  # absent, or of no use here
        importlib.import_module("triton")
