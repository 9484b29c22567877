"""Genes by other names: nothing invented, summed only where sums make sense, every loss reported."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from gene_matrices import PLCXD1, TP53, matrix, read
from scipy import sparse

from shared import data
from shared.data import to_symbols
from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.data.genes.kinds import gene_kind
from shared.data.genes.lists import gene_hash
from shared.data.genes.translate import merge_duplicates, to_ensembl, to_human, to_mouse


def test_the_copy_on_y_stays_apart():
    names = [PLCXD1 + ".15", PLCXD1 + ".15_PAR_Y", TP53 + ".17"]
    got, report = to_ensembl(matrix(names))
    assert list(got.var_names) == [PLCXD1, PLCXD1 + "_PAR_Y", TP53] and report.merged == 0
    got, report = to_symbols(matrix(names))
    assert list(got.var_names) == ["PLCXD1", "PLCXD1_PAR_Y", "TP53"] and report.mapped == 3
    assert (got.X == matrix(names).X).all()


def test_symbols_there_and_back():
    table = data.gene_table("human").drop_duplicates("symbol", keep=False).sample(300, random_state=0)
    start = matrix([f"{e}.{i}" for i, e in enumerate(table["ensembl"])])
    named, _ = to_symbols(start)
    assert list(named.var_names) == table["symbol"].tolist() and list(named.var["before"]) == list(start.var_names)
    back, report = to_ensembl(named)
    assert list(back.var_names) == table["ensembl"].tolist() and report.lost == {} and (back.X == start.X).all()


def test_a_symbol_of_several_ids_has_no_single_answer():
    got, report = to_ensembl(matrix(["TP53", "Y_RNA", "CD3E", "nobody"]))
    assert report.first == {"several ids of that symbol": ("Y_RNA",), "not in the table": ("nobody",)}
    assert got.n_vars == report.after == 2 and report.lost == {"several ids of that symbol": 1, "not in the table": 1}


def test_partners_are_one_to_one_and_come_back():
    pairs = data.gene_table("orthologs").sample(200, random_state=1)
    pairs = pairs[pairs["human"] != pairs["mouse"]]
    start = matrix(pairs["mouse"])
    human, report = to_human(start)
    assert list(human.var_names) == pairs["human"].tolist() and report.merged == 0 and not report.lost
    mouse, _ = to_mouse(human)
    assert list(mouse.var_names) == pairs["mouse"].tolist() and (mouse.X == start.X).all()
    assert len(mouse.uns["notes"]) == 2 and mouse.uns["gene_hash"] == gene_hash(start)


def test_genes_with_several_partners_are_lost_and_named():
    got, report = to_mouse(matrix(["INS", "TP53", "GAPDH"]))
    assert list(got.var_names) == ["Trp53"] and report.first == {"no one-to-one orthologue": ("INS", "GAPDH")}
    assert "1 of 3 genes mapped" in str(report) and "INS, GAPDH" in str(report)


def test_ids_of_two_species_are_parted():
    both = matrix([TP53, "ENSMUSG00000059552", "ENSMUSG00000032093"])
    got, report = to_human(both)
    assert list(got.var_names) == ["TP53", "CD3E"] and report.first == {"not mouse": (TP53,)}


def test_real_symbols_agree_with_the_files_own(fixtures):
    cells = read(fixtures("h5ad/pbmc_zheng_facs_3774.h5ad"))[:50].copy()
    got, report = to_symbols(cells)
    theirs = cells.var.loc[got.var["before"], "symbol"].to_numpy()
    assert (got.var_names == theirs).mean() > 0.85  # the rest were renamed since 2017
    assert report.mapped == 15_018 and report.lost == {"not in the table": 1773}
    by_column, report = to_symbols(cells, column="symbol")
    assert report.lost == {} and by_column.n_vars == cells.var["symbol"].nunique()
    assert np.isclose(by_column.X.sum(), cells.X.sum())


def test_real_mouse_cells_become_human_genes(fixtures):
    cells = read(fixtures("h5ad/tabula_muris_kidney_facs_215.h5ad"))
    got, report = to_human(cells)
    assert gene_kind(got).organism == "human" and report.mapped == got.n_vars == 10_200
    assert (got[:, "TP53"].X != cells[:, "Trp53"].X).nnz == 0
    assert "16 retired names such as March1, now Marchf1" in report.notes and "MARCHF1" in got.var_names


def test_probes_need_a_column(fixtures):
    array = read(fixtures("h5ad/drug_gse6434_docetaxel_24.h5ad"))
    with pytest.raises(DataError, match=r"knows none of the 10,989 genes .* Entrez ids"):
        to_symbols(array)
    with pytest.raises(DataError, match="cannot be summed"):
        to_symbols(array, column="symbol")
    got, report = to_symbols(array, column="symbol", duplicates="first")
    assert got.var_names.is_unique and report.merged == report.mapped - report.after > 1000
    assert (got.X == array[:, got.var["before"]].X).all() and "left out for a gene of the same" in str(report)


# Duplicates


def test_counts_are_summed_and_the_rest_is_told(tmp_path):
    adata = matrix(["TP53", "CD3E", "tp53"], np.array([[1, 2, 3], [0, 0, 5]], np.uint8))
    adata.var["symbol"] = ["TP53", "CD3E", "TP53"]
    adata.layers["counts"] = sparse.csc_matrix(adata.X)
    adata.layers["logged"] = np.log1p(adata.X.astype(np.float32))
    adata.obsm["pca"], adata.varm["loadings"] = np.ones((2, 1)), np.ones((3, 1))
    adata.raw = adata
    got, report = to_symbols(adata, column="symbol")
    assert got.X.tolist() == [[4, 2], [5, 0]] and got.layers["counts"].toarray().tolist() == [[4, 2], [5, 0]]
    assert list(got.layers) == ["counts"] and "pca" in got.obsm and not got.varm and got.raw is None
    assert list(got.var["before"]) == ["TP53;tp53", "CD3E"] and report.merged == 1
    assert report.notes == (
        "layer 'logged' dropped, its values cannot be summed",
        "varm dropped, genes were merged",
        "raw dropped, its genes had the old names",
    )
    assert adata.var_names[2] == "tp53" and "notes" not in adata.uns  # the one that came in is as it was
    got.write_h5ad(tmp_path / "g.h5ad")
    assert read(tmp_path / "g.h5ad").uns["gene_report"]["merged"] == 1


def test_small_integers_do_not_overflow_in_sums():
    got, _ = merge_duplicates(matrix(["a", "b", "a"], np.array([[200, 1, 100]] * 2, np.uint8)))
    assert got.X.tolist() == [[300, 1], [300, 1]]


def test_duplicates_are_refused_or_left_out_by_option():
    adata = matrix(["a", "b", "a"])
    with pytest.raises(DataError, match=r"1 name would stand for several genes \(a\)"):
        merge_duplicates(adata, "refuse")
    got, report = merge_duplicates(adata, "first")
    assert got.X.tolist() == adata.X[:, :2].tolist() and report.duplicates == "first"
    with pytest.raises(SettingError, match="duplicates='mean' is not known"):
        merge_duplicates(adata, "mean")


@pytest.mark.parametrize("uns", [{"units": "log"}, {"units": "z"}, {}])
def test_logged_values_are_not_summed(uns):
    adata = matrix(["a", "b", "a"], np.log1p(np.arange(1, 10, dtype=np.float32)).reshape(3, 3), **uns)
    with pytest.raises(DataError, match="cannot be summed"):
        merge_duplicates(adata)


def test_concentrations_can_be_summed():
    X = np.array([[1.5, 100, 2.5]] * 3, np.float32)
    assert merge_duplicates(matrix("aba", X, units="tpm"))[0].X[0].tolist() == [4, 100]
    assert merge_duplicates(matrix("aba", X))[0].X[0].tolist() == [4, 100]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: to_symbols(matrix([TP53]), organism="mouse"),
            "not mouse: shared.data.genes.translate.to_mouse",
        ),
        (lambda: to_symbols(matrix([TP53]), organism="rat"), "organism 'rat' has no gene table"),
        (lambda: to_symbols(matrix([TP53]), column="nothing"), "var has no column 'nothing'; it has none"),
        (lambda: to_symbols(matrix(["ENSRNOG00000010756"]), organism="human"), "there is no table for them"),
        (lambda: to_symbols(matrix(["g0", "g1"])), "knows none of the 2 genes"),
        (lambda: to_ensembl(matrix(["g0", "g1"])), "do not tell the species"),
        (lambda: to_human(matrix(["TP53", "CD3E", "GNLY"])), "already: to_human takes mouse genes"),
        (lambda: to_human(matrix(["Ins1"])), "knows none"),
        (lambda: to_human("TP53"), "AnnData is needed, not str"),
        (lambda: to_human(ad.AnnData(obs=pd.DataFrame(index=["c"]))), "is empty"),
    ],
)
def test_what_cannot_be_translated_is_refused(call, says):
    with pytest.raises(DataError, match=says):
        call()


def test_backed_data_are_translated_in_memory(tmp_path):
    matrix([TP53, PLCXD1, TP53 + ".2"]).write_h5ad(tmp_path / "b.h5ad")
    backed = ad.read_h5ad(tmp_path / "b.h5ad", backed="r")
    got, report = to_symbols(backed)
    backed.file.close()
    assert got.X.tolist() == [[4, 2], [10, 5], [16, 8]] and report.merged == 1
