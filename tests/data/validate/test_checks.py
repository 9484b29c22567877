"""Entry checks: each problem named with its cure, real sets judged by hand, nothing changed by looking."""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from shared import data
from shared.data import check
from shared.data.constraints import SettingError
from shared.data.errors import DataError, DataWarning
from shared.data.genes.lists import gene_hash
from shared.data.validate import checks, values
from shared.data.validate.values import looks_like, scan

HUMAN = data.gene_table("human").drop_duplicates("symbol", keep=False)["symbol"].tolist()
MOUSE = data.gene_table("mouse").drop_duplicates("symbol", keep=False)["symbol"].tolist()


def cells(n=40, genes=300, seed=0, names=HUMAN):
    """Counts of two classes as sequencing gives them: cells of several depths, genes of several abundances."""
    rng = np.random.default_rng(seed)
    rate = rng.lognormal(0, 1.5, genes) * rng.lognormal(0, 0.5, n)[:, None]
    return ad.AnnData(
        (rng.poisson(rate) + (np.arange(n)[:, None] == np.arange(genes) % n)).astype(np.float32),
        obs=pd.DataFrame({"cell_type": ["B", "T"] * (n // 2)}, index=[f"cell{i}" for i in range(n)]),
        var=pd.DataFrame(index=list(names[:genes])),
    )


def logged(adata, times=1):
    out = adata.copy()
    out.X = out.X / out.X.sum(1, keepdims=True) * 1e4
    for _ in range(times):
        out.X = np.log1p(out.X)
    return out


def renamed(adata, names):
    adata.var_names = list(names)
    return adata


def serious(report):
    return {f.check for f in report.findings if f.severity != "note"}


# Verdicts on the real sets, each read and decided by hand: what the values look like, what deserves a warning, and
# what is a note. A warning about a sound set would teach people to ignore warnings.
VERDICTS = {
    "bulk_bladderbatch_57": ("logged", set(), set()),
    "cell_lines_sc_mixology_5batches": ("counts", set(), set()),
    "celltypist_sample_immune_559": ("counts", {"one class", "unlabelled"}, {"empty genes", "retired"}),
    "drug_gdsc_400x1000": ("logged", set(), set()),
    "drug_gse6434_docetaxel_24": ("logged", set(), {"ids"}),
    "hsmm_myoblast_271": ("linear", set(), {"empty genes", "versions"}),
    "multiome_scicar_A549_atac": ("logged", set(), set()),
    "multiome_scicar_A549_rna": ("counts", set(), {"retired"}),
    "pancreas_baron_human_mouse_350": ("counts", set(), {"empty genes", "retired"}),
    "pancreas_baron_segerstolpe_lawlor_528": ("expected counts", set(), {"retired"}),
    "pancreas_xin_674x1075": ("logged", set(), {"retired"}),
    "pbmc3k_2638": ("counts", set(), {"empty genes", "retired", "made unique"}),
    "pbmc_10x_3tech_1200": ("counts", set(), {"retired"}),
    "pbmc_asapseq_adt_4502": ("logged", {"unlabelled"}, {"unknown names"}),
    "pbmc_citeseq_adt_4644": ("logged", set(), {"unknown names"}),
    "pbmc_kang_ifnb_muscat_1556": ("counts", set(), {"retired"}),
    "pbmc_zheng_facs_3774": ("counts", set(), set()),
    "pollen_11types_299": ("counts", set(), {"retired"}),
    "tabula_muris_kidney_facs_215": ("counts", set(), {"retired"}),
    "tcga_11cancers_paired_1204": ("signed", set(), {"retired"}),
}
BUNDLED = {
    "pbmc": ("counts", set(), {"empty genes", "retired", "made unique"}),
    "tissues": ("logged", set(), {"retired"}),
    "colorectal": ("logged", set(), {"retired"}),
    "bladder": ("logged", set(), set()),
    "muscle": ("counts", set(), set()),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts_on_real_sets(fixtures, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = ad.read_h5ad(fixtures(f"h5ad/{name}.h5ad"))
    looks, bad, notes = VERDICTS[name]
    report = check(adata, labels="cell_type" if "cell_type" in adata.obs else "label")
    found = {f.check for f in report.findings if f.severity == "note"}
    assert (report.looks, serious(report), found) == (looks, bad, notes), str(report)
    for need, fits in (("counts", {"counts", "expected counts"}), ("log", {"logged", "signed"})):
        errors = {f.check for f in check(adata, need=need).errors}
        assert errors == (set() if looks in fits else {f"not {need}"})


def test_every_real_set_has_a_verdict(fixtures):
    assert {p.stem for p in fixtures("h5ad").glob("*.h5ad")} == set(VERDICTS)


@pytest.mark.parametrize("name", BUNDLED)
def test_verdicts_on_bundled_sets(name):
    report = check(data.load(name))
    looks, bad, notes = BUNDLED[name]
    assert (report.looks, serious(report)) == (looks, bad), str(report)
    assert {f.check for f in report.findings} - bad <= notes, str(report)


def test_a_sound_matrix_is_left_in_peace():
    for adata, need in ((cells(), "counts"), (logged(cells()), "log")):
        report = check(adata, need=need, labels="cell_type", per_class=20, genes=HUMAN[:300], organism="human")
        assert report.findings == () and report.ok and "nothing to complain of" in str(report)
        assert len(report.to_frame()) == 0 and "nothing" in report._repr_html_()


def broken(kind):
    """A matrix with one problem, the arguments of check that ask for it, and the check that should see it."""
    a, asked = cells(), {}
    if kind == "nan":
        a.X[1, 1] = np.nan
    elif kind == "infinite":
        a.X[1, 1] = np.inf
    elif kind == "negative":
        a.X[1, 1] = -1
    elif kind == "beyond float32":
        a.X = a.X.astype(np.float64) + 0.5
        a.X[0, 0] = 1e300
    elif kind == "empty":
        a = a[:0].copy()
    elif kind == "no matrix":
        a = ad.AnnData(obs=a.obs, var=a.var)
    elif kind == "damaged":
        a.X = sparse.csr_matrix(a.X)
        a.X.indices[3] = 10**6
    elif kind == "dtype":
        a.X = a.X.astype(complex)
    elif kind == "genes twice":
        renamed(a, ["TP53", "TP53", *HUMAN[2:300]])
    elif kind == "cells twice":
        a.obs_names = ["c", "c", *a.obs_names[2:]]
    elif kind == "names":
        renamed(a, ["TP\n53", *HUMAN[1:300]])
    elif kind == "columns twice":
        a.obs = pd.DataFrame([["x", "y"]] * a.n_obs, index=a.obs_names, columns=["run", "run"])
    elif kind == "transposed":
        a = a.T
    elif kind == "species":
        asked = {"organism": "mouse"}
    elif kind == "overlap":
        asked = {"genes": HUMAN[400:500]}
    elif kind == "labels":
        asked = {"labels": "celltype"}
    elif kind == "missing labels":
        a.obs["cell_type"] = pd.Categorical([None, *a.obs["cell_type"][1:]])
        asked = {"labels": "cell_type"}
    elif kind == "one class":
        a.obs["cell_type"] = "B"
        asked = {"labels": "cell_type"}
    elif kind == "few per class":
        asked = {"labels": "cell_type", "per_class": 21}
    elif kind == "unlabelled":
        a.obs.iloc[:5, 0] = "Unknown"
        asked = {"labels": "cell_type"}
    elif kind == "alike":
        a.obs.iloc[0, 0] = "b "
        asked = {"labels": "cell_type"}
    elif kind == "numbers":
        a.obs["age"] = np.linspace(0, 1, a.n_obs)
        asked = {"labels": "age"}
    elif kind == "not counts":
        a, asked = logged(a), {"need": "counts"}
    elif kind == "units":
        a = logged(a)
        a.uns["units"] = "counts"
    elif kind == "not log":
        asked = {"need": "log"}
    elif kind == "not tpm":
        a, asked = logged(a), {"need": "tpm"}
    elif kind == "not z":
        asked = {"need": "z"}
    elif kind == "logged twice":
        a = logged(a, 2)
    elif kind == "equal":
        a.X[:] = 3
    elif kind == "empty cells":
        a.X[4] = 0
    elif kind == "empty genes":
        a.X[:, 4] = 0
    elif kind == "huge cell":
        a.X[4] *= 500
    elif kind == "one cell":
        a = a[:1].copy()
    elif kind == "rounded":
        a.X = a.X.astype(np.int64)
        a.X[0, 0] = 2**24 + 1
    elif kind == "parts":
        a.X = sparse.csr_matrix(
            (np.ones(240, np.float32), np.repeat(np.arange(6), 40), np.arange(0, 241, 6)), (40, 300)
        )
        a.X.indices[:] = np.tile([0, 0, 1, 2, 3, 4], 40)
    elif kind == "stored zeros":
        a.X = sparse.csr_matrix(a.X)
        a.X.data[:9] = 0
    elif kind == "format":
        a.X = sparse.csc_matrix(a.X)
    elif kind == "truth values":
        a.X = a.X > 1
    elif kind == "spaces":
        renamed(a, [" TP53", *HUMAN[1:300]])
    elif kind == "spaces of cells":
        a.obs_names = ["c\u200b0", *a.obs_names[1:]]
    elif kind == "descriptions":
        renamed(a, ["nCount_RNA", *HUMAN[1:300]])
    elif kind == "totals":
        a.X[4] = a.X.sum(0) - a.X[4]
    elif kind == "nameless genes":
        renamed(a, ["nan", *HUMAN[1:300]])
    elif kind == "spreadsheet":
        renamed(a, ["2-Sep", *HUMAN[1:300]])
    elif kind == "tallies":
        renamed(a, [*HUMAN[1:300], "__no_feature"])
    elif kind == "no expression":
        a = renamed(a[:, :4].copy(), ["age", "nCount_RNA", "percent.mt", HUMAN[0]])
        a.X += 1
    elif kind == "retired":
        renamed(a, ["SEPT2", *HUMAN[1:300]])
    elif kind == "genome":
        renamed(a, ["GRCh38_" + n for n in HUMAN[:300]])
    elif kind == "transcripts":
        renamed(a, [f"ENST{i:011d}" for i in range(300)])
    elif kind == "unknown names":
        renamed(a, [f"g{i}" for i in range(300)])
    elif kind == "ids":
        renamed(a, [str(7 * i + 1) for i in range(300)]).var["symbol"] = HUMAN[:300]
    elif kind == "versions":
        renamed(a, [f"ENSG{i:011d}.3" for i in range(300)])
    elif kind == "made unique":
        renamed(a, [HUMAN[1] + "-1", *HUMAN[1:300]])
    elif kind == "gene hash":
        a.uns["gene_hash"] = gene_hash(HUMAN[:5])
    return a, asked


SEEN = {
    "nan": ("error", "holds 1 NaN value: fill"),
    "infinite": ("error", "holds 1 infinite value"),
    "negative": ("error", "1 negative value among counts"),
    "beyond float32": ("error", "holds 1 value beyond 3.4e38"),
    "empty": ("error", "is empty, 0 cells × 300 genes"),
    "no matrix": ("error", "has no X: put a layer there"),
    "damaged": ("error", "is a damaged CSR matrix"),
    "dtype": ("error", r"holds complex numbers \(complex128\) where numbers are needed"),
    "genes twice": ("error", r"names 1 gene more than once \(TP53\): shared.data.genes.translate.merge_duplicates"),
    "cells twice": ("error", r"names 1 cell more than once \(c\)"),
    "names": ("error", "1 gene name with line breaks"),
    "columns twice": ("error", r"obs columns of the same name \(run\)"),
    "transposed": ("error", r"names genes where cells should be .* turn it with adata = adata\.T"),
    "species": ("error", "has human symbols .*, not mouse genes: shared.data.genes.translate.to_mouse"),
    "overlap": ("error", "shares 0 of 100 genes"),
    "labels": ("error", "obs has no column 'celltype'.*did you mean 'cell_type'"),
    "missing labels": ("error", "has 1 cell without 'cell_type'"),
    "one class": ("error", "has one class only in 'cell_type', 'B'"),
    "few per class": ("error", r"has 2 of 2 classes with fewer than the 21 cells asked for \(B 20, T 20\)"),
    "unlabelled": ("warning", "has 5 cells whose 'cell_type' is 'Unknown'"),
    "alike": ("warning", r"differ in case or spaces only \('B', 'b '\)"),
    "numbers": ("warning", "values to predict, not classes"),
    "not counts": ("error", r"looks logged already, nothing is above .*: start from the raw counts"),
    "not log": ("error", "holds counts that are not logged: scale each cell to one total"),
    "not tpm": ("error", "looks logged, nothing is above"),
    "not z": ("warning", "not centred: subtract each gene's mean"),
    "logged twice": ("warning", "looks logged twice: take numpy.expm1 once"),
    "equal": ("warning", "the same value everywhere, 3"),
    "empty cells": ("warning", r"1 cell without any expression \(cell4\): .*quality control"),
    "empty genes": ("note", "1 gene with no expression in any cell"),
    "huge cell": ("warning", r"cell4 with [\d,]+ times the median"),
    "one cell": ("note", "a single cell"),
    "rounded": ("note", "holds 1 count above 16,777,216"),
    "parts": ("warning", "stores 40 entries in several parts: X.sum_duplicates"),
    "stored zeros": ("note", "stores 9 zeros"),
    "format": ("note", "stored as CSC"),
    "truth values": ("note", "holds true and false"),
    "spaces": ("warning", r"1 gene name with spaces around or unseen signs \(' TP53'\): .*names\.map\(shared"),
    "spaces of cells": ("warning", r"1 cell name with spaces around or unseen signs \('c\\u200b0'\)"),
    "descriptions": ("warning", r"1 gene named as what describes a cell \(nCount_RNA\): move"),
    "totals": ("warning", r"has a cell that is the sum of all others \(cell4\)"),
    "nameless genes": ("warning", "1 gene without a name"),
    "spreadsheet": ("warning", r"turned into dates or numbers \(2-Sep\): .* 2-Sep was SEPTIN2"),
    "tallies": ("warning", r"has 1 tally of reads among its genes .*isin\(\['__no_feature'\]\)"),
    "no expression": ("error", r"describes cells or samples \(age, nCount_RNA, percent\.mt\) and holds no expression"),
    "retired": ("note", r"1 retired gene name \(SEPT2\): SEPT2 is SEPTIN2 today"),
    "genome": ("warning", "begin with a genome .GRCh38_."),
    "transcripts": ("warning", "names transcripts"),
    "unknown names": ("note", "of a kind not known here"),
    "ids": ("note", r"names genes by Entrez ids: .*\(symbol\), to_symbols\(adata, column=\.\.\.\)"),
    "versions": ("note", "Ensembl ids with versions"),
    "made unique": ("note", "1 gene name as copies get when made unique"),
    "gene hash": ("note", "hash of another list"),
    "units": ("note", r"says it holds counts, and was logged since: adata\.uns\['units'\] = 'log' says so"),
}
# What else is true of the example and may be said.
ALSO = {
    "dtype": set(),
    "genome": {"unknown names"},
    "no expression": {"unknown names"},
    "rounded": {"huge cell"},
    "one cell": {"empty genes"},
    "parts": {"empty genes"},
    "truth values": {"empty genes", "empty cells"},
    "empty": {"made unique"},
}


@pytest.mark.parametrize("kind", SEEN)
def test_each_problem_is_seen_and_nothing_else(kind):
    adata, asked = broken(kind)
    report = check(adata, **asked)
    severity, says = SEEN[kind]
    found = {f.check: f for f in report.findings}
    assert kind in found, str(report)
    assert found[kind].severity == severity and set(found) - {kind} <= ALSO.get(kind, set()), str(report)
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(found[kind].about("X"))
    assert found[kind].cure and len(report.to_frame()) == len(found) and kind in report._repr_html_()
    assert report.ok == (not serious(report))
    if severity == "error":
        with pytest.raises(DataError, match=says):
            check(adata, strict=True, **asked)
    else:
        check(adata, strict=True, **asked)


def test_every_check_has_an_example():
    from pathlib import Path

    source = "".join(p.read_text(encoding="utf-8") for p in Path(checks.__file__).parent.glob("*.py"))
    import re

    named = set(re.findall(r'"([\w ]+)",\s*"(?:error|warning|note)"', source)) - {"error"}
    assert named | {f"not {n}" for n in checks.NEEDS} | {"genes twice", "cells twice", "nan", "infinite"} == set(SEEN)


# Finer judgements


def test_bulk_has_samples_and_a_panel_has_cells():
    """By depth, by the lack of zeros, or by the names of a consortium; few features alone are no bulk."""
    bulk, panel = cells(), cells(genes=24)
    assert str(check(bulk)).startswith("40 cells × 300 genes")
    bulk.X = np.round(bulk.X * 1e4)
    bulk.X[4] = 0
    assert str(check(bulk)).startswith("40 samples × 300 genes") and "has 1 sample without any expr" in str(check(bulk))
    arrays = ad.AnnData(np.random.default_rng(0).normal(8, 1, (30, 600)), var=pd.DataFrame(index=HUMAN[:600]))
    assert str(check(arrays)).startswith("30 samples × 600 genes")
    z = logged(cells())
    z.X, z.obs_names = z.X - z.X.mean(0), [f"TCGA-A7-{i:04d}-01A" for i in range(40)]
    assert str(check(z)).startswith("40 samples × 300 genes")
    panel.X, panel.var_names = panel.X + 3, [f"CD{i}_TotalSeqB" for i in range(24)]
    report = check(panel, need="counts")
    assert str(report).startswith("40 cells × 24 genes") and report.ok and "fine by itself (antibodies" in str(report)


def test_a_table_that_describes_cells_is_no_expression(tmp_path):
    rows = "".join(f"c{i},{20 + i},{900 + i},0.{i}1,F\n" for i in range(4))
    (tmp_path / "a.csv").write_text("cell,age,n_counts,pct_mito,sex\n" + rows)
    (tmp_path / "b.csv").write_text("cell,a,b,c\n" + "c1,x,1,y\nc2,z,2,y\n")
    with pytest.raises(DataError, match=r"a\.csv describes cells or samples \(age, n_counts.*join it to adata\.obs"):
        data.load(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"b\.csv: 2 columns with words.*most of its columns are words"):
        data.load(tmp_path / "b.csv")


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64"])
def test_what_whole_numbers_lose_is_counted_before_it_is_lost(dtype):
    X = np.array([[2**53 + 1, 2**24, 3], [2**24 + 1, 5, 1]], dtype)
    assert scan(X).large == 2 and scan(sparse.csr_matrix(X)).large == 2
    assert "2 counts above 16,777,216 were rounded by float32" in data.from_arrays(X, ["a", "b", "c"]).uns["notes"]


@pytest.mark.parametrize("undo", values.UNDONE)
def test_logging_twice_is_proved_by_undoing_it(undo):
    redo = np.log1p if undo is np.expm1 else lambda x: np.log2(x + 1)
    once = redo(cells().X / cells().X.sum(1, keepdims=True) * 1e4)
    twice = redo(once)
    assert looks_like(scan(once), once) == "logged"
    assert looks_like(scan(twice), twice) == "logged twice"
    report = check(ad.AnnData(twice, var=pd.DataFrame(index=HUMAN[:300])), need="log")
    assert [f.check for f in report.errors] == ["not log"]


def test_twice_logged_without_the_whole_cell_is_a_suspicion():
    part = logged(cells(60, 600), 2)[:, :250].copy()
    assert check(part).looks == "logged" and "logged twice" in check(part).checks
    assert "logged twice" not in check(logged(cells(60, 600))[:, :250].copy()).checks


def test_transposed_is_told_by_names_never_by_shape():
    for n, genes in ((10, 290), (290, 10)):
        right = cells(n, genes)
        assert "transposed" not in check(right).checks and "transposed" in check(right.T).checks
    numbered = cells(20, 10).T
    numbered.obs_names = [str(i) for i in range(10)]
    assert "transposed" not in check(numbered).checks


def test_species_is_judged_only_where_names_tell():
    for names, organism in ((HUMAN, "human"), (MOUSE, "mouse")):
        assert "species" not in check(cells(names=names), organism=organism).checks
    assert "species" not in check(renamed(cells(), [f"g{i}" for i in range(300)]), organism="mouse").checks
    shout = check(cells(genes=5000, names=[m.upper() for m in MOUSE[::10]]))
    assert "mouse symbols in upper case" in str(shout)
    both = renamed(cells(), HUMAN[:150] + MOUSE[:150])
    assert "genes of human and mouse" in str(check(both)) and check(both, organism="human").errors


@pytest.mark.parametrize(
    ("genes", "says"),
    [
        ([f" {g}" for g in HUMAN[:300]], f"such as ' {HUMAN[0]}'"),
        (data.gene_table("human")["ensembl"].tolist()[:300], "shared.data.genes.translate.to_ensembl translates"),
        (data.gene_table("orthologs")["mouse"].tolist()[:300], "shared.data.genes.translate.to_mouse translates"),
        (["x1", "x2"], "names of an unknown kind such as 'x1'"),
    ],
)
def test_little_overlap_is_explained(genes, says):
    report = check(cells(), genes=genes)
    assert "overlap" in report.checks and says in str(report)


def test_overlap_of_versions_and_of_parts():
    ids = [f"ENSG{i:011d}" for i in range(300)]
    adata = renamed(cells(), [f"{i}.{n % 9}" for n, i in enumerate(ids)])
    assert f"such as '{ids[0]}.0', the list " in str(check(adata, genes=ids))
    assert "overlap" not in check(cells(), genes=HUMAN[100:500]).checks
    part = check(cells(), genes=HUMAN[250:1000])
    assert part.errors == () and "shares 50 of 750 genes" in str(part)


def test_layers_are_checked_by_name():
    adata = logged(cells())
    adata.layers["counts"] = cells().X
    assert check(adata, need="counts", layer="counts").ok
    assert "adata.X = adata.layers['counts'].copy()" in str(check(adata, need="counts"))
    adata.layers["counts"] = adata.layers["counts"] + 0.5
    assert "not counts" in check(adata, layer="counts").checks


def test_units_that_do_not_hold_are_told():
    adata = cells()
    for units, found in (("log", "not log"), ("tpm", "not tpm"), ("counts", None), ("none", None), (7, None)):
        adata.uns["units"] = units
        assert set(check(adata).checks) == ({found} if found else set())
    adata = logged(cells())
    adata.uns["units"] = "counts"
    assert check(adata).ok and check(adata, need="log").checks == ("units",)
    adata.X = np.log1p(cells().X)
    assert [f.check for f in check(adata).errors] == ["not counts"]


def test_expected_counts_and_truth_values_may_pass_as_counts():
    adata = cells()
    adata.X[0, :20] += 0.5
    report = check(adata, need="counts")
    assert report.looks == "expected counts" and serious(report) == {"not counts"} and not report.errors
    adata.X = (adata.X > 3).astype(np.float32)
    assert "zeros and ones only" in str(check(adata, need="counts"))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"need": "raw"}, "need='raw' is not known"),
        ({"need": ["counts"]}, "is not known"),
        ({"organism": "rat"}, "organism='rat'"),
        ({"per_class": 5}, "per_class needs labels"),
        ({"labels": "cell_type", "per_class": 0}, "per_class=0"),
        ({"labels": "cell_type", "per_class": True}, "per_class=True"),
        ({"labels": "cell_type", "per_class": 2.5}, "per_class=2.5"),
        ({"layer": "raw"}, "the matrix has no layer 'raw'; it has none"),
        ({"genes": []}, "reference list is empty"),
        ({"genes": ["a", "a"]}, "names 1 gene more than once"),
        ({"genes": "TP53"}, "list of names, not str"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(asked, says):
    with pytest.raises((DataError, SettingError), match=says):
        check(cells(), **asked)
    with pytest.raises(DataError, match="check takes AnnData, not list"):
        check([1])


def test_all_errors_are_told_at_once_and_worst_come_first():
    adata, _ = broken("nan")
    renamed(adata, ["TP53", "TP53", " CD3E", *HUMAN[3:300]])
    report = check(adata)
    assert [f.severity for f in report.findings] == ["error", "error", "warning"]
    assert str(report).splitlines()[0].startswith("40 cells × 300 genes; human symbols")
    with pytest.raises(DataError, match=r"(?s)TP53.*NaN|NaN.*TP53"):
        check(adata, strict=True)


def test_a_file_is_checked_block_by_block_as_in_memory(tmp_path, monkeypatch):
    adata = cells()
    adata.X[3, 3] = np.nan
    for kind in (np.asarray, sparse.csr_matrix, sparse.csc_matrix):
        adata.X = kind(adata.X.toarray() if sparse.issparse(adata.X) else adata.X)
        adata.write_h5ad(tmp_path / "b.h5ad")
        backed = ad.read_h5ad(tmp_path / "b.h5ad", backed="r")
        monkeypatch.setattr(values, "BLOCK", 700)  # several blocks
        assert check(backed).checks == check(adata).checks
        backed.file.close()


def test_own_files_are_told_of_what_was_found(tmp_path):
    table = pd.DataFrame(cells().X.T, index=["2-Sep", *HUMAN[1:300]], columns=cells().obs_names)
    table.to_csv(tmp_path / "turned.csv")
    with pytest.warns(DataWarning, match=r"turned\.csv names genes where cells should be .* adata\.T"):
        turned = data.load(tmp_path / "turned.csv")
    assert turned.T.shape == (40, 300)
    table.T.to_csv(tmp_path / "right.csv")
    with pytest.warns(DataWarning, match=r"right\.csv has 1 gene name a spreadsheet turned into dates"):
        data.load(tmp_path / "right.csv")
