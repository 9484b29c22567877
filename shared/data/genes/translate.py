"""Genes by other names: from one kind to another, from mouse to human and back, and what got lost on the way."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from shared.data.constraints import OneOf, require
from shared.data.errors import DataError
from shared.data.genes.kinds import ENSEMBL, cut_version, damaged_names, gene_kind, renamed_names, wrong_species
from shared.data.genes.lists import lookup, many, names_of, shown, stamp, symbols
from shared.data.validate.structure import column_of, matrix_of, structure, widened
from shared.data.validate.values import summable, units_of

if TYPE_CHECKING:
    import anndata as ad

KEPT = 20  # names of lost genes that a report keeps
DUPLICATES = ("sum", "refuse", "first")


@dataclass(frozen=True)
class GeneReport:
    """What a change of gene names did; its ``str`` is one line.

    `step` is the function that did it. `before` and `after` are genes that came in and go out, `mapped` those that came
    in and have a new name, `merged` those of them whose new name another had got already: by `duplicates`, they were
    added to it (``"sum"``) or left out (``"first"``). `lost` gives reasons their numbers, `first` the first names lost
    for each; `notes` are damaged and retired names, layers that could not follow, and the like.
    """

    step: str
    before: int
    after: int
    mapped: int
    merged: int
    duplicates: str = "sum"
    lost: dict[str, int] = field(default_factory=dict)
    first: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self):
        said = [f"{self.step}: {self.mapped:,} of {many(self.before, 'gene')} mapped"]
        if self.merged:
            how = "added to" if self.duplicates == "sum" else "left out for"
            said.append(f"{self.merged:,} {how} a gene of the same new name")
        said += [f"{n:,} lost, {why} ({shown(self.first[why])})" for why, n in self.lost.items()]
        return "; ".join([*said, *self.notes])

    def as_dict(self) -> dict:
        """The report as words and numbers, as ``uns["gene_report"]`` holds it (an ``.h5ad`` file can, too)."""
        first = {why: list(names) for why, names in self.first.items()}
        return asdict(self) | {"first": first, "notes": list(self.notes)}


def to_symbols(adata: ad.AnnData, *, organism=None, column=None, duplicates="sum") -> tuple[ad.AnnData, GeneReport]:
    """Name the genes by symbols.

    :class:`DataError` is raised if no gene can be mapped, the species is another, or duplicates cannot be treated as
    asked.

    Parameters
    ----------
    adata : AnnData
        cells × genes, named by Ensembl ids; versions are cut. Symbols stay as they are.
    organism : {"human", "mouse"}, optional
        Refuse genes of another species.
    column : str, optional
        Take the new names from this column of ``var``: the way out of Entrez ids and probes, for which there is no
        table here.
    duplicates : {"sum", "refuse", "first"}, default "sum"
        What becomes of genes with the same symbol. Sums make no sense of logged and centred values, and are refused.

    Returns
    -------
    renamed : AnnData
        A copy, its genes in the order of their first appearance. ``var["before"]`` holds the names before,
        ``uns["gene_hash"]`` the hash of the new list, ``uns["gene_report"]`` the report.
    report : GeneReport
    """
    names = _start(adata, organism)
    if column is not None:
        return _rename(adata, _from_column(adata, column), f"no {column}", "to_symbols", duplicates)
    kind = _kind(names, organism)
    new = names if kind.kind == "symbols" else _symbols_of(names)
    return _rename(adata, new, "not in the table", "to_symbols", duplicates, kind)


def to_ensembl(adata: ad.AnnData, *, organism=None, duplicates="sum") -> tuple[ad.AnnData, GeneReport]:
    """Name the genes by Ensembl ids without versions, as :func:`to_symbols` does by symbols.

    A symbol that stands for several ids has no single answer and is lost; the report names it. `organism` is needed
    where the symbols do not tell it.
    """
    names = _start(adata, organism)
    kind = _kind(names, organism)
    if kind.kind == "ensembl":
        new = [cut_version(name) if ENSEMBL.match(name) else None for name in names]
        return _rename(adata, new, "no Ensembl id", "to_ensembl", duplicates)
    species = organism or kind.organism
    if species not in ("human", "mouse"):
        raise DataError(f"the data have {kind}, which do not tell the species: say organism='human' or 'mouse'")
    known, every, today = lookup(species, "symbol", "ensembl"), symbols(species), renamed_names(names)
    names = [name if name in every else today.get(name, name) for name in names]
    why = ["several ids of that symbol" if name in every else "not in the table" for name in names]
    return _rename(adata, [known.get(name) for name in names], why, "to_ensembl", duplicates, kind)


def to_human(adata: ad.AnnData, *, duplicates="sum") -> tuple[ad.AnnData, GeneReport]:
    """Mouse symbols or Ensembl ids to symbols of one-to-one human orthologues, as :func:`to_symbols` does it."""
    return _across(adata, "mouse", "human", duplicates)


def to_mouse(adata: ad.AnnData, *, duplicates="sum") -> tuple[ad.AnnData, GeneReport]:
    """Human genes to the symbols of their mouse partners; see :func:`to_human`."""
    return _across(adata, "human", "mouse", duplicates)


def merge_duplicates(adata: ad.AnnData, duplicates="sum") -> tuple[ad.AnnData, GeneReport]:
    """One column a name: the cure for a matrix that names genes twice. See :func:`to_symbols` for `duplicates`."""
    return _rename(adata, _start(adata), "no name", "merge_duplicates", duplicates)


def _start(adata, organism=None) -> list[str]:
    if organism not in (None, "human", "mouse"):
        raise DataError(f"organism {organism!r} has no gene table here: choose 'human' or 'mouse'")
    structure(adata, duplicated_genes=True)
    return names_of(adata)


def _kind(names, organism):
    kind = gene_kind(names)
    if cure := wrong_species(kind, organism):
        raise DataError(f"the data have {kind}, not {organism}: {cure}")
    return kind


def _from_column(adata, column) -> list[str | None]:
    values = column_of(adata.var, column, "var").astype(object)
    words = values.astype(str).str.strip()
    new = words.where(values.notna() & ~words.isin(["", "---"]), None)
    names_of(new.dropna(), f"var[{column!r}]")
    return new.tolist()


def _symbols_of(names) -> list[str | None]:
    """The symbols of Ensembl ids of either species; None where the tables have none."""
    known = lookup("mouse", "ensembl", "symbol") | lookup("human", "ensembl", "symbol")
    found = []
    for name in map(cut_version, names):
        # The Y chromosome's copy of a gene is measured apart, so it must not be added to the one on X.
        base = name.removesuffix("_PAR_Y")
        found.append(known[base] + name[len(base) :] if base in known else None)
    return found


def _across(adata, source, target, duplicates):
    names = _start(adata)
    kind = gene_kind(names)
    if kind.organism == target:
        raise DataError(f"the data have {kind} already: to_{target} takes {source} genes")
    why = "no one-to-one orthologue"
    if kind.kind == "ensembl":  # in a list of both species each id says which it is of
        theirs = "ENSG" if source == "human" else "ENSMUSG"
        own = [name.startswith(theirs) for name in names]
        names = [symbol if mine else None for symbol, mine in zip(_symbols_of(names), own)]
        lost = [f"not {source}" if not mine else "not in the table" for mine in own]
        why = [why if name else reason for name, reason in zip(names, lost)]
    partner, today = lookup("orthologs", source, target), renamed_names([name for name in names if name])
    new = [partner.get(name) or partner.get(today.get(name)) for name in names]
    return _rename(adata, new, why, f"to_{target}", duplicates, kind)


def _rename(adata, new, why, step, duplicates, kind=None):
    """`adata` with its genes called `new` (None where lost, for the reason or reasons `why`), one column a name."""
    require(OneOf(*DUPLICATES), duplicates=duplicates)
    old = pd.Series(names_of(adata), dtype=object)
    code, names = pd.factorize(np.array(new, dtype=object))  # -1 where lost; in the order of first appearance
    mapped, first = np.flatnonzero(code >= 0), np.flatnonzero((code >= 0) & ~pd.Series(code).duplicated())
    if not len(mapped):
        of = f"; they are {kind}" if kind else ""
        raise DataError(f"{step} knows none of the {many(len(old), 'gene')} ({shown(old)}){of}: check the names")
    notes, damaged, retired = [], damaged_names(old), renamed_names(old)
    if damaged:
        notes.append(f"{many(len(damaged), 'name')} damaged by a spreadsheet ({shown(damaged)})")
    if retired:
        notes.append("{} such as {}, now {}".format(many(len(retired), "retired name"), *next(iter(retired.items()))))
    merged = len(mapped) - len(names)
    if merged and duplicates == "refuse":
        twice = names[np.bincount(code[mapped]) > 1]
        said = f"{many(len(twice), 'name')} would stand for several genes ({shown(twice)})"
        raise DataError(f"{said}: choose duplicates='sum' for counts, or 'first'")
    with warnings.catch_warnings():
        # Genes may come in twice of a name: that is what is cured here.
        warnings.filterwarnings("ignore", message=".*names are not unique", category=UserWarning)
        if merged and duplicates == "sum":
            out, left = _summed(adata, code, mapped, first)
            notes += left
        else:
            mapped, out = first, adata[:, first]
            out = out.to_memory() if adata.isbacked else out.copy()
        if adata.raw is not None:
            out.raw = None
            notes.append("raw dropped, its genes had the old names")
        out.var_names = pd.Index(names, dtype=object)
    out.var["before"] = old[mapped].groupby(code[mapped]).agg(";".join).to_numpy()
    lost = old[code < 0].groupby(pd.Series(why, old.index)[code < 0], sort=False)
    told = {"lost": lost.size().to_dict(), "first": {reason: tuple(group[:KEPT]) for reason, group in lost}}
    genes = {"before": len(old), "after": len(names), "mapped": len(names) + merged, "merged": merged}
    report = GeneReport(step, **genes, **told, duplicates=duplicates, notes=tuple(notes))
    stamp(out, notes=[str(report)])
    out.uns["gene_report"] = report.as_dict()
    return out, report


def _summed(adata, code, mapped, first):
    """The genes of each code summed; what cannot be summed is left behind, and told."""
    import anndata as ad

    adata = adata.to_memory() if adata.isbacked else adata
    units = units_of(adata)
    if adata.X is not None and not summable(adata.X, units):
        raise DataError("logged or centred values cannot be summed: start from counts, or choose duplicates='first'")
    place = (np.ones(len(mapped), np.float32), (mapped, code[mapped]))
    place = sparse.csr_matrix(place, shape=(adata.n_vars, len(first)))

    def total(X):
        X = widened(matrix_of(X))
        if sparse.issparse(X):
            return X.tocsr() @ place.astype(X.dtype)
        return np.ascontiguousarray((place.T.astype(X.dtype) @ X.T).T)

    layers = {name: total(layer) for name, layer in adata.layers.items() if summable(layer)}
    notes = [f"layer {name!r} dropped, its values cannot be summed" for name in adata.layers if name not in layers]
    notes += [f"{what} dropped, genes were merged" for what in ("varm", "varp") if len(getattr(adata, what))]
    X, var = None if adata.X is None else total(adata.X), adata.var.iloc[first].copy()
    kept = {name: dict(getattr(adata, name)) for name in ("uns", "obsm", "obsp")}
    return ad.AnnData(X, obs=adata.obs.copy(), var=var, layers=layers, **kept), notes
