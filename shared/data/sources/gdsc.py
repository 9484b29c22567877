"""Cancer cell lines of GDSC as two packages carry them: expression, ln IC50, tissue and subtype."""

import re

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.io import named
from shared.data.io.tables import refused
from shared.data.sources.common import one_of_each
from shared.data.sources.tensors import read_tensors

FILES = {
    "expression": r"^GDSC_EXP\.pkl$",
    "genes": r"^key\.genes\.txt$",
    "ln_ic50_gdsc1": r"^GDSC1_IC50\.csv$",
    "ln_ic50_gdsc2": r"^GDSC2_IC50\.csv$",
    "labels": r"^cosmic_info\.csv\.gz$",
}
COLUMNS = {
    "SAMPLE_NAME": "cell_line",
    "GDSC1": "tissue",
    "GDSC2": "subtype",
    "TCGA": "tcga_type",
    "MMR": "msi",
    "GROWTH_PROPERTIES": "growth",
}
MEASURED = {"CELL_LINE_NAME": "cell_line", "DRUG_NAME": "drug", "LN_IC50": "ln_ic50"}
# Two pairs of lines differ in a hyphen only, which the expression table leaves out. Its TT has genes of the thyroid's C
# cells (CALCA, RET) and is not the oesophagus line T-T; its KMH2 has those of a blood cell (PTPRC, LCP1) and is not the
# thyroid line KMH-2.
SPELT = {"TT": "TT", "KMH2": "KM-H2"}


def read(paths):
    """Cell lines × genes, with ln IC50 beside them.

    Files, in any order: ``GDSC_EXP.pkl`` (a pickled dict of line to tensor, read by a reader that runs nothing),
    ``key.genes.txt`` (the names of its columns), ``GDSC1_IC50.csv``, ``GDSC2_IC50.csv`` and ``cosmic_info.csv.gz``.
    Genes whose column holds one and the same filler in every line were not measured, and are left out.

    ``X`` : float32 ndarray, z-scored over the genes of each line (before any gene was dropped). ``obs`` : cell_line,
    tissue, subtype, tcga_type, msi, growth; missing for lines without a label. ``obsm["ln_ic50_gdsc1"]``,
    ``obsm["ln_ic50_gdsc2"]`` : float32 DataFrames, lines × drugs, natural logarithm of the IC50 in micromolar; the mean
    where a drug was screened more than once, NaN where never.
    """
    files = dict(zip(FILES, one_of_each(paths, FILES)))
    expression = _expression(files["expression"], files["genes"])
    # Compared exactly: the filler is written over, not measured.
    expression = expression.loc[:, expression.ne(expression.min(axis=1), axis=0).any()]
    found = named(expression.to_numpy(np.float32), expression.columns, expression.index, files["expression"].name)
    found.var_names.name = "symbol"
    found.obs = _labels(files["labels"], found.obs_names)
    for name in ("ln_ic50_gdsc1", "ln_ic50_gdsc2"):
        found.obsm[name] = _screen(files[name], found.obs_names)
    found.uns["units"] = "z"
    return found


def plain(name) -> str:
    """A cell line's name without hyphens, blanks and case: the two packages spell them differently."""
    return re.sub(r"[^A-Z0-9]", "", str(name).upper())


def _expression(path, genes_path):
    tensors = read_tensors(path)
    with refused(genes_path, "names of genes"):
        genes = genes_path.read_text(encoding="utf-8").split()
    wrong = next((n for n, t in tensors.items() if t.shape != (len(genes),)), None)
    if wrong is not None:
        said = f"line {wrong[:80]!r} has shape {tensors[wrong].shape}, but {genes_path.name} names {len(genes)} genes"
        raise DataError(f"{path.name}: {said}: the files do not belong together")
    table = pd.DataFrame(np.stack(list(tensors.values())), index=[plain(n) for n in tensors], columns=genes)
    if not np.isfinite(table.to_numpy()).all():
        raise DataError(f"{path.name} holds values that are NaN or infinite: fetch it again")
    return table


def _matched(path, columns, lines):
    """Columns of a table, the first of which names lines, with the expression table's name of each as ``line``."""
    with refused(path):
        table = pd.read_csv(path, usecols=list(columns))[list(columns)].rename(columns=columns)
    known, names = set(lines), {}
    for name in table.iloc[:, 0].unique():
        short = plain(name)
        if name == SPELT.get(short, name):
            # NCI-H2869 is called H2869 by some
            names[name] = next((n for n in (short, short.removeprefix("NCI")) if n in known), None)
    table["line"] = table.iloc[:, 0].map(names)
    if table["line"].isna().all():
        raise DataError(f"{path.name} names none of the lines with expression: the files do not belong together")
    return table


def _labels(path, lines):
    table = _matched(path, COLUMNS, lines)
    known = table.dropna(subset="line").drop_duplicates("line").set_index("line").reindex(lines.rename("line"))
    known["cell_line"] = known["cell_line"].fillna(pd.Series(lines, lines)).astype(str)
    return known.astype(dict.fromkeys(known.columns[1:], "category"))


def _screen(path, lines):
    table = _matched(path, MEASURED, lines)
    if table["ln_ic50"].dtype.kind != "f" or not np.isfinite(table["ln_ic50"]).all():
        raise DataError(f"{path.name}: LN_IC50 holds words, NaN or infinities; fetch it again")
    # A slash in a column's name would be taken for a folder when the table is written to .h5ad.
    table["drug"] = table["drug"].astype(str).str.strip().str.replace("/", "-", regex=False)
    wide = table.pivot_table(index="line", columns="drug", values="ln_ic50", aggfunc="mean")
    return wide.reindex(lines).astype(np.float32).rename_axis(columns=None, index=lines.name)
