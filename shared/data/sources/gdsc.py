"""Cancer cell lines of GDSC as two packages carry them: expression, ln IC50, tissue and subtype."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from shared.data.constraints import OneOf, require
from shared.data.errors import DataError
from shared.data.io.tables import refused
from shared.data.sources.tensors import read_tensors

EXPRESSION, GENES, LABELS = "GDSC_EXP.pkl", "key.genes.txt", "cosmic_info.csv.gz"
SCREENS = {"ln_ic50_gdsc1": "GDSC1_IC50.csv", "ln_ic50_gdsc2": "GDSC2_IC50.csv"}
COLUMNS = {
    "SAMPLE_NAME": "cell_line",
    "GDSC1": "tissue",
    "GDSC2": "subtype",
    "TCGA": "tcga_type",
    "MMR": "msi",
    "GROWTH_PROPERTIES": "growth",
}
# Two pairs of lines differ in a hyphen only, which the expression table leaves out. Its TT has genes of the thyroid's C
# cells (CALCA, RET) and is not the oesophagus line T-T; its KMH2 has those of a blood cell (PTPRC, LCP1) and is not the
# thyroid line KMH-2.
SPELT = {"TT": "TT", "KMH2": "KM-H2"}


def read(paths: list[Path], *, unmeasured: str = "drop"):
    """Cell lines × genes, with ln IC50 beside them.

    Parameters
    ----------
    paths : list of Path
        ``GDSC_EXP.pkl`` (a pickled dict of line to tensor, read by a reader that runs nothing), ``key.genes.txt`` (the
        names of its columns), ``GDSC1_IC50.csv``, ``GDSC2_IC50.csv`` and ``cosmic_info.csv.gz``, in any order.
    unmeasured : {"drop", "keep"}
        What becomes of genes whose column holds one and the same filler in every line: the packagers had no measurement
        of them. With "keep" they stay, and ``var["measured"]`` tells them.

    Returns
    -------
    AnnData
        ``X`` : float32, lines × genes, z-scored over the genes of each line (before any gene was dropped).
        ``obs`` : cell_line, tissue, subtype, tcga_type, msi, growth; missing for lines without a label.
        ``obsm["ln_ic50_gdsc1"]``, ``obsm["ln_ic50_gdsc2"]`` : float32 DataFrames, lines × drugs, natural logarithm of
        the IC50 in micromolar; the mean where a drug was screened more than once, NaN where never.

    Raises
    ------
    DataError
        If a file is missing or damaged, or the files do not belong together.
    """
    import anndata as ad

    require(OneOf("drop", "keep"), unmeasured=unmeasured)
    files = {Path(p).name: Path(p) for p in paths}
    missing = [n for n in (EXPRESSION, GENES, *SCREENS.values(), LABELS) if n not in files]
    if missing:
        raise DataError(f"GDSC needs {', '.join(missing)} as well: give all five files")
    expression = _expression(files[EXPRESSION], files[GENES])
    labels = _labels(files[LABELS], expression.index)
    # float32 throughout, and compared exactly: the filler is written over, not measured.
    filler = expression.min(axis=1)
    measured = ~expression.eq(filler, axis=0).all()
    var = pd.DataFrame({"measured": measured.to_numpy()}, index=pd.Index(expression.columns, name="symbol"))
    if unmeasured == "drop":
        expression, var = expression.loc[:, measured], var.loc[measured.to_numpy(), []]
    found = ad.AnnData(expression.to_numpy(np.float32), obs=labels, var=var)
    for name, file in SCREENS.items():
        found.obsm[name] = _screen(files[file], found.obs_names)
    found.uns["units"] = "z"
    return found


def plain(name) -> str:
    """A cell line's name without hyphens, blanks and case: the two packages spell them differently."""
    return re.sub(r"[^A-Z0-9]", "", str(name).upper())


def _matched(names, lines) -> list[str | None]:
    """The expression table's name of each of `names`, None where the table has no such line."""
    known = set(lines)

    def one(name):
        short = plain(name)
        if name != SPELT.get(short, name):
            return None
        # NCI-H2869 is called H2869 by some
        return next((n for n in (short, short.removeprefix("NCI")) if n in known), None)

    return [one(name) for name in names]


def _expression(path, genes_path):
    tensors = read_tensors(path)
    try:
        genes = genes_path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeError) as e:
        raise DataError(f"{genes_path.name} cannot be read: {e}; fetch it again") from e
    wrong = next((n for n, t in tensors.items() if t.shape != (len(genes),) or t.dtype.kind != "f"), None)
    if wrong is not None:
        raise DataError(
            f"{path.name}: line {wrong[:80]!r} has {tensors[wrong].dtype} of shape {tensors[wrong].shape}, but "
            f"{genes_path.name} names {len(genes)} genes: the files do not belong together"
        )
    table = pd.DataFrame(np.stack(list(tensors.values())), index=[plain(n) for n in tensors], columns=genes)
    for names, what in ((table.index, "line"), (table.columns, "gene")):
        if names.has_duplicates:
            raise DataError(f"{path.name}: {what} {names[names.duplicated()][0]!r} stands twice; fetch the file again")
    if not np.isfinite(table.to_numpy()).all():
        raise DataError(f"{path.name} holds values that are NaN or infinite: fetch it again")
    return table


def _table(path, columns):
    with refused(path):
        table = pd.read_csv(path, usecols=columns)
    if table.empty:
        raise DataError(f"{path.name} has no rows: fetch it again")
    return table


def _labels(path, lines):
    table = _table(path, list(COLUMNS))[list(COLUMNS)].rename(columns=COLUMNS)
    table["line"] = _matched(table["cell_line"], lines)
    known = table.dropna(subset="line").drop_duplicates("line").set_index("line").reindex(lines)
    if known["tissue"].isna().all():
        raise DataError(f"{path.name} names none of the lines of {EXPRESSION}: the files do not belong together")
    known["cell_line"] = known["cell_line"].where(known["cell_line"].notna(), pd.Series(lines, lines)).astype(str)
    rest = [c for c in known if c != "cell_line"]
    known[rest] = known[rest].astype("category")
    return known.rename_axis("line")


def _screen(path, lines):
    table = _table(path, ["CELL_LINE_NAME", "DRUG_NAME", "LN_IC50"])
    if table["LN_IC50"].dtype.kind != "f" or not np.isfinite(table["LN_IC50"]).all():
        raise DataError(f"{path.name}: LN_IC50 holds words, NaN or infinities; fetch it again")
    names = table["CELL_LINE_NAME"].drop_duplicates()
    table["line"] = table["CELL_LINE_NAME"].map(dict(zip(names, _matched(names, lines), strict=True)))
    # A slash in a column's name would be taken for a folder when the table is written to .h5ad.
    table["drug"] = table["DRUG_NAME"].astype(str).str.strip().str.replace("/", "-", regex=False)
    if table["line"].isna().all():
        raise DataError(f"{path.name} names none of the lines of {EXPRESSION}: the files do not belong together")
    wide = table.pivot_table(index="line", columns="drug", values="LN_IC50", aggfunc="mean")
    return wide.reindex(lines).astype(np.float32).rename_axis(columns=None, index=lines.name)
