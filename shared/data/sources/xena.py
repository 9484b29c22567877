"""UCSC Xena: genes × samples of TCGA, TARGET and GTEx, with the table of phenotypes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from shared.data.constraints import OneOf, require
from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io.assemble import MISSING, assembled, joined, labels
from shared.data.io.text import AGAIN, column, fields, opened, separator_of, sound, words
from shared.data.io.wide import gene_names, wanted_blocks

# Columns of obs, and what the hubs call them.
PHENOTYPES = {
    "study": ("_study",),
    "sample_type": ("_sample_type", "sample_type"),
    "tissue": ("_primary_site",),
    "disease": ("primary disease or tissue",),
    "detail": ("detailed_category",),
    "sex": ("_gender",),
    "cancer": ("_primary_disease", "cancer type abbreviation"),
}


def read(
    paths: list[Path],
    *,
    base: float | None = None,
    offset: float = 0.0,
    units: str = "log",
    genes: Iterable | None = None,
    samples: dict | None = None,
    names: str = "ensembl",
    missing: str = "refuse",
    twice: str = "refuse",
    obs: dict | None = None,
):
    """Samples × genes, in memory only what is asked for and one block of text.

    Layout: tabs; a header ``sample`` and the samples; one row a gene. Toil (``TcgaTargetGtex_rsem_gene_tpm.gz``):
    Ensembl ids with versions, log2(TPM + 0.001) to four decimals, so that -9.9658 is zero: ``base=2, offset=0.001,
    units="tpm"`` gives TPM. PanCan (``EB++AdjustPANCAN…geneExp.xena.gz``): symbols, log2(normalised count + 1),
    adjusted for batch; some genes have no value in some samples (NA), so ``missing="drop"``. Phenotypes: one row a
    sample, of more samples than were measured; Toil's is in Latin-1.

    Parameters
    ----------
    paths : list of Path
        The matrix; then, in any order, the phenotypes and perhaps a probemap (``id``, ``gene``, ...).
    base, offset : float
        Undo log_base(x + offset). A value at the floor, which is the logarithm of the offset as the file rounds it,
        becomes exactly zero; others keep the precision of four decimals, 3.5e-5 of TPM + offset.
    units : str
        What the values are in the end.
    genes : sequence of str, optional
        Read these rows only: as they stand, with the version cut, or, with a probemap, symbols.
    samples : dict, optional
        Column of ``obs`` to the values whose samples are read, as {"study": ["GTEX"]}.
    names : {"ensembl", "versioned", "symbol"}
        What names the genes: the id cut at the version (the id itself where it has none), as it stands, or the
        probemap's symbol where one gene alone has it.
    missing : {"refuse", "drop"}
        What becomes of a gene without a value in some sample.
    twice : {"refuse", "drop"}
        What becomes of genes whose name stands more than once: with "drop", none of them is read.
    obs : dict, optional
        Further columns of ``obs``, and the phenotypes' name of each.

    Returns
    -------
    AnnData
        ``X``: float32 ndarray. ``obs``: study, sample_type, tissue, disease, detail, sex, cancer as far as the
        phenotypes have them; donor, from the sample's name; batch (the study) where it is known. Samples without a
        phenotype have missing values. ``var``: id, and symbol with a probemap.

    Raises
    ------
    DataError
        If a file is damaged, lacks values, or names no sample of the other.
    """
    path, *others = paths
    require(OneOf("ensembl", "versioned", "symbol"), names=names)
    require(OneOf("refuse", "drop"), missing=missing)
    require(OneOf("refuse", "drop"), twice=twice)
    phenotypes, probemap = _sorted(others)
    if names == "symbol" and probemap is None:
        raise DataError(f"symbols for {path.name} come from a probemap: give its file too")
    symbols = _symbols(probemap)
    asked = None if genes is None else {str(g) for g in genes}

    def keep(ids):
        name = ids[0].decode("utf-8")
        return not asked.isdisjoint((name, name.split(".")[0], symbols.get(name, name)))

    found, parts, lacking = [], [], []
    with opened(path) as stream:
        corner, *cells = fields(stream.readline(), "\t", path) or [""]
        if corner not in ("sample", "Ensembl_ID", "gene") or not cells:
            raise DataError(
                f"{path.name} begins with {corner[:40]!r} where 'sample' is due: it is another table, {AGAIN}"
            )
        cells = pd.Index(cells, dtype=object)
        table = _phenotypes(phenotypes, cells, path, obs)
        chosen = _of(table, samples, path)
        columns = np.flatnonzero(chosen) + 1
        for ids, block in wanted_blocks(stream, path, 1, 1 + len(cells), columns, keep if asked else None, ABSENT):
            gone = np.isnan(block).any(axis=1)
            if gone.any() and missing == "refuse":
                raise DataError(
                    f"{path.name} has no value in some sample for {shown(ids.iloc[gone, 0])}: missing='drop' leaves "
                    "such genes out"
                )
            lacking += list(ids.iloc[gone, 0])
            ids, block = ids[~gone], block[~gone]
            if base is not None:
                block = undone(sound(block, "log", ids, path), base, offset, path.name)
            sound(block, units, ids, path)
            found.append(ids)
            parts.append(block.astype(np.float32))
    if not parts:
        raise DataError(f"{path.name} has none of the genes asked for ({shown(sorted(asked or []))})")
    ids = pd.concat(found, ignore_index=True).set_axis(["id"], axis=1)
    X = side_by_side(parts)
    notes = (
        [f"{many(len(lacking), 'gene')} without a value in some sample left out ({shown(lacking)})"] if lacking else []
    )
    again = ids["id"].duplicated(keep=False).to_numpy()
    if again.any() and twice == "drop":
        notes.append(
            f"{many(int(again.sum()), 'row')} left out whose name stands twice ({shown(ids['id'][again].unique())})"
        )
        ids, X = ids[~again].reset_index(drop=True), X[:, ~again]
    if symbols:
        ids["symbol"] = [symbols.get(i) for i in ids["id"]]
    return assembled(X, gene_names(ids, names, path), table[chosen], units, path.name, var=ids, notes=notes)


ABSENT = tuple(MISSING - {""})


def undone(values, base: float, offset: float, what: str = "the matrix"):
    """x of log_base(x + offset): exactly zero where a value is the floor as four decimals round it."""
    with np.errstate(over="ignore"):  # refused as not finite
        x = np.power(float(base), values) - offset
    floor = np.log(offset) / np.log(base) if offset > 0 else -np.inf
    if (values < floor - 0.01).any():
        low = values.min()
        raise DataError(f"{what} holds {low:g}, which is no log{base:g}(x + {offset:g}): correct base and offset")
    x[values <= floor + 0.5e-4] = 0.0
    return np.maximum(x, 0.0)


def side_by_side(parts: list) -> np.ndarray:
    """Blocks of genes × samples as one samples × genes array, each block let go as soon as it is copied."""
    X = np.empty((parts[0].shape[1], sum(map(len, parts))), np.float32)
    at = 0
    for i, part in enumerate(parts):
        X[:, at : at + len(part)] = part.T
        at += len(part)
        parts[i] = None
    return X


def _sorted(paths):
    phenotypes = probemap = None
    for path in paths:
        with opened(path, to_end=False) as stream:
            head = stream.readline().split(b"\t")[:2]
        if head == [b"id", b"gene"]:
            probemap = path
        elif phenotypes is None:
            phenotypes = path
        else:
            raise DataError(f"{path.name} and {phenotypes.name} are both phenotypes: give one")
    return phenotypes, probemap


def _symbols(path) -> dict:
    if path is None:
        return {}
    table = words(path, "\t", quoted=False)
    return dict(zip(column(table, "id", path), column(table, "gene", path)))


def _phenotypes(path, cells, matrix, extra):
    table = pd.DataFrame(index=cells)
    if path is not None:
        said = words(path, separator_of(path), quoted=False)
        key = next((k for k in ("sample", "sampleID") if k in said), None)
        if key is None:
            raise DataError(f"{path.name} has no column 'sample'; it has {shown(said.columns)}: {AGAIN}")
        found = {new: n for new, old in PHENOTYPES.items() for n in reversed(old) if n in said} | dict(extra or {})
        picked = pd.DataFrame({new: column(said, old, path) for new, old in found.items()})
        picked = joined(cells, picked.set_axis(pd.Index(said[key])), matrix.name, path.name)
        table = labels(picked)
    # TCGA-OR-A5J1-01 and TARGET-20-PANSBH-03A name the donor in three parts, GTEX-1117F-0226-SM-5GZZ7 in two.
    table["donor"] = cells.str.extract(r"^((?:TCGA|TARGET)-[^-]+-[^-]+|GTEX-[^-]+)", expand=False).to_numpy()
    if "study" in table:
        table["batch"] = table["study"]
    return table.dropna(axis=1, how="all")


def _of(table, samples, path):
    chosen = np.ones(len(table), bool)
    for name, values in (samples or {}).items():
        if name not in table:
            raise DataError(f"there is no column {name!r} to choose samples by; there are {shown(table.columns)}")
        hit = table[name].isin([values] if isinstance(values, str) else list(values)).to_numpy()
        if not hit.any():
            raise DataError(
                f"{path.name} has no sample with {name} {shown(values)}; there are {shown(table[name].unique())}"
            )
        chosen &= hit
    return chosen
