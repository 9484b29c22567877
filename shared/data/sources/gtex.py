"""GTEx: gene expression of many tissues of many donors, in the .gct format, read in blocks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from shared.data.constraints import OneOf, require
from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io.assemble import assembled, joined, labels
from shared.data.io.text import AGAIN, column, fields, opened, sound, words
from shared.data.io.wide import gene_names, wanted_blocks

NEEDED = {"tissue": "SMTSD", "organ": "SMTS"}
WELCOME = {"batch": "SMGEBTCH", "center": "SMCENTER", "rin": "SMRIN", "ischemic_minutes": "SMTSISCH"}


def read(
    paths: list[Path],
    *,
    genes: Iterable | None = None,
    tissues: Iterable | None = None,
    names: str = "ensembl",
    units: str = "tpm",
):
    """Samples × genes, in memory only what is asked for and one block of text.

    Layout of ``…_gene_tpm.gct.gz``: a line ``#1.2``; a line with the numbers of genes and samples; a header ``Name``,
    ``Description`` and the samples; then for each gene its Ensembl id with a version, its symbol and the values, all
    in tabs. ``…_SampleAttributesDS.txt``: one row a sample (SAMPID, SMTS organ, SMTSD tissue, SMGEBTCH batch, ...), of
    more samples than have RNA. Values are TPM; ``…_gene_reads.gct.gz`` holds counts in the same form
    (``units="counts"``).

    The whole of version 8 is 17,382 × 56,200, 3.9 GB as float32. A donor gave many tissues: split by ``obs["donor"]``.
    Genes of the X and the Y chromosome that are the same piece (ids ending in ``_PAR_Y``) keep their full name.

    Parameters
    ----------
    paths : list of Path
        The .gct, gzipped or not, and the sample attributes.
    genes : sequence of str, optional
        Read these only: Ensembl ids with or without version, or symbols.
    tissues : sequence of str, optional
        Read samples of these tissues or organs only.
    names : {"ensembl", "versioned", "symbol"}
        What names the genes: the id cut at the version, as it stands, or the symbol where one gene alone has it.
    units : str
        What the values are: "tpm" or "counts".

    Returns
    -------
    AnnData
        ``X``: float32 ndarray. ``obs``: tissue, organ, donor, and batch, center, rin, ischemic_minutes as far as the
        attributes have them. ``var``: id (as it stands), symbol.

    Raises
    ------
    DataError
        If a file is damaged, the table is not as large as its second line says, a sample has no attributes, or an asked
        tissue or gene is not there.
    """
    path, attributes = paths
    require(OneOf("ensembl", "versioned", "symbol"), names=names)
    asked = None if genes is None else {str(g).encode() for g in genes}
    hit: set = set()

    def keep(ids):
        mine = asked.intersection((ids[0], ids[0].split(b".")[0], ids[1]))
        hit.update(mine)
        return bool(mine)

    found, parts, notes, at = [], [], [], 0
    with opened(path) as stream:
        due, samples = _head(stream, path)
        obs = _samples(attributes, samples, path)
        chosen = _of(obs, tissues, path)
        columns, rule = np.flatnonzero(chosen) + 2, None if asked is None else keep
        X = np.empty((int(chosen.sum()), due if asked is None else 0), np.float32)
        for ids, block in wanted_blocks(stream, path, 2, 2 + len(samples), columns, rule, due=due):
            found.append(ids)
            block = sound(block, units, ids, path).T
            if asked is None:
                X[:, at : at + block.shape[1]] = block
                at += block.shape[1]
            else:
                parts.append(block.astype(np.float32))
    if asked is not None:
        lost = sorted(g.decode() for g in asked - hit)
        if not parts:
            raise DataError(
                f"{path.name} has none of the genes asked for ({shown(lost)}): ids or symbols of human genes"
            )
        notes += [f"{many(len(lost), 'gene')} asked for and not there ({shown(lost)})"] if lost else []
        X = np.concatenate(parts, axis=1)
    ids = pd.concat(found, ignore_index=True).set_axis(["id", "symbol"], axis=1)
    named = gene_names(ids, names, path)
    return assembled(X, named, obs[chosen], units, path.name, var=ids, notes=notes)


def _head(stream, path):
    version, sizes = stream.readline().strip(), stream.readline().split()
    if version != b"#1.2":
        raise DataError(f"{path.name} begins with {version[:20]!r} where #1.2 is due: it is no .gct of GTEx, {AGAIN}")
    if len(sizes) < 2 or not all(s.isdigit() for s in sizes[:2]):
        raise DataError(f"{path.name} does not state its size in its second line: it is damaged, {AGAIN}")
    due, n = map(int, sizes[:2])
    name, symbol, *samples = fields(stream.readline(), "\t", path) or ["", ""]
    if (name, symbol) != ("Name", "Description"):
        raise DataError(f"{path.name} has columns {shown([name, symbol])} where Name and Description are due: {AGAIN}")
    if len(samples) != n:
        raise DataError(f"{path.name} says it has {n:,} samples, and names {len(samples):,}: it is damaged, {AGAIN}")
    return due, pd.Index(samples, dtype=object)


def _samples(path, samples, matrix):
    table = words(path, "\t", quoted=False)
    picked = {new: column(table, old, path) for new, old in NEEDED.items()}
    picked |= {new: column(table, old, path) for new, old in WELCOME.items() if old in table}
    found = pd.DataFrame(picked).set_axis(pd.Index(column(table, "SAMPID", path)))
    found = labels(joined(samples, found, matrix.name, path.name, need_all=True))
    for name in {"rin", "ischemic_minutes"} & set(found):
        found[name] = pd.to_numeric(found[name], errors="coerce")
    found.insert(2, "donor", samples.str.extract(r"^([^-]+-[^-]+)", expand=False).to_numpy())
    return found


def _of(obs, tissues, path):
    if tissues is None:
        return np.ones(len(obs), bool)
    tissues = [tissues] if isinstance(tissues, str) else list(tissues)
    lost = [t for t in tissues if not ((obs["tissue"] == t) | (obs["organ"] == t)).any()]
    if lost:
        raise DataError(
            f"{path.name} has no sample of {shown(lost)}; tissues are {shown(obs['tissue'].dropna().unique())}"
        )
    return (obs["tissue"].isin(tissues) | obs["organ"].isin(tissues)).to_numpy()
