"""Genes by other names: from one kind to another, from mouse to human and back, and what got lost on the way."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from shared.data.constraints import OneOf, require
from shared.data.errors import DataError
from shared.data.genes.kinds import ENSEMBL, cut_version, damaged_names, gene_kind, renamed_names, wrong_species
from shared.data.genes.lists import check_organism, lookup, many, names_of, shown, stamp, symbols
from shared.data.validate.structure import matrix_of, structure, widened
from shared.data.validate.values import summable, units_of

if TYPE_CHECKING:
    import anndata as ad

KEPT = 20  # names of lost genes that a report keeps
DUPLICATES = ("sum", "refuse", "first")


@dataclass(frozen=True)
class GeneReport:
    """What a change of gene names did; its ``str`` is one line.

    Attributes
    ----------
    step : str
        The function that did it.
    before, after : int
        Genes that came in and that go out.
    mapped : int
        Genes that came in and have a new name.
    merged : int
        Genes that were mapped to a name another had got already: ``mapped - after``.
    duplicates : str
        What became of those: ``"sum"``: added to it, ``"first"``: left out.
    lost : dict of reason to number
    first : dict of reason to the first names lost for it
    notes : tuple of str
        Damaged and retired names, layers that could not follow, ...
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
        plain = asdict(self)
        plain["first"] = {why: list(names) for why, names in self.first.items()}
        return plain | {"notes": list(self.notes)}


def to_symbols(adata: ad.AnnData, *, organism=None, column=None, duplicates="sum") -> tuple[ad.AnnData, GeneReport]:
    """Name the genes by symbols.

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

    Raises
    ------
    DataError
        If no gene can be mapped, the species is another, or duplicates cannot be treated as asked.
    """
    names = _start(adata, organism)
    if column is not None:
        return _rename(adata, _from_column(adata, column), "to_symbols", duplicates)
    kind = gene_kind(names)
    _right_species(kind, organism)
    if kind.kind == "symbols":
        return _rename(adata, [(n, None) for n in names], "to_symbols", duplicates)
    return _rename(adata, _to_symbols(names), "to_symbols", duplicates, kind)


def to_ensembl(adata: ad.AnnData, *, organism=None, column=None, duplicates="sum") -> tuple[ad.AnnData, GeneReport]:
    """Name the genes by Ensembl ids without versions.

    A symbol that stands for several ids has no single answer and is lost; the report names it. Parameters, results
    and errors are those of :func:`to_symbols`; `organism` is needed where the symbols do not tell it.
    """
    names = _start(adata, organism)
    if column is not None:
        new = [(n and cut_version(n), why) for n, why in _from_column(adata, column)]
        return _rename(adata, new, "to_ensembl", duplicates)
    kind = gene_kind(names)
    _right_species(kind, organism)
    if kind.kind == "ensembl":
        new = [(cut_version(n), None) if ENSEMBL.match(n) else (None, "no Ensembl id") for n in names]
        return _rename(adata, new, "to_ensembl", duplicates)
    species = organism or kind.organism
    if species not in ("human", "mouse"):
        raise DataError(f"the data have {kind}, which do not tell the species: say organism='human' or 'mouse'")
    known, all_symbols = lookup(species, "symbol", "ensembl"), symbols(species)
    today = renamed_names(names)

    def look(name):
        name = name if name in all_symbols else today.get(name, name)
        if name in known:
            return known[name], None
        return None, "several ids of that symbol" if name in all_symbols else "not in the table"

    return _rename(adata, [look(n) for n in names], "to_ensembl", duplicates, kind)


def to_human(adata: ad.AnnData, *, duplicates="sum") -> tuple[ad.AnnData, GeneReport]:
    """Mouse genes to the symbols of their human partners; only one-to-one orthologues have one.

    Parameters
    ----------
    adata : AnnData
        cells × genes, named by mouse symbols or mouse Ensembl ids.
    duplicates : {"sum", "refuse", "first"}, default "sum"
        As in :func:`to_symbols`.

    Returns
    -------
    renamed : AnnData
    report : GeneReport

    Raises
    ------
    DataError
        If the genes are of another species, none has a partner, or duplicates cannot be treated as asked.
    """
    return _across(adata, "mouse", "human", duplicates)


def to_mouse(adata: ad.AnnData, *, duplicates="sum") -> tuple[ad.AnnData, GeneReport]:
    """Human genes to the symbols of their mouse partners; see :func:`to_human`."""
    return _across(adata, "human", "mouse", duplicates)


def merge_duplicates(adata: ad.AnnData, duplicates="sum") -> tuple[ad.AnnData, GeneReport]:
    """One column a name: the cure for a matrix that names genes twice. See :func:`to_symbols` for `duplicates`."""
    return _rename(adata, [(n, None) for n in _start(adata, None)], "merge_duplicates", duplicates)


def _start(adata, organism) -> list[str]:
    if organism is not None:
        check_organism(organism)
    structure(adata, duplicated_genes=True)
    return names_of(adata)


def _right_species(kind, organism):
    cure = wrong_species(kind, organism)
    if cure:
        raise DataError(f"the data have {kind}, not {organism}: {cure}")


def _from_column(adata, column):
    import pandas as pd

    if list(adata.var.columns).count(column) != 1:
        raise DataError(f"var has no column {column!r}; it has {shown(adata.var.columns) or 'none'}")
    new = []
    for value in adata.var[column].astype(object):
        missing = (
            value is None or (pd.api.types.is_scalar(value) and pd.isna(value)) or str(value).strip() in ("", "---")
        )
        new.append((None, f"no {column}") if missing else (str(value).strip(), None))
    names_of([n for n, _ in new if n], f"var[{column!r}]")
    return new


