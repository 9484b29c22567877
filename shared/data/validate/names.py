"""Findings about the names of genes: their kind, their species, damage, and overlap with a reference list."""

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd

from shared.data.errors import DataError, warn
from shared.data.genes import kinds
from shared.data.genes.lists import UNWRITABLE, gene_hash, many, names_of, once, shown, symbols, tidy
from shared.data.validate.findings import Finding, findings

# What stands where a name or a value is not known.
MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "None", "not applicable", "not available", "--"})
SHOUTED = 0.03  # share of mouse-only names in upper case; human sets hold 0.004, mouse ones written so 0.08
# What HTSeq, STAR and featureCounts write below the genes: reads that they could not count.
TALLIES = re.compile(
    r"(?:__)?(?:no_feature|ambiguous|too_low_aQual|not_aligned|alignment_not_unique)"
    r"|N_(?:unmapped|multimapping|noFeature|ambiguous)|Unassigned_\w+"
)
# What describes a cell or sample in a table beside the matrix.
DESCRIPTIONS = re.compile(
    r"orig[._]ident|n_?(counts?|features?|genes?|umis?|reads)([_.]\w+)?|((total|pct|percent|log1p|frac)[._]\w+|totals?|sums?)"
    r"|(doublet|s|g2m)[._]?scores?|phase|seurat_clusters|leiden|louvain|clusters?|(umap|t?sne|pca?)[_.]\d+"
    r"|(cell|sample|tissue|library|donor|patient|subject)([_.]?(type|id|name|labels?|annotation))?s?"
    r"|(age|sex|gender|bmi|batch|organ|disease|diagnosis|condition|treatment|group|status|stage|barcode|weight|height)"
    r"([_.](years?|days|id|name))?",
    re.IGNORECASE,
)
# Names of a first column: a header that begins so and is one short has lost another column.
CORNERS = re.compile(
    r"#?(|x|id|index|names?|row\W?names?|unnamed: 0(\.\d+)?|genes?|probe.*|transcript.*|sample.*|cells?|barcodes?"
    r"|symbols?|obs|well|(gene|cell|barcode|spot|donor|patient)[._ ]?(id|name|symbol|barcode)s?)",
    re.IGNORECASE,
)
DESCRIBES = "describes cells or samples ({names}) and holds no expression"
BESIDE = "read it with pandas and join it to adata.obs of the matrix it belongs to"
GENOMES = ("GRCh37_", "GRCh38_", "hg19_", "hg38_", "GRCm38_", "GRCm39_", "mm10_", "mm39_")


def describing(columns) -> list[str]:
    """The names that describe a cell, where half of `columns` do: such a table is no matrix of expression."""
    found = [str(c) for c in columns if DESCRIPTIONS.fullmatch(str(c))]
    return found if 2 * len(found) >= len(columns) else []


