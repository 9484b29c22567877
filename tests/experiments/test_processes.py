"""Processes side by side: the answers of one after the other, in order, with as many threads."""

import joblib
import pytest
import torch

from shared.experiments.processes import side_by_side


def test_one_worker_is_a_loop_in_this_process():
    seen = []
    assert side_by_side(lambda a, b: seen.append(a) or a - b, ((i, 1) for i in range(3))) == [-1, 0, 1]
    assert seen == [0, 1, 2]


def test_answers_come_in_the_order_of_the_jobs_and_jobs_are_copies():
    shared = [0]

    def grown(row, i):
        row.append(i)
        return len(row)

    assert side_by_side(grown, [(shared, i) for i in range(4)], workers=2) == [2, 2, 2, 2]
    assert shared == [0]
    assert side_by_side(pow, [(i, 2) for i in range(6)], workers=2) == [0, 1, 4, 9, 16, 25]


@pytest.mark.parametrize("threads", [1, 2])
def test_every_process_has_as_many_threads_as_this_one(monkeypatch, threads):
    """joblib would share the cores out, and torch goes by MKL's variable before OpenMP's."""
    before = torch.get_num_threads()
    monkeypatch.setattr(joblib._parallel_backends, "cpu_count", lambda *a, **k: 8)
    try:
        torch.set_num_threads(threads)
        assert side_by_side(torch.get_num_threads, [(), ()], workers=2) == [threads, threads]
    finally:
        torch.set_num_threads(before)
