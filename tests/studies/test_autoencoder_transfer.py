"""A source that shares the target's structure is worth more than one that does not."""

import numpy as np
import pytest

pytest.importorskip("keras", reason="install the extra: pip install 'borrowed-strength[keras]'")

from shared.studies.autoencoder_transfer import compare_sources

MODEL = {"hidden": (16,), "code": 6, "scaling": "centre", "pretrain_epochs": 30, "pretrain_lr": 1e-2}
HOW = {"model": MODEL, "frozen": {"epochs": 30, "lr": 1e-2}, "full": {"epochs": 5}}


@pytest.fixture(scope="module")
def made():
    """Three classes along a few directions of many genes; the related source varies along them, unlabelled."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(3, 120))
    y = rng.integers(3, size=150)
    related = rng.normal(size=(200, 3)) @ axes + 0.1 * rng.normal(size=(200, 120))
    X = 2 * np.eye(3)[y] @ axes + 2 * rng.normal(size=(150, 120))
    return X, np.array(["a", "b", "c"])[y], related, rng.normal(size=(200, 120)) * related.std(0)


def test_a_related_source_gives_more_than_noise_and_its_shuffled_self(made):
    X, y, related, noise = made
    found = compare_sources({"related": related, "noise": noise}, X, y, range(4), control="related", n_test=60, **HOW)
    assert list(found.index) == [0, 1, 2, 3]
    assert set(found) == {"related", "noise", "scratch", "related, shuffled"}
    mean = found.mean()
    assert mean["related"] > max(mean["noise"], mean["related, shuffled"]) + 0.1
    assert found["related"].nunique() > 1, "every seed drew the same"
    again = compare_sources({"related": related}, X, y, [2], control="related", n_test=60, **HOW)
    assert again.loc[2, "related, shuffled"] == found.loc[2, "related, shuffled"]
    assert again.loc[2, "scratch"] == found.loc[2, "scratch"]


def test_only_a_few_labels_and_no_test_label_are_looked_at(made, monkeypatch):
    X, y, related, _ = made
    seen = []
    from shared.studies import autoencoder_transfer as module

    class Spy(module.AutoencoderClassifier):
        def adapt(self, X):
            seen.append([X])
            return super().adapt(X)

        def fit(self, X, y):
            seen[-1] += [X, y]
            return super().fit(X, y)

        def predict(self, X):
            seen[-1] += [X, self.tuning]
            return super().predict(X)

    monkeypatch.setattr(module, "AutoencoderClassifier", Spy)
    compare_sources({"related": related}, X, y, [0], shots=2, n_test=60, model={**MODEL, "pretrain_epochs": 1})
    assert [arm[-1] for arm in seen] == ["frozen", "full"]
    for pool, train, labels, test, _ in seen:
        test = {row.tobytes() for row in test}
        assert len(test) == 60 and len(pool) == 90 and sorted(labels) == ["a", "a", "b", "b", "c", "c"]
        assert not any(row.tobytes() in test for part in (pool, train) for row in part)


def test_what_cannot_be_tried_is_named(made):
    X, y, related, _ = made
    with pytest.raises(ValueError, match="control='noise' is not known: choose related"):
        compare_sources({"related": related}, X, y, [0], control="noise", n_test=60)
    with pytest.raises(ValueError, match="n_test=150 is not a number between 0 and 150"):
        compare_sources({"related": related}, X, y, [0], n_test=150)