def of_names(adata, kind, organism) -> Iterator[Finding]:
    """What deserves a look in the names of genes, which are of `kind` and should be of `organism`."""
    names = names_of(adata)
    if _transposed(adata, kind):
        rows = f"{shown(adata.obs_names[:3])}: {kinds.gene_kind(adata.obs_names)}"
        problem = f"names genes where cells should be ({rows})"
        yield Finding("transposed", "error", problem, "it is genes × cells, turn it with adata = adata.T")
        return
    described, told = describing(names), [n for n in names if DESCRIPTIONS.fullmatch(n)]
    spaced, apart = ([n for n in map(str, own) if n != tidy(n)] for own in (names, adata.obs_names))
    nameless = [n for n in names if n.strip().lower() in ("", "nan", "none", "<na>", "nat")]
    damaged, retired = kinds.damaged_names(names), kinds.renamed_names(names)
    first, was = next(iter(damaged.items()), ("", ()))
    old, new = next(iter(retired.items()), ("", ""))
    tallies = [n for n in names if TALLIES.fullmatch(n)]
    genome = [g for g in GENOMES if any(n.startswith(g) for n in names)]
    yield from findings(
        (described, "no expression", "error", DESCRIBES.format(names=shown(described)), BESIDE),
        (told and not described, "descriptions", "warning",
         f"has {many(len(told), 'gene')} named as what describes a cell ({shown(told)})", "move them into obs"),
        (spaced, "spaces", "warning",
         f"has {many(len(spaced), 'gene name')} with spaces around or unseen signs ({shown(map(ascii, spaced))})",
         "adata.var_names = adata.var_names.map(shared.data.genes.lists.tidy)"),
        (apart, "spaces of cells", "warning",
         f"has {many(len(apart), 'cell name')} with spaces around or unseen signs ({shown(map(ascii, apart))})",
         "adata.obs_names = adata.obs_names.map(shared.data.genes.lists.tidy)"),
        (nameless, "nameless genes", "warning",
         f"has {many(len(nameless), 'gene')} without a name ({shown(map(repr, nameless))})", "name or drop them"),
        (tallies, "tallies", "warning",
         f"has {many(len(tallies), 'tally')} of reads among its genes ({shown(tallies)})",
         f"adata = adata[:, ~adata.var_names.isin({tallies})].copy()"),
        (damaged, "spreadsheet", "warning",
         f"has {many(len(damaged), 'gene name')} a spreadsheet turned into dates or numbers ({shown(damaged)})",
         f"take names from the source; {first} was {' or '.join(was) or 'a clone name that is lost'}"),
        (retired, "retired", "note",
         f"has {many(len(retired), 'retired gene name')} ({shown(retired)})",
         f"{old} is {new} today; the translations here know both"),
        (genome, "genome", "warning", f"has gene names that begin with a genome ({', '.join(genome)})",
         "cut it off, and part the species if there are two"),
    )  # fmt: skip
    yield from _of_kind(adata, names, kind, organism)
    stated = adata.uns.get("gene_hash")
    if isinstance(stated, str) and stated != gene_hash(names):
        cure = "genes were chosen since; shared.data.genes.lists.stamp(adata) writes it anew"
        yield Finding("gene hash", "note", "carries the hash of another list of genes in uns['gene_hash']", cure)


def _transposed(adata, kind) -> bool:
    """Names decide, not the shape: bulk sets and panels have fewer genes than samples, or more."""
    if kind.kind not in ("unknown", "entrez") or adata.n_obs < 3:
        return False
    cells = [str(n) for n in adata.obs_names]
    writable = not any(UNWRITABLE.search(n) for n in cells)
    return writable and kinds.gene_kind(cells).kind in ("symbols", "ensembl", "transcripts", "probes")


def _of_kind(adata, names, kind, organism) -> list[Finding]:
    columns = adata.var.columns
    wrong = kinds.wrong_species(kind, organism)
    shouted = kinds.shouted_mouse(names) if (kind.kind, kind.organism, wrong) == ("symbols", "human", None) else 0
    made = []
    if kind.kind == "symbols" and kind.organism in ("human", "mouse"):
        known = symbols(kind.organism)
        have = known.intersection(names)
        made = [n for n in names if n[-2:-1] in ("-", ".") and n[-1:].isdigit() and n[:-2] in have and n not in known]
    numbered = "Entrez ids" if kind.kind == "entrez" else "probes"
    mixed = "warning" if organism is None else "error"
    return findings(
        (kind.kind == "unknown", "unknown names", "note",
         f"has gene names of a kind not known here ({shown(names)})",
         "fine by itself (antibodies, regions); nothing here can translate them"),
        (kind.kind == "transcripts", "transcripts", "warning", f"names transcripts ({shown(names)})",
         "sum them to genes first, with the table they were made with"),
        (kind.kind in ("entrez", "probes") and not columns.empty, "ids", "note", f"names genes by {numbered}",
         f"if a column of var holds symbols ({shown(columns)}), to_symbols(adata, column=...)"),
        (kind.kind == "ensembl" and any(kinds.cut_version(n) != n and "." in n for n in names), "versions", "note",
         "has Ensembl ids with versions", "to_ensembl and to_symbols cut them"),
        (kind.organism == "mixed", "species", mixed, "has genes of human and mouse", "part them before anything else"),
        (wrong, "species", "error", f"has {kind}, not {organism} genes", wrong),
        (shouted > SHOUTED, "species", "warning",
         f"has mouse symbols in upper case ({shouted:.0%} of the names)",
         f"write them as mouse symbols are, then {kinds.TRANSLATE}.to_human"),
        (made, "made unique", "note",
         f"has {many(len(made), 'gene name')} as copies get when made unique ({shown(made)})",
         "take Ensembl ids if there are any, or drop them"),
    )  # fmt: skip


