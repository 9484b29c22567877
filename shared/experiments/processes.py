"""Jobs in processes beside each other: the same answers as one after the other, sooner."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch


def side_by_side(function: Callable, jobs: Iterable[tuple], workers: int = 1) -> list:
    """``function(*job)`` for each job, in order; with several workers, in processes that are kept for the next call.

    Every process has as many threads as this one: a sum cut among more of them is rounded otherwise, and then the
    networks would hang on how many cores the machine has.

    Parameters
    ----------
    function : callable
        May be typed in a notebook. What it draws must hang on its arguments, not on what ran before in its process.
    jobs : iterable of tuple
        Arguments of each call; they are copied into the processes, and nothing that a call changes comes back but what
        it returns.
    workers : int
        Processes; with 1, all is done in this one.
    """
    if workers == 1:
        return [function(*job) for job in jobs]
    from joblib import Parallel, delayed, parallel_config

    # One job a message: jobs sent together would share what they have in common, and could change it for each other.
    with parallel_config("loky", inner_max_num_threads=torch.get_num_threads()):
        return Parallel(workers, max_nbytes=None, batch_size=1)(delayed(function)(*job) for job in jobs)
