"""Folds: nobody learns from the study that is tested on, and no study's labels tune its own arms."""

import numpy as np
import pandas as pd
import pytest

from shared.data import simulate
from shared.data.errors import DataError
from shared.studies.leave_one_out import choose, folds, signed_rank

STUDIES = {"a1": "A", "a2": "A", "b": "B", "c": "C"}


@pytest.fixture(scope="module")
def sets():
    return dict(zip(STUDIES, simulate.many(4, seed=3, n_cells=40, n_genes=60, labels=2, depth=300)))


def test_sets_of_one_study_are_left_out_together(sets):
    found = folds(sets, STUDIES)
    assert {study: (list(others), list(own)) for study, (others, own) in found.items()} == {
        "A": (["b", "c"], ["a1", "a2"]),
        "B": (["a1", "a2", "c"], ["b"]),
        "C": (["a1", "a2", "b"], ["c"]),
    }
    assert found["B"][1]["b"] is sets["b"]


def test_a_set_published_by_two_studies_is_refused(sets):
    copy = sets["b"][np.random.default_rng(0).permutation(40)].copy()
    with pytest.raises(DataError, match="b and archive share cells, but are of two studies"):
        folds(sets | {"archive": copy}, STUDIES | {"archive": "D"})
    assert len(folds(sets | {"archive": copy}, STUDIES | {"archive": "B"})) == 3, "one study may repeat itself"


def test_one_study_or_none_is_refused(sets):
    with pytest.raises(DataError, match="c belong to no study"):
        folds(sets, {"a1": "A", "a2": "A", "b": "B"})
    with pytest.raises(DataError, match="one study only"):
        folds(sets, dict.fromkeys(sets, "A"))


def test_a_study_is_tuned_by_the_others():
    """Study A alone would choose 3; it gets what serves B and C, and they get what serves A and each other."""
    best = {"A": {1: 0.1, 2: 0.2, 3: 0.9}, "B": {1: 0.5, 2: 0.6, 3: 0.1}, "C": {1: 0.7, 2: 0.5, 3: 0.1}}
    rows = [{"data": d, "arm": "net", "value": v, "accuracy": got} for d, one in best.items() for v, got in one.items()]
    rows += [{"data": d, "arm": "flat", "value": v, "accuracy": 1.0} for d in best for v in (10, 20)]
    chosen = choose(pd.DataFrame(rows))
    assert chosen["A"] == {"net": 1, "flat": 10}
    assert chosen["B"]["net"] == 3 and chosen["C"]["net"] == 3


def test_signed_rank_of_gains_that_agree_and_of_none():
    assert signed_rank([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, np.nan]) == 2 / 2**6
    assert signed_rank([0.0, 0.0]) == 1