def of_overlap(adata, genes, kind) -> list[Finding]:
    """Why `adata`, whose genes are of `kind`, shares less than half of the reference list `genes`."""
    wanted, have = names_of(genes, "the reference list"), names_of(adata)
    if not wanted:
        raise DataError("the reference list is empty: give the genes to compare with")
    once(wanted, "the reference list")
    shared = len({*have} & {*wanted})
    if shared >= len(wanted) / 2:
        return []
    theirs, cure = kinds.gene_kind(wanted), ""
    if kind.kind != theirs.kind and theirs.kind in ("symbols", "ensembl"):
        cure = f": {kinds.TRANSLATE}.to_{theirs.kind} translates what it knows"
    elif {kind.organism, theirs.organism} == {"human", "mouse"}:
        cure = f": {kinds.TRANSLATE}.to_{theirs.organism} translates"
    said = f"the data have {kind} such as {have[0]!r}, the list {theirs} such as {wanted[0]!r}"
    problem = f"shares {shared:,} of {many(len(wanted), 'gene')} with the reference list"
    return [Finding("overlap", "warning" if shared else "error", problem, said + cure)]


def distinct(short, full, what: str) -> np.ndarray:
    """The short name of each gene where no other gene has it, else its full name; full names must differ.

    Renaming the second of two that share a symbol by a number makes a gene that no other data set has, and summing them
    is the reader's choice (:func:`~shared.data.genes.translate.merge_duplicates`).
    """
    short, full = pd.Series(np.asarray(short, dtype=object)), pd.Series(np.asarray(full, dtype=object))
    names = short.where(~(short.duplicated(keep=False) | short.isin(MISSING)), full)
    # A full name may be another gene's short name: "1-Dec" the symbol, and "1-Dec" the label of an unnamed row.
    names = names.where(~(names.duplicated(keep=False) & (names != full)), full)
    twice = names[names.duplicated()].unique()
    if len(twice):
        raise DataError(f"{what} names {many(len(twice), 'gene')} more than once ({shown(twice)}): fetch it again")
    return names.to_numpy(dtype=object)


def headless(corner, names) -> bool:
    """Whether a table's first line is no header but the row of a gene, as where a program counts reads."""
    if not corner or not names or not all(re.fullmatch(r"[-+.eE]*\d[-+.\deE]*", name.strip()) for name in names):
        return False
    first = corner[0]
    return bool(kinds.ENSEMBL.match(first) or TALLIES.fullmatch(first) or first in symbols("human") | symbols("mouse"))


def unnamed(cells, corner, path) -> bool:
    """Whether the first column is a gene's, as in a table saved without the names of its cells; doubt is told."""
    if (cells == "").any():
        raise DataError(f"{path.name} has {many(int((cells == '').sum()), 'cell')} without a name: write one for each")
    if not corner or CORNERS.fullmatch(corner[0]) or pd.to_numeric(cells, errors="coerce").isna().any():
        return False
    if corner[0] in symbols("human") | symbols("mouse") or kinds.ENSEMBL.match(corner[0]):
        return True
    cure = "save it with a first column of cell names (in pandas, without index=False)"
    if cells.has_duplicates:
        raise DataError(f"{path.name} has no names of cells: under {corner[0]!r} stand numbers, as of a gene; {cure}")
    warn(f"{path.name} names cells by the numbers under {corner[0]!r}: if that is a gene, {cure}")
    return False
