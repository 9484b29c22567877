"""Names of genes: told apart, translated without inventing, summed only where sums make sense, every loss reported."""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from shared import data
from shared.data import (
    DataError,
    compare_genes,
    gene_hash,
    gene_kind,
    genes,
    to_ensembl,
    to_human,
    to_mouse,
    to_symbols,
)
from shared.preprocess import align_genes, quality_control

TP53, PLCXD1, XIST = "ENSG00000141510", "ENSG00000182378", "ENSG00000229807"
QUICK = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def matrix(names, X=None, **uns):
    X = np.arange(1, 1 + 3 * len(names), dtype=np.float32).reshape(3, len(names)) if X is None else X
    adata = ad.AnnData(X, uns=uns)
    adata.var_names = list(names)  # here, not above, where AnnData warns of names that come twice
    return adata


def read(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ad.read_h5ad(path)


# Kinds


@pytest.mark.parametrize(
    ("file", "kind", "organism", "least"),
    [
        ("bulk_bladderbatch_57", "probes", None, 1),
        ("cell_lines_sc_mixology_5batches", "ensembl", "human", 1),
        ("celltypist_sample_immune_559", "symbols", "human", 0.55),
        ("drug_gdsc_400x1000", "symbols", "human", 0.9),
        ("drug_gse6434_docetaxel_24", "entrez", None, 0.7),
        ("hsmm_myoblast_271", "ensembl", "human", 1),
        ("multiome_scicar_A549_atac", "regions", None, 0.95),
        ("multiome_scicar_A549_rna", "symbols", "human", 0.8),
        ("pbmc_citeseq_adt_4644", "unknown", None, 0),
        ("pbmc_zheng_facs_3774", "ensembl", "human", 1),
        ("tabula_muris_kidney_facs_215", "symbols", "mouse", 0.85),
        ("tcga_11cancers_paired_1204", "symbols", "human", 0.95),
    ],
)
def test_kinds_of_real_sets(fixtures, file, kind, organism, least):
    found = gene_kind(read(fixtures(f"h5ad/{file}.h5ad")))
    assert (found.kind, found.organism) == (kind, organism) and found.confidence >= least


@pytest.mark.parametrize(
    ("names", "kind", "organism"),
    [
        (["TP53", "CD3E", "GNLY"], "symbols", "human"),
        (["Trp53", "Cd3e", "Gzma"], "symbols", "mouse"),
        (["TP53"], "symbols", "human"),
        (["TP53", "CD3E", "GNLY", "Trp53", "Cd3e", "Gzma"], "symbols", "mixed"),
        (["F2", "F10", "F11"], "symbols", None),  # symbols of both species
        ([TP53, PLCXD1 + ".3_PAR_Y"], "ensembl", "human"),
        (["ENSMUSG00000059552.14"], "ensembl", "mouse"),
        ([TP53, "ENSMUSG00000059552"], "ensembl", "mixed"),
        (["ENSRNOG00000010756", "ENSRNOG00000010757"], "ensembl", "other"),
        (["ENST00000269305.9", "NM_000546.6"], "transcripts", "human"),
        (["7157", "915", "10578"], "entrez", None),
        (["0", "1", "2", "3"], "unknown", None),  # columns without names, not genes of Entrez
        (["1", "2", "3", "4"], "unknown", None),
        ([str(7896736 + 7 * i) for i in range(20)], "probes", None),
        (["1007_s_at", "ILMN_1343291", "A_23_P100001"], "probes", None),
        (["chr1:100-200", "chrX-5-99"], "regions", None),
        (["g0", "g1", "g2"], "unknown", None),
        (["é", "日本", "🧬"], "unknown", None),
        ([], "unknown", None),
    ],
)
def test_kinds_of_short_lists(names, kind, organism):
    found = gene_kind(names)
    assert (found.kind, found.organism) == (kind, organism)
    assert (found.confidence == 0) == (kind == "unknown") and str(found)


def test_mouse_symbols_in_capitals_are_seen():
    human, mouse = (data.gene_table("orthologs")[s].tolist() for s in ("human", "mouse"))
    assert genes.shouted_mouse(human) < 0.01 and genes.shouted_mouse(mouse) < 0.01
    assert genes.shouted_mouse([m.upper() for m in mouse]) > 0.03


def test_the_tables_are_looked_up_once_not_for_each_name(monkeypatch):
    asked = []
    home = genes.home
    monkeypatch.setattr(genes, "home", lambda: asked.append(1) or home())
    gene_kind([f"g{i}" for i in range(2000)])
    assert len(asked) < 10


# Lists and their hash


def test_the_hash_tells_order_and_names():
    assert gene_hash(["a", "b"]) == gene_hash(pd.Index(["a", "b"])) == gene_hash(matrix("ab"))
    assert len({gene_hash(x) for x in (["a", "b"], ["b", "a"], ["ab"], ["a"], [])}) == 5
    # The hash that models saved before this function moved carry.
    assert gene_hash(["TP53", "CD3E"]) == "69f2b77b4d4511367b3a9c91de5d37c4f94d7cc9eabea6e123568a62e12ad0a4"
    with pytest.raises(DataError, match="line breaks"):
        gene_hash(["a\nb"])


def test_one_definition_of_the_hash():
    from shared import train

    assert train.gene_hash is gene_hash


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("TP53", "list of names, not str"),
        (7, "not int"),
        (["a", None], "1 missing name"),
        (["a", np.nan, pd.NA], "2 missing names"),
        (["a", ("b",)], "type tuple"),
        ([b"\xff"], "cannot be read"),
        (["a\ud800"], "control characters"),
        (np.array(3), "cannot be read"),
    ],
)
def test_what_is_no_list_of_names_is_refused(names, says):
    with pytest.raises(DataError, match=says):
        gene_hash(names)


