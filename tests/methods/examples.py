"""How the example of an estimator is used: fitted, and asked for all that it says. Light, for fresh processes too."""

import anndata as ad
import numpy as np
from scipy import sparse
from sklearn.base import clone

from shared.methods.protocols import Generator, Translator


def arguments(example, X=None):
    """Arguments of `fit` for cells in another form; labels are then arrays."""
    if isinstance(example.model, Translator):
        table = example.cells.to_df() if X is None else X
        table = table.to_df() if isinstance(table, ad.AnnData) else table
        return (table.T, table.T * 0.5), {}
    if X is None or isinstance(X, ad.AnnData):
        return (example.cells if X is None else X, *([example.y] if example.y else [])), example.fit
    return (X, *([example.cells.obs[example.y].to_numpy()] if example.y else [])), example.fit


def fitted(example, X=None, model=None, **settings):
    """The example's model, pre-trained and fitted."""
    model = clone(example.model if model is None else model).set_params(**settings)
    if example.pretrain and not hasattr(model, "pretrained_"):
        model.pretrain(*example.pretrain)
    args, more = arguments(example, X)
    return model.fit(*args, **more)


def outputs(model, cells) -> dict[str, np.ndarray]:
    """All that a fitted model says of some cells."""
    if isinstance(model, Translator):
        cells = cells.to_df() if isinstance(cells, ad.AnnData) else cells
        return {"predict": model.predict(cells.T)}
    if isinstance(model, Generator):
        return {"generate": model.generate(cells, model.conditions_[0])}
    found = {}
    for name in ("predict", "predict_proba", "scores", "transform", "decision_function"):
        if hasattr(model, name):
            value = getattr(model, name)(cells)
            found[name] = value.toarray() if sparse.issparse(value) else np.asarray(value)
    return found
