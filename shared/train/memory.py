"""Keep freed memory at hand: what a step frees, the next step asks for again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import threading

LARGE = 2**22  # bytes of the largest tensor from which on it matters
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # names of glibc's settings, as its mallopt takes them


@contextlib.contextmanager
def kept_memory(wanted: bool = True):
    """While this lasts, memory that is freed stays with the process; at the end it is given back.

    A batch, and a gradient as large as the weights, are made and dropped at every step. glibc gives large blocks back
    to the system (above 32 MiB always) and asks for new pages at the next step, each of which the system clears first:
    at 83 million weights that was a third of a training step on one core. No number changes. Without glibc, outside
    the main thread, or where the environment sets the allocator itself (``MALLOC_...``), nothing is done.
    """
    library = ctypes.CDLL(None) if wanted and platform.libc_ver()[0] == "glibc" else None
    ours = threading.current_thread() is threading.main_thread() and not any(
        k.startswith("MALLOC_") for k in os.environ
    )
    if library is None or not ours:
        yield False
        return
    library.mallopt(MMAP_MAX, 0)
    library.mallopt(TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield True
    finally:
        library.mallopt(MMAP_MAX, 2**16)
        library.mallopt(TRIM_THRESHOLD, 2**26)
        library.malloc_trim(0)