def test_bytes_and_numbers_are_names_too():
    assert genes.names_of([b"TP53", 7157, np.str_("x"), np.int64(3)]) == ["TP53", "7157", "x", "3"]


def test_two_lists_compared():
    same = compare_genes(["a", "b"], matrix("ab"))
    assert same and str(same) == "the same 2 genes in the same order"
    other = compare_genes(["a", "b", "c"], ["b", "a", "d"])
    assert not other and (other.shared, other.only_first, other.only_second) == (2, ("c",), ("d",))
    assert str(other) == "2 genes shared, in another order; 1 only in the first (c); 1 only in the second (d)"
    assert compare_genes(["a", "b"], ["a", "x", "b"]).same_order
    with pytest.raises(DataError, match="second list names 1 gene more than once"):
        compare_genes(["a"], ["b", "b"])


@given(st.lists(st.text(min_size=1), unique=True), st.lists(st.text(min_size=1), unique=True))
@QUICK
def test_comparison_is_what_sets_say(a, b):
    bad = genes.UNWRITABLE.search("".join(a + b))
    try:
        found = compare_genes(a, b)
    except DataError:
        assert bad
        return
    assert not bad and bool(found) == (a == b) and found.shared == len(set(a) & set(b))
    assert set(found.only_first) == set(a) - set(b) and set(found.only_second) == set(b) - set(a)


def test_the_hash_travels(tmp_path):
    adata = data.from_arrays(np.array([[1, 2, 0], [4, 5, 6]]), ["TP53", "CD3E", "GNLY"])
    assert adata.uns["gene_hash"] == gene_hash(adata)
    aligned, report = align_genes(adata, ["GNLY", "NKG7"])
    assert aligned.uns["gene_hash"] == gene_hash(["GNLY", "NKG7"]) != adata.uns["gene_hash"]
    assert aligned.uns["notes"] == [
        "int64 became float32",
        f"aligned: {report}",
    ] and "2 not in the list, dropped" in str(report)
    assert report.names["missing, filled"] == ("NKG7",)
    kept, report = quality_control(adata, min_genes=0, min_cells=2)
    assert kept.uns["gene_hash"] == gene_hash(kept) != adata.uns["gene_hash"] and len(kept.uns["notes"]) == 2
    aligned.write_h5ad(tmp_path / "a.h5ad")
    with pytest.warns(data.DataWarning, match="1 cell without any expression"):
        again = data.load(tmp_path / "a.h5ad")
    assert again.uns["gene_hash"] == gene_hash(aligned) and again.uns["notes"] == aligned.uns["notes"]


def test_tables_that_are_gone_or_damaged_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(genes, "home", lambda: tmp_path)
    with pytest.raises(DataError, match=r"human\.tsv\.gz is missing"):
        data.gene_table("human")
    (tmp_path / "genes").mkdir()
    (tmp_path / "genes" / "mouse.tsv.gz").write_bytes(b"\x1f\x8b no gzip")
    with pytest.raises(DataError, match=r"mouse\.tsv\.gz cannot be read"):
        data.gene_table("mouse")
    with pytest.raises(DataError, match="no gene table 'rat'"):
        data.gene_table("rat")