def _to_symbols(names):
    human, mouse = (lookup(species, "ensembl", "symbol") for species in ("human", "mouse"))

    def look(name):
        # The Y chromosome's copy of a gene is measured apart, so it must not be added to the one on X.
        plain = cut_version(name)
        base = plain.removesuffix("_PAR_Y")
        symbol = human.get(base) or mouse.get(base)
        return (symbol + plain[len(base) :], None) if symbol else (None, "not in the table")

    return [look(n) for n in names]


def _across(adata, source, target, duplicates):
    names = _start(adata, None)
    kind = gene_kind(names)
    if kind.organism == target:
        raise DataError(f"the data have {kind} already: to_{target} takes {source} genes")
    old = _to_symbols(names) if kind.kind == "ensembl" else [(n, None) for n in names]
    if kind.kind == "ensembl":  # in a list of both species each id says which it is of
        theirs = "ENSG" if source == "human" else "ENSMUSG"
        old = [o if n.startswith(theirs) else (None, f"not {source}") for o, n in zip(old, names)]
    partner = lookup("orthologs", source, target)
    today = renamed_names([n for n, _ in old if n])

    def look(name, why):
        if name is None:
            return None, why
        name = name if name in partner else today.get(name, name)
        return (partner[name], None) if name in partner else (None, "no one-to-one orthologue")

    return _rename(adata, [look(*o) for o in old], f"to_{target}", duplicates, kind)


def _rename(adata, new, step, duplicates, kind=None):
    """`adata` with its genes called `new` (name or None, and why None), those of one name merged."""
    with warnings.catch_warnings():
        # Genes may come in twice of a name: that is what is cured here.
        warnings.filterwarnings("ignore", message=".*names are not unique", category=UserWarning)
        return _renamed(adata, new, step, duplicates, kind)


def _renamed(adata, new, step, duplicates, kind):
    import numpy as np
    import pandas as pd

    require(OneOf(*DUPLICATES), duplicates=duplicates)
    old = names_of(adata)
    groups: dict[str, list[int]] = {}
    for i, (name, _) in enumerate(new):
        if name is not None:
            groups.setdefault(name, []).append(i)
    if not groups:
        of = f"; they are {kind}" if kind else ""
        raise DataError(f"{step} knows none of the {many(len(old), 'gene')} ({shown(old)}){of}: check the names")
    mapped, twice = sum(map(len, groups.values())), [name for name, members in groups.items() if len(members) > 1]
    merged, first = mapped - len(groups), [members[0] for members in groups.values()]
    notes = _noticed(old)
    if merged and duplicates == "refuse":
        raise DataError(
            f"{many(len(twice), 'name')} would stand for several genes ({shown(twice)}): "
            "choose duplicates='sum' for counts, or 'first'"
        )
    if merged and duplicates == "sum":
        out, left = _summed(adata, list(groups.values()))
        notes += left
    else:
        out = adata[:, np.array(first)]
        out = out.to_memory() if adata.isbacked else out.copy()
        if merged:
            groups = {name: members[:1] for name, members in groups.items()}
    if adata.raw is not None:
        out.raw = None
        notes.append("raw dropped, its genes had the old names")
    out.var_names = pd.Index(list(groups), dtype=object)
    out.var["before"] = [";".join(old[i] for i in members) for members in groups.values()]
    gone: dict[str, list[str]] = {}
    for i, (name, why) in enumerate(new):
        if name is None:
            gone.setdefault(why, []).append(old[i])
    report = GeneReport(
        step=step,
        before=len(old),
        after=len(groups),
        mapped=mapped,
        merged=merged,
        duplicates=duplicates,
        lost={why: len(names) for why, names in gone.items()},
        first={why: tuple(names[:KEPT]) for why, names in gone.items()},
        notes=tuple(notes),
    )
    stamp(out, notes=[str(report)])
    out.uns["gene_report"] = report.as_dict()
    return out, report


def _noticed(names) -> list[str]:
    said, damaged, old = [], damaged_names(names), renamed_names(names)
    if damaged:
        said.append(f"{many(len(damaged), 'name')} damaged by a spreadsheet ({shown(damaged)})")
    if old:
        first, new = next(iter(old.items()))
        said.append(f"{many(len(old), 'retired name')} such as {first}, now {new}")
    return said


def _summed(adata, groups):
    """The genes of each group summed; what cannot be summed is left behind, and told."""
    import anndata as ad
    import numpy as np
    from scipy import sparse

    rows, columns = np.concatenate(groups), np.repeat(np.arange(len(groups)), list(map(len, groups)))
    place = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(adata.n_vars, len(groups)))

    def total(X):
        X = widened(matrix_of(X))
        if sparse.issparse(X):
            return X.tocsr() @ place.astype(X.dtype)
        return np.ascontiguousarray((place.T.astype(X.dtype) @ X.T).T)

    if adata.isbacked:
        adata = adata.to_memory()
    units = units_of(adata)
    if adata.X is not None and not summable(adata.X, units):
        raise DataError(
            f"several genes get one name, and logged or centred values cannot be summed"
            f"{f' (units: {units})' if isinstance(units, str) else ''}: start from counts, or choose duplicates='first'"
        )
    layers = {name: total(layer) for name, layer in adata.layers.items() if summable(layer)}
    notes = [f"layer {name!r} dropped, its values cannot be summed" for name in adata.layers if name not in layers]
    notes += [f"{what} dropped, genes were merged" for what in ("varm", "varp") if len(getattr(adata, what))]
    out = ad.AnnData(
        None if adata.X is None else total(adata.X),
        obs=adata.obs.copy(),
        var=adata.var.iloc[[members[0] for members in groups]].copy(),
        uns=dict(adata.uns),
        obsm=dict(adata.obsm),
        obsp=dict(adata.obsp),
        layers=layers,
    )
    return out, notes
