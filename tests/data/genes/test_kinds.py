"""What names of genes are: kinds and species of real and short lists, versions, and what spreadsheets did to them."""

import pytest
from gene_matrices import PLCXD1, TP53, matrix, read

from shared import data
from shared.data.genes import lists as genes
from shared.data.genes.kinds import cut_version, damaged_names, gene_kind, renamed_names, shouted_mouse
from shared.data.genes.lists import symbols, tidy
from shared.data.genes.translate import to_ensembl
from shared.data.validate.names import DESCRIPTIONS


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
    assert shouted_mouse(human) < 0.01 and shouted_mouse(mouse) < 0.01
    assert shouted_mouse([m.upper() for m in mouse]) > 0.03


def test_the_tables_are_looked_up_once_not_for_each_name(monkeypatch):
    asked = []
    home = genes.home
    monkeypatch.setattr(genes, "home", lambda: asked.append(1) or home())
    gene_kind([f"g{i}" for i in range(2000)])
    assert len(asked) < 10


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
    assert cut_version(name) == cut


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
        ("43891", ("MARCHF1", "MTARC1", "MARCHF2", "MTARC2")),  # 1 March 2020; 2 March 2024 where days count from 1904
        ("43891.0", ("MARCHF1", "MTARC1", "MARCHF2", "MTARC2")),
        ("02/09/2019", ("SEPTIN2",)),
        ("9/2/2019", ("SEPTIN2",)),
        ("1.3.20", ("MARCHF1", "MTARC1")),
        ("2-Sep-19", ("SEPTIN2",)),
        *((f"1-{month}", ("MARCHF1", "MTARC1")) for month in ("Mär", "Mrz", "mars", "marzo", "mrt", "mar.")),
        *((f"2-{month}", ("SEPTIN2",)) for month in ("Sept", "sept.", "set", "septiembre", "September")),
        *((f"1-{month}", ("DELEC1",)) for month in ("Dez", "déc.", "dic", "dec", "diciembre")),
    ],
)
def test_spreadsheet_damage_is_noticed(name, was):
    assert damaged_names([name, "TP53"]) == {name: was}


def test_numbers_among_numbers_are_no_dates():
    assert damaged_names(["43891", "7157", "672", "675"]) == {} == damaged_names(["43891", "12-Apr", "1-Jan"][1:])


def test_no_real_symbol_is_called_damaged():
    for organism in ("human", "mouse"):
        names = sorted(symbols(organism))
        assert damaged_names(names) == {} and not set(renamed_names(names).values()) - symbols(organism)
        assert not any(map(DESCRIPTIONS.fullmatch, names)) and list(map(tidy, names)) == names


def test_retired_families_are_translated_and_told():
    old = ["MARCH1", "SEPT2", "MARC1", "DEC1", "TP53", "SEPT13", "MARCH99"]
    assert renamed_names(old) == {"MARCH1": "MARCHF1", "SEPT2": "SEPTIN2", "MARC1": "MTARC1", "DEC1": "DELEC1"}
    assert renamed_names(["March1", "Sept2", "mArch1"]) == {"March1": "Marchf1", "Sept2": "Septin2"}
    table = data.gene_table("human").set_index("symbol")["ensembl"]
    got, report = to_ensembl(matrix(["MARCH1", "TP53", "1-Mar", "CD3E"]))
    assert list(got.var_names) == [table["MARCHF1"], TP53, table["CD3E"]]
    assert report.notes == (
        "1 name damaged by a spreadsheet (1-Mar)",
        "1 retired name such as MARCH1, now MARCHF1",
    ) and report.first == {"not in the table": ("1-Mar",)}
