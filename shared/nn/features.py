"""Features for few-shot heads, worked out once for all rows: components, codes of a variational autoencoder, encoders.

Sample episodes from the features (:class:`shared.nn.episodes.EpisodeSampler`) and the encoder need not run again. What
features were fitted on decides what a result means: on the source, a cell of the target is new to them; on the target
without its labels, the method has seen the cells it is asked about.
"""

from __future__ import annotations

import logging
import random
import warnings

import numpy as np
import torch
from scipy import sparse

from shared.data.errors import DataError
from shared.data.validate.structure import matrix_of


def components(fit_on, *others, n_components=50, seed=0):
    """Principal components fitted on one table, and the coordinates of all tables in them.

    Parameters
    ----------
    fit_on : ndarray or CSR matrix, cells × genes
        The source, or the target without its labels. CSR stays sparse.
    *others : ndarray or CSR matrices, cells × genes
        Placed in the same components, by the mean of `fit_on`.
    n_components : int
        Cut to what the table allows: one less than the smaller of its sides.
    seed : int
        Of the eigensolver's start.

    Returns
    -------
    tuple of float32 ndarray, cells × components
        One for `fit_on`, one for each of the others, in order.

    Raises
    ------
    DataError
        If `fit_on` has fewer than two rows or columns, or the tables differ in their number of genes.
    """
    from sklearn.decomposition import PCA

    tables = [X.tocsr() if sparse.issparse(X) else X for X in map(matrix_of, (fit_on, *others))]
    widths = sorted({X.shape[1] if X.ndim == 2 else -1 for X in tables})
    if len(widths) > 1 or widths[0] < 0:
        raise DataError(
            f"tables have shapes {', '.join(str(X.shape) for X in tables)}: give cells × genes, the same genes in the "
            "same order in all"
        )
    if min(tables[0].shape) < 2:
        raise DataError(f"the table to fit has shape {tables[0].shape}: components need two cells and two genes")
    k = min(n_components, min(tables[0].shape) - 1)
    # ARPACK is exact: one table gives one answer, sparse or dense.
    pca = PCA(k, svd_solver="arpack", random_state=seed).fit(tables[0])
    return tuple(pca.transform(X).astype(np.float32) for X in tables)


@torch.no_grad()
def encoded(encoder, X, batch_size=1024):
    """Features of all rows, in evaluation mode; the encoder's mode is put back.

    Parameters
    ----------
    encoder : torch.nn.Module
        rows × genes to rows × features. It must answer for each row alone: with batch norm, by running statistics.
    X : float32 ndarray, CSR matrix or tensor, cells × genes
        As the encoder reads them.
    batch_size : int
        Rows at once; the answer does not depend on it.

    Returns
    -------
    float32 tensor, cells × features, on the encoder's device
        ``.mean(0)`` of the source's is what :func:`shared.nn.heads.simple_shot` centres by.

    Raises
    ------
    DataError
        If a row's features depend on the rows beside it.
    """
    device = next((t.device for t in [*encoder.parameters(), *encoder.buffers()]), torch.device("cpu"))
    mode = encoder.training
    encoder.eval()

    def dense(rows):
        rows = X[rows]
        rows = rows if isinstance(rows, torch.Tensor) else rows.toarray() if sparse.issparse(rows) else np.asarray(rows)
        return torch.as_tensor(rows, dtype=torch.float32, device=device)

    try:
        parts = [encoder(dense(slice(i, i + batch_size))) for i in range(0, X.shape[0], batch_size)]
        few = min(X.shape[0], batch_size, 4)
        beside = encoder(dense(slice(0, few)))
    finally:
        encoder.train(mode)
    features = torch.cat(parts).float()
    if not torch.allclose(beside.float(), features[:few], rtol=1e-3, atol=1e-4 * float(features.abs().max())):
        raise DataError(
            "the features of a row depend on the rows beside it: "
            "shared.nn.episodes.use_statistics(encoder, 'running') gives each its own"
        )
    return features


