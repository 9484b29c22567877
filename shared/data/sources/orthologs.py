"""Mouse and human genes of one origin, from Mouse Genome Informatics."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import shown
from shared.data.io.tables import AGAIN, words
from shared.data.sources.common import column

HUMAN, MOUSE = "9606", "10090"


def read(paths: list[Path]) -> pd.DataFrame:
    """Pairs of symbols that are strictly one to one.

    Layout of ``HOM_MouseHumanSequence.rpt``: tabs, a header, one row a gene: ``DB Class Key`` (the family), ``Common
    Organism Name``, ``NCBI Taxon ID`` (9606 human, 10090 mouse), ``Symbol``, ``EntrezGene ID`` and more. A family may
    have several genes of either species.

    Parameters
    ----------
    paths : list of Path
        The report.

    Returns
    -------
    DataFrame
        human, mouse: symbols, each once, in the order of the human ones. ``attrs["families"]``: families in the report;
        ``attrs["lost"]``: those that are not one to one and were left out.

    Raises
    ------
    DataError
        If the file is damaged, is another report, or has no pair.
    """
    (path,) = paths
    table = words(path, "\t", quoted=False)
    found = pd.DataFrame({n: column(table, n, path) for n in ("DB Class Key", "NCBI Taxon ID", "Symbol")})
    known = found["NCBI Taxon ID"].isin([HUMAN, MOUSE])
    if not known.all():
        odd = shown(found["NCBI Taxon ID"][~known].unique())
        raise DataError(
            f"{path.name} holds genes of taxa {odd} beside mouse and human: it is another report, or damaged; {AGAIN}"
        )
    if (found["Symbol"] == "").any():
        raise DataError(f"{path.name} has rows without a symbol: it is damaged, {AGAIN}")
    found = found.drop_duplicates()
    sides = [found[found["NCBI Taxon ID"] == taxon].set_index("DB Class Key")["Symbol"] for taxon in (HUMAN, MOUSE)]
    single = [s[~s.index.duplicated(keep=False)].rename(name) for s, name in zip(sides, ("human", "mouse"))]
    pairs = pd.concat(single, axis=1, join="inner").astype(object)
    families = found["DB Class Key"].nunique()
    # A symbol of two families has no one partner.
    pairs = pairs[~pairs["human"].duplicated(keep=False) & ~pairs["mouse"].duplicated(keep=False)]
    if pairs.empty:
        raise DataError(
            f"{path.name} has no family of one mouse and one human gene: it is another report, or was cut short"
        )
    pairs = pairs.sort_values("human").reset_index(drop=True)
    pairs.attrs |= {"families": families, "lost": families - len(pairs)}
    return pairs