# Damage


@pytest.mark.parametrize(
    ("name", "was"),
    [
        ("1-Mar", ("MARCHF1", "MTARC1")),
        ("01-Mar", ("MARCHF1", "MTARC1")),
        ("10-Mar", ("MARCHF10",)),
        ("2-Sep", ("SEPTIN2",)),
        ("Sep-02", ("SEPTIN2",)),
        ("1-Dez", ("DELEC1",)),
        ("2019-09-07", ("SEPTIN7",)),
        ("2019-03-01 00:00:00", ("MARCHF1", "MTARC1")),
        ("2.31E+19", ()),
        ("9.00E+05", ()),
    ],
)
def test_spreadsheet_damage_is_noticed(name, was):
    assert genes.damaged_names([name, "TP53"]) == {name: was}


def test_no_real_symbol_is_called_damaged():
    for organism in ("human", "mouse"):
        assert genes.damaged_names(genes.symbols(organism)) == {}
        assert not set(genes.renamed_names(genes.symbols(organism)).values()) - genes.symbols(organism)


def test_retired_families_are_translated_and_told():
    old = ["MARCH1", "SEPT2", "MARC1", "DEC1", "TP53", "SEPT13", "MARCH99"]
    assert genes.renamed_names(old) == {"MARCH1": "MARCHF1", "SEPT2": "SEPTIN2", "MARC1": "MTARC1", "DEC1": "DELEC1"}
    assert genes.renamed_names(["March1", "Sept2", "mArch1"]) == {"March1": "Marchf1", "Sept2": "Septin2"}
    table = data.gene_table("human").set_index("symbol")["ensembl"]
    got, report = to_ensembl(matrix(["MARCH1", "TP53", "1-Mar", "CD3E"]))
    assert list(got.var_names) == [table["MARCHF1"], TP53, table["CD3E"]]
    assert report.notes == (
        "1 name damaged by a spreadsheet (1-Mar)",
        "1 retired name such as MARCH1, now MARCHF1",
    ) and report.first == {"not in the table": ("1-Mar",)}


# Translation


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        (TP53 + ".17", TP53),
        (TP53, TP53),
        (PLCXD1 + ".15_PAR_Y", PLCXD1 + "_PAR_Y"),
        ("ENSGR0000182378.10", PLCXD1 + "_PAR_Y"),
        ("ENSMUSG00000059552.14", "ENSMUSG00000059552"),
        ("AL627309.1", "AL627309.1"),
        ("ENSG0000014151.1", "ENSG0000014151.1"),  # ten digits are no id
        ("NKX2.5", "NKX2.5"),
    ],
)
def test_versions_are_cut_from_ids_only(name, cut):
    assert genes.cut_version(name) == cut


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
    got, _ = data.merge_duplicates(matrix(["a", "b", "a"], np.array([[200, 1, 100]] * 2, np.uint8)))
    assert got.X.tolist() == [[300, 1], [300, 1]]


def test_duplicates_are_refused_or_left_out_by_option():
    adata = matrix(["a", "b", "a"])
    with pytest.raises(DataError, match=r"1 name would stand for several genes \(a\)"):
        data.merge_duplicates(adata, "refuse")
    got, report = data.merge_duplicates(adata, "first")
    assert got.X.tolist() == adata.X[:, :2].tolist() and report.duplicates == "first"
    with pytest.raises(DataError, match="duplicates='mean' is not known"):
        data.merge_duplicates(adata, "mean")


@pytest.mark.parametrize("uns", [{"units": "log"}, {"units": "z"}, {}])
def test_logged_values_are_not_summed(uns):
    adata = matrix(["a", "b", "a"], np.log1p(np.arange(1, 10, dtype=np.float32)).reshape(3, 3), **uns)
    with pytest.raises(DataError, match="cannot be summed"):
        data.merge_duplicates(adata)


def test_concentrations_can_be_summed():
    X = np.array([[1.5, 100, 2.5]] * 3, np.float32)
    assert data.merge_duplicates(matrix("aba", X, units="tpm"))[0].X[0].tolist() == [4, 100]
    assert data.merge_duplicates(matrix("aba", X))[0].X[0].tolist() == [4, 100]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: to_symbols(matrix([TP53]), organism="mouse"), "not mouse: shared.data.to_mouse translates"),
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
