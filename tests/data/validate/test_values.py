"""The values of a matrix: told apart, and the same found block by block as in one piece, however they are stored."""

import numpy as np
import pytest
from scipy import sparse

from shared.data.validate import values
from shared.data.validate.values import looks_like, scan


@pytest.mark.parametrize(
    ("X", "looks"),
    [
        ([[0, 1], [5, 2]], "counts"),
        ([[0, 1], [1, 0]], "binary"),
        ([[2, 2], [2, 2]], "equal"),
        ([[0.5, -1], [2, 3]], "signed"),
        ([[0.5, 1.5], [2, 3]], "logged"),
        ([[0.5, 0.2], [1, 0.3]], "shares"),
        ([[10.5, 41.5], [92.1, 3.3]], "linear"),
        ([[10.5, 41, 7], [92, 3, 2]], "expected counts"),
        ([[250_000.5, 749_999.5], [10.25, 999_989.75]], "per million"),
        ([[50.5, 49.5], [10.25, 89.75]], "scaled to one total"),
        ([[np.nan, 1], [0, 2]], "unreadable"),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_what_values_look_like(X, looks, kind):
    X = kind(np.array(X))
    assert looks_like(scan(X), X) == looks


def test_one_block_and_many_give_the_same(monkeypatch):
    X = sparse.random(50, 30, 0.3, format="csr", random_state=1) * 40
    X.data[5], X.data[9] = np.inf, np.nan
    whole = scan(X)
    for block in (1, 7, 100):
        monkeypatch.setattr(values, "BLOCK", block)
        for Y in (X, X.toarray(), X.tocoo()):
            parts = scan(Y)
            for name in ("nan", "infinite", "negative", "fractions", "smallest", "largest", "zeros", "parts"):
                assert getattr(parts, name) == getattr(whole, name)
            assert (parts.cells_of == whole.cells_of).all()
            assert np.allclose(parts.totals, whole.totals, equal_nan=True)