def scvi_codes(
    adata,
    fit_on=None,
    *,
    layer="counts",
    batch_key=None,
    labels=None,
    n_latent=10,
    max_epochs=None,
    seed=0,
    accelerator="auto",
    progress=False,
):
    """Codes of scVI, a variational autoencoder of counts, fitted without labels; with labels, those of scANVI.

    Parameters
    ----------
    adata : AnnData, cells × genes
        Counts; copied, not changed.
    fit_on : bool ndarray or indices, cells, optional
        Cells to fit on, such as those of the source. All by default.
    layer : str or None
        Where the counts are; None for ``X``.
    batch_key : str, optional
        Column of ``obs`` whose effect is taken out of the codes. All of its values must occur among the fitted cells.
    labels : array of str, cells, optional
        Types, ``""`` where none is known: scVI then goes on as scANVI, for a tenth of `max_epochs`, or
        for 2 to 10 epochs where scvi-tools decides.
    n_latent : int
        Numbers in a code.
    max_epochs : int, optional
        scvi-tools decides by the number of cells: 400 up to 20,000.
    seed : int
        The random states of Python, numpy and torch are put back afterwards.
    accelerator : {"auto", "cpu", "gpu"}
        See scvi-tools.
    progress : bool
        Show a bar.

    Returns
    -------
    float32 ndarray, cells × n_latent
        The mean of each cell's code, for all cells of `adata`.

    Raises
    ------
    ImportError
        If scvi-tools is not installed: it is the extra ``scvi``.
    DataError
        If the layer or column is missing, values are no counts, or a batch is met that was not fitted.

    Notes
    -----
    Time goes with cells × genes × epochs, and most of it into genes that tell nothing: choose a thousand variable ones
    first (:class:`shared.preprocess.VariableGenes`).

    References
    ----------
    Lopez, Regier, Cole, Jordan and Yosef, *Deep generative modeling for single-cell transcriptomics* (2018). Xu and
    others, *Probabilistic harmonization and annotation of single-cell transcriptomics data with deep generative models*
    (2021).
    """
    counts, rows, batch = _for_scvi(adata, fit_on, layer, batch_key)
    kinds = None if labels is None else _types(labels, rows)
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import scvi
    except ImportError as error:
        raise ImportError(
            "codes of scVI need scvi-tools: pip install 'borrowed-strength[scvi]', or in a checkout "
            "pip install -e '.[scvi]' -c constraints.txt"
        ) from error
    import anndata

    cells = anndata.AnnData(counts)
    if batch is not None:
        cells.obs["batch"] = batch
    if labels is not None:
        cells.obs["type"] = kinds
    key = None if batch is None else "batch"
    seed_before = scvi.settings.seed
    quiet = {name: logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric", "scvi")}
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        for name in quiet:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            scvi.settings.seed = seed
            fitted = cells[rows].copy()
            scvi.model.SCVI.setup_anndata(fitted, batch_key=key)
            model = scvi.model.SCVI(fitted, n_latent=n_latent)
            how = {"accelerator": accelerator, "enable_progress_bar": progress, "enable_model_summary": False}
            model.train(max_epochs=max_epochs, **how)
            if labels is not None:
                model = scvi.model.SCANVI.from_scvi_model(model, "", labels_key="type")
                model.train(max_epochs=max_epochs and max(1, max_epochs // 10), **how)
            return np.ascontiguousarray(model.get_latent_representation(cells), dtype=np.float32)
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
            scvi.settings._seed = seed_before
            for name, level in quiet.items():
                logging.getLogger(name).setLevel(level)


def _types(labels, rows):
    """Types of all cells, of which some among those to fit on must be known."""
    labels = np.asarray(labels).astype(str)
    if len({*labels[rows]} - {""}) < 2:
        raise DataError("scANVI learns from types: labels name fewer than two among the fitted cells")
    return labels


def _for_scvi(adata, fit_on, layer, batch_key):
    """Counts as CSR, rows to fit on, and the batch of each cell, all checked."""
    if layer is not None and layer not in adata.layers:
        raise DataError(f"there is no layer {layer!r}, only {list(adata.layers)}: pass layer=, or None for X")
    counts = sparse.csr_matrix(adata.X if layer is None else adata.layers[layer], dtype=np.float32)
    values = counts.data
    if not np.isfinite(values).all() or (values < 0).any() or (values != np.round(values)).any():
        raise DataError("scVI models counts, and these hold NaN, negative values or fractions: pass the raw counts")
    rows = np.arange(adata.n_obs)
    rows = rows if fit_on is None else rows[np.asarray(fit_on)]
    if len(rows) < 2:
        raise DataError(f"fit_on names {len(rows)} cells: a model needs more")
    if batch_key is None:
        return counts, rows, None
    if batch_key not in adata.obs:
        raise DataError(f"obs has no column {batch_key!r}: pass one of {list(adata.obs)}")
    batch = adata.obs[batch_key].astype(str).to_numpy()
    new = sorted(set(batch) - set(batch[rows]))
    if new:
        raise DataError(
            f"batches {', '.join(new)} are not among the fitted cells, so their effect is not known: fit on all cells "
            "(fit_on=None), or leave batch_key out"
        )
    return counts, rows, batch
