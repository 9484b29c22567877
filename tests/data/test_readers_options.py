"""What the readers' options do, and what each source's pitfalls come to."""

import inspect
import re
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from official_layouts import CASES, HUMAN, SYMBOLS, counts, rows, series_lines, unpacked, write
from scipy import sparse

from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.data.readers import READERS
from shared.data.readers.assemble import distinct
from shared.data.readers.xena import undone


def dense(adata):
    return adata.X.toarray() if sparse.issparse(adata.X) else adata.X


def read(case, **options):
    return READERS[case.reader](case.paths, **(case.options | options))


# The list of readers


def test_readers_are_named_and_imported_on_use():
    code = (
        "import sys; from shared.data.readers import READERS; "
        "assert not [m for m in sys.modules if m.startswith('shared.data.readers.')], 'imported early'; "
        "assert callable(READERS['genelab']) and READERS.get('nothing') is None; "
        "assert 'shared.data.readers.genelab' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", READERS)
def test_every_reader_says_its_layout_and_errors(name):
    read = READERS[name]
    assert next(iter(inspect.signature(read).parameters)) == "paths"
    assert all(p.kind is p.KEYWORD_ONLY for p in list(inspect.signature(read).parameters.values())[1:])
    assert "Raises\n" in read.__doc__ and "DataError" in read.__doc__ and "Returns\n" in read.__doc__
    for option in list(inspect.signature(read).parameters)[1:]:
        assert re.search(rf"^ *(\w+, )*{option}(, \w+)* : ", read.__doc__, re.MULTILINE), (
            f"{name} does not explain {option}"
        )


WRONG = {
    "mixology": {"doublets": "x"},
    "kang": {"keep": "x"},
    "segerstolpe": {"values": "x"},
    "recount3": {"counts": "x"},
    "xena_toil": {"names": "x"},
    "gct": {"names": "x"},
    "tenx_v2": {"names": "x"},
    "h5_v3": {"names": "x"},
    "facs": {"unannotated": "x"},
    "series_matrix": {"missing": "x"},
    "xin": {"orientation": "x"},
    "genelab": {"units": "x"},
    "scjoint": {"batches": ["one"]},
}


@pytest.mark.parametrize("name", WRONG)
def test_an_unknown_choice_is_refused(tmp_path, name):
    with pytest.raises((DataError, SettingError), match=r"is not known|one for each"):
        read(CASES[name](tmp_path), **WRONG[name])


# Names of genes


def test_a_name_of_two_genes_stands_for_neither():
    found = distinct(["A", "B", "A", "NA", "", "E"], ["a1", "b1", "a2", "c1", "d1", "B"], "f.tsv")
    assert list(found) == ["a1", "B", "a2", "c1", "d1", "E"]
    with pytest.raises(DataError, match=r"f\.tsv names 1 gene more than once"):
        distinct(["A", "A"], ["a", "a"], "f.tsv")


def test_a_full_name_that_is_another_genes_short_name_is_kept_apart():
    assert list(distinct(["A", "A", "a2"], ["a1", "a2", "x"], "f")) == ["a1", "a2", "x"]


@pytest.mark.parametrize("name", ["tenx_v2", "kang", "h5_v3", "h5_v2"])
def test_genes_by_id(tmp_path, name):
    case = CASES[name](tmp_path)
    found = read(case, names="id")
    assert list(found.var_names) == HUMAN and np.array_equal(dense(found), case.X)
    assert list(found.var["symbol"]) != list(found.var["id"])


# 10x


def test_antibodies_beside_genes(tmp_path):
    case = CASES["tenx_v3"](tmp_path)
    assert read(case).n_vars == 7 and "2 features of other types left out" in read(case).uns["notes"][0]
    assert read(case, feature_type=None).n_vars == 9
    assert list(read(case, feature_type="Antibody Capture").var_names) == SYMBOLS[7:]
    with pytest.raises(DataError, match="no features of type 'Peaks'; it has Gene Expression, Antibody Capture"):
        read(case, feature_type="Peaks")


def test_labels_with_other_headings_are_named(tmp_path):
    case = CASES["tenx_v2"](tmp_path)
    path = case.paths[3]
    path.write_bytes(path.read_bytes().replace(b"barcodes\tcelltype", b"code\tkind"))
    with pytest.raises(DataError, match="say which holds the barcodes"):
        read(case)
    found = read(case, barcode="code", obs={"cell_type": "kind", "x": "TSNE.1"}, batch="donor A")
    assert found.obs["cell_type"].astype(object).tolist()[:2] == ["CD19+ B", "CD56+ NK"]
    assert set(found.obs["batch"]) == {"donor A"} and found.obs["x"].notna().sum() == 5


def test_a_folder_lacks_a_file_or_has_two(tmp_path):
    case = CASES["tenx_v2"](tmp_path)
    with pytest.raises(DataError, match="no file of genes"):
        READERS["tenx_mtx"]([case.paths[0], *case.paths[2:]])
    with pytest.raises(DataError, match="both barcodes"):
        READERS["tenx_mtx"]([*case.paths, case.paths[2]])


def test_hdf5_of_several_genomes(tmp_path):
    import h5py

    case = CASES["h5_v2"](tmp_path)
    with h5py.File(case.paths[0], "a") as f:
        f.copy("GRCh38", "mm10")
    with pytest.raises(DataError, match="holds the genomes GRCh38, mm10: name one"):
        read(case)
    assert np.array_equal(dense(read(case, genome="mm10")), case.X)
    with pytest.raises(DataError, match="no genome 'hg19'"):
        read(case, genome="hg19")


def test_files_of_other_features_are_refused(tmp_path):
    one, two = CASES["h5_v3"](tmp_path), CASES["h5_v2"](tmp_path)
    assert READERS["tenx_h5"]([*one.paths, *two.paths]).n_obs == 12  # the same cells in both: named by file
    (tmp_path / "x").mkdir()
    three = CASES["scjoint"](tmp_path / "x")
    with pytest.raises(DataError, match="other features"):
        READERS["tenx_h5"]([*one.paths, *three.paths])


def test_cells_of_one_name_in_two_files_are_told_apart(tmp_path):
    one, two = CASES["h5_v3"](tmp_path), CASES["h5_v2"](tmp_path)
    found = READERS["tenx_h5"]([*one.paths, *two.paths], batches=["a", "b"])
    assert list(found.obs_names[[0, 6]]) == ["a_AAACATACAACCAC-1", "b_AAACATACAACCAC-1"]


# Kang, Segerstolpe, Muraro, Wang, Xin, Baron


def test_kang_singlets(tmp_path):
    found = read(CASES["kang"](tmp_path), keep="singlets")
    assert found.n_obs == 5 and set(found.obs["multiplets"]) == {"singlet"} and found.obs["cell_type"].notna().all()


def test_rpkm_beside_counts(tmp_path):
    case = CASES["segerstolpe"](tmp_path)
    found = read(case, values="rpkm")
    assert found.uns["units"] == "none" and np.allclose(dense(found), np.round(case.X * 1.37, 2))
    good = read(case, keep="good")
    assert good.n_obs == 5 and good.obs["cell_type"].notna().all() and "1 cell left out" in good.uns["notes"][0]
    assert list(read(case).var["spike_in"]) == [False] * 7 + [True, False]


def test_species_apart(tmp_path):
    case = CASES["geo_umi"](tmp_path)
    lines = unpacked(case.paths[0]).decode().replace("human1", "mouse1").split("\n")[:-1]
    lines[0] = lines[0].title().replace("Assigned_Cluster", "assigned_cluster").replace("Barcode", "barcode")
    mouse = write(tmp_path / "GSM2230761_mouse1_umifm_counts.csv.gz", lines)
    with pytest.raises(DataError, match="other genes"):
        READERS["geo_umi"]([*case.paths, mouse])
    assert READERS["geo_umi"]([*case.paths, mouse], species="mouse").obs["donor"].unique().tolist() == ["mouse1"]
    with pytest.raises(DataError, match=r"none of .* is of 'mouse'"):
        READERS["geo_umi"](case.paths, species="mouse")


def test_a_table_with_cells_in_rows(tmp_path):
    X = counts(4, 5)
    path = write(tmp_path / "t.csv", [",".join(["gene", *SYMBOLS[:5]]), *rows(([f"c{i}"] for i in range(4)), X, ",")])
    found = READERS["geo_matrix"]([path], orientation="cells", units="counts")
    assert np.array_equal(dense(found), X) and list(found.obs_names) == ["c0", "c1", "c2", "c3"]


def test_cells_whose_names_say_nothing_are_refused(tmp_path):
    case = CASES["muraro"](tmp_path)
    with pytest.raises(DataError, match="finds no plate"):
        read(case, cells={"plate": r"^(P\d+)"}, drop={})
    with pytest.raises(DataError, match="no column 'type' to drop"):
        read(case, drop={"type": ["x"]})


def test_the_catalogue_reads_the_pancreas_files(tmp_path):
    """The options that stand in the catalogue fit the layouts."""
    from shared.data.catalogue import entry

    for name in ("muraro", "wang", "xin"):
        (tmp_path / name).mkdir()
        case, route = CASES[name](tmp_path / name), entry(name).route("official")
        paths = case.paths[:1] if name == "muraro" else case.paths
        options = dict(route.options)
        if name == "xin":  # the layout here has no condition
            options["obs"] = {k: v for k, v in options["obs"].items() if k != "condition"}
        found = READERS[route.reader](paths, **options)
        assert found.uns["units"] == entry(name).units
        assert name == "muraro" or found.obs["cell_type"].notna().all()
        assert found.n_obs == (6 if name == "muraro" else len(case.cells))


# Series matrices


def test_characteristics_of_mixed_order(tmp_path):
    X = counts(4, 5, fractions=True)
    table = ["\t".join([f'"{p}_at"', *map(str, r)]) for p, r in zip(range(5), X.T)]
    mixed = [["age: 61", "sex: F", "age: 58", "sex: M"], ["sex: M", "age: 70", "", "age: 44"]]
    path = write(tmp_path / "GSE1_series_matrix.txt.gz", series_lines(list("abcd"), mixed, table))
    found = READERS["series_matrix"]([path], obs={"years": "age"})
    assert found.obs["age"].tolist()[:2] == ["61", "70"] and pd.isna(found.obs["sex"].iloc[2])
    assert found.obs["years"].astype(str).tolist() == found.obs["age"].astype(str).tolist()
    assert "response" not in found.obs, "nobody said it"
    with pytest.raises(DataError, match="no column 'weight'"):
        READERS["series_matrix"]([path], obs={"kg": "weight"})


@pytest.mark.parametrize(
    ("said", "response"),
    [
        (["responder", "non-responder"] * 2, ["responder", "non_responder"] * 2),
        (["Sensitive tumour", "Resistant tumour"] * 2, ["responder", "non_responder"] * 2),
        (["responder", "unknown"] * 2, None),
        (["responder"] * 4, None),
        (["sensitive, later resistant", "sensitive"] * 2, ["non_responder", "responder"] * 2),
    ],
)
def test_response_is_taken_where_every_sample_says_it(tmp_path, said, response):
    X = counts(4, 5)
    table = ["\t".join([f'"{p}_at"', *map(str, r)]) for p, r in zip(range(5), X.T)]
    path = write(tmp_path / "GSE6434_series_matrix.txt.gz", series_lines(said, [["x: y"] * 4], table))
    found = READERS["series_matrix"]([path]).obs
    assert (found["response"].tolist() if response else "response" in found) == (response or False)


@pytest.mark.parametrize("value", ["", "null", "NA"])
def test_probes_without_a_value(tmp_path, value):
    case = CASES["series_matrix"](tmp_path)
    lines = unpacked(case.paths[0]).decode().split("\n")[:-1]
    fields = lines[case.head].split("\t")
    lines[case.head] = "\t".join([*fields[:2], value, *fields[3:]])
    write(case.paths[0], lines)
    with pytest.raises(DataError, match=r"no value in some sample for 1 probe .*missing='drop'"):
        read(case)
    found = read(case, missing="drop")
    assert found.n_vars == 8 and "1 probe without a value" in found.uns["notes"][0]


def test_a_series_without_values_says_so(tmp_path):
    path = write(tmp_path / "GSE2_series_matrix.txt.gz", series_lines(["a", "b"], [["x: y"] * 2]))
    with pytest.raises(DataError, match="empty table: the study keeps its values in another file"):
        READERS["series_matrix"]([path])


def test_labels_are_read_to_the_checksum_at_the_end(tmp_path):
    """What is needed of a series matrix stands in its head, and its end may be missing all the same."""
    case = CASES["xin"](tmp_path)
    text = unpacked(case.paths[1]).decode().split("\n")[:-1]
    rng = np.random.default_rng(0)
    table = ["\t".join(map(str, r)) for r in rng.random((20_000, 6))]
    write(case.paths[1], [*text[:-1], *table, text[-1]])
    assert read(case).n_obs == 6
    case.paths[1].write_bytes(case.paths[1].read_bytes()[:-9])
    with pytest.raises(DataError, match="cut short or damaged in its packing"):
        read(case)


# GeneLab


@pytest.mark.parametrize(
    ("name", "condition", "tissue", "mouse"),
    [
        ("Mmus_C57-6J_LVR_GC_C_Rep5_M40", "ground", "liver", "M40"),
        ("Mmus_BAL-TAL_LRTN_BSL_Rep1_B7", "basal", "left retina", "B7"),
        ("Mmus_C57-6J_LVR_RR1_FLT_wERCC_Rep1_M25", "flight", "liver", "M25"),
        ("RR23_KDN_VIV_V1", "vivarium", "kidney", "V1"),
    ],
)
def test_names_of_other_missions(tmp_path, name, condition, tissue, mouse):
    path = write(
        tmp_path / "GLDS-1_rna_seq_Unnormalized_Counts.csv", [f',"{name}","{name}x"', "ENSMUSG1,1,2", "ENSMUSG2,3,4"]
    )
    row = READERS["genelab"]([path]).obs.iloc[0]
    assert (row["condition"], row["tissue"], row["donor"]) == (condition, tissue, mouse)


@pytest.mark.parametrize("name", ["Mmus_C57-6J_TA_Rep1_M23", "Mmus_TA_FLT_GC_M23", "Mmus_C57-6J_TA_FLT", "M23"])
def test_a_sample_that_does_not_say_its_condition_is_refused(tmp_path, name):
    path = write(tmp_path / "GLDS-1_rna_seq_Unnormalized_Counts.csv", [f',"{name}"', "ENSMUSG1,1", "ENSMUSG2,3"])
    with pytest.raises(DataError, match="does not say its condition"):
        READERS["genelab"]([path])


def test_spike_ins_are_told(tmp_path):
    found = read(CASES["genelab"](tmp_path), tissue="muscle", study="OSD-1")
    assert list(found.var["spike_in"]) == [False] * 8 + [True]
    assert set(found.obs["tissue"]) == {"muscle"} and set(found.obs["batch"]) == {"OSD-1"}


# GTEx


def test_part_of_gtex(tmp_path):
    case = CASES["gct"](tmp_path)
    found = read(case, genes=[HUMAN[2], "ENSG00000000005.5", "INS", "no gene"], tissues=["Lung"])
    assert list(found.var_names) == [HUMAN[0], HUMAN[2], HUMAN[4]] and set(found.obs["tissue"]) == {"Lung"}
    assert np.array_equal(found.X, case.X[[0, 2, 4]][:, [0, 2, 4]].astype(np.float32))
    assert found.uns["notes"] == ["1 gene asked for and not there (no gene)"]
    assert set(read(case, tissues="Brain").obs["tissue"]) == {"Brain - Cortex", "Brain - Amygdala"}
    assert read(case, tissues="Brain - Amygdala").n_obs == 1
    with pytest.raises(DataError, match="no sample of Skin; tissues are Lung"):
        read(case, tissues=["Lung", "Skin"])
    with pytest.raises(DataError, match="none of the genes"):
        read(case, genes=["TP53"])


def test_names_of_gtex(tmp_path):
    case = CASES["gct"](tmp_path)
    assert list(read(case, names="versioned").var_names[[0, 8]]) == ["ENSG00000000001.5", "ENSG00000000001.5_PAR_Y"]
    assert list(read(case, names="symbol").var_names) == SYMBOLS


@pytest.mark.parametrize("part", [{}, {"genes": SYMBOLS}])
def test_a_gct_that_is_not_as_large_as_it_says_is_refused(tmp_path, part):
    case = CASES["gct"](tmp_path)
    lines = unpacked(case.paths[0]).decode().split("\n")[:-1]
    for changed in (lines[:-1], [*lines, lines[-1].replace(HUMAN[0], HUMAN[8])], ["#1.2", "10\t6", *lines[2:]]):
        write(case.paths[0], changed)
        with pytest.raises(DataError, match="says it has"):
            read(case, **part)
    for changed in (
        ["#1.3", *lines[1:]],
        ["#1.2", "9\t7", *lines[2:]],
        ["#1.2", "9", *lines[2:]],
        ["#1.2", *lines[2:]],
    ):
        write(case.paths[0], changed)
        with pytest.raises(DataError):
            read(case, **part)


def test_a_short_row_of_a_sample_nobody_asked_for_is_refused(tmp_path):
    """A parser that is asked for some columns does not look at the others."""
    case = CASES["gct"](tmp_path)
    lines = unpacked(case.paths[0]).decode().split("\n")[:-1]
    for changed in (lines[4].rsplit("\t", 1)[0], lines[4] + "\t1"):
        write(case.paths[0], [*lines[:4], changed, *lines[5:]])
        with pytest.raises(DataError, match="in row 2 where 8 are due"):
            read(case, tissues=["Brain - Amygdala"])


def wide_gct(folder, samples, genes):
    rng = np.random.default_rng(0)
    cells = [f"GTEX-{i:04d}-0126-SM-5GZZ7" for i in range(samples)]
    lines = ["\t".join(f"{v:.4g}" for v in rng.gamma(0.3, 20, samples)) for _ in range(40)]
    body = (f"ENSG{i:011d}.3\tG{i}\t{lines[i % 40]}" for i in range(genes))
    path = write(
        folder / "wide.gct.gz", ["#1.2", f"{genes}\t{samples}", "\t".join(["Name", "Description", *cells]), *body]
    )
    said = [f"{c}\tLung\tLung" if i % 10 == 0 else f"{c}\tSkin\tSkin" for i, c in enumerate(cells)]
    return path, write(folder / "attributes.txt", ["SAMPID\tSMTS\tSMTSD", *said])


def test_memory_is_that_of_what_is_asked_for(tmp_path, monkeypatch):
    """600 samples × 1,500 genes are 3.6 MB as float32 and 7.2 as float64 or text; buffers and a block cost about 4."""
    from shared.data.readers import wide

    monkeypatch.setattr(wide, "BLOCK", 20_000)
    paths = wide_gct(tmp_path, 600, 1500)
    READERS["gct"](paths, genes=["G1"])  # imports
    peaks = {}
    for name, part in (
        ("all", {}),
        ("lungs", {"tissues": "Lung"}),
        ("genes", {"genes": [f"G{i}" for i in range(100)]}),
    ):
        tracemalloc.start()
        found = READERS["gct"](paths, **part)
        peaks[name] = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        assert found.X.dtype == np.float32
    assert peaks["all"] < 3.6 + 5, peaks
    assert peaks["lungs"] < 0.36 + 5 and peaks["genes"] < 0.24 + 5, peaks


# Xena


def test_the_logarithm_is_undone_exactly_at_zero():
    tpm = np.array([0, 0.001, 0.01, 0.53, 1, 12.34, 99_999.9])
    stored = np.round(np.log2(tpm + 0.001), 4)
    found = undone(stored, 2, 0.001)
    assert found[0] == 0.0 and (found[1:] > 0).all()
    assert np.abs(found - tpm).max() / 1e5 < 4e-5 and np.allclose(found, tpm, rtol=4e-5, atol=4e-8)
    assert undone(np.array([np.round(np.log2(0.1), 4)]), 2, 0.1) == 0, "a floor that rounds upwards"
    assert undone(np.array([0.0, 1.0, 3.0]), 2, 1).tolist() == [0.0, 1.0, 7.0]
    assert np.array_equal(undone(np.array([-np.inf, 0.0, 1.0]), 10, 0), [0, 1, 10])
    for wrong in (np.array([-9.9658, 0.0]), np.array([-3.0, 2.0])):
        with pytest.raises(DataError, match="correct base and offset"):
            undone(wrong, 2, 1)


def test_tpm_of_toil_sum_to_a_million(tmp_path):
    """The rounding to four decimals costs parts in a hundred thousand, not in a hundred."""
    rng = np.random.default_rng(0)
    tpm = rng.gamma(0.1, 1, (5000, 3)) * (rng.random((5000, 3)) < 0.5)
    tpm *= 1e6 / tpm.sum(0)
    body = ["\t".join([f"ENSG{i:011d}.1", *(f"{v:.4f}" for v in np.log2(r + 0.001))]) for i, r in enumerate(tpm)]
    path = write(tmp_path / "x.gz", ["sample\tGTEX-1-1\tGTEX-2-1\tTCGA-A-B-01", *body])
    found = READERS["xena"]([path], base=2, offset=0.001, units="tpm")
    assert np.allclose(found.X.sum(1, dtype=np.float64), 1e6, rtol=1e-4)
    assert (found.X[tpm.T == 0] == 0).all() and (found.X[tpm.T > 1e-7] > 0).all()
    assert list(found.obs["donor"]) == ["GTEX-1", "GTEX-2", "TCGA-A-B"]


def test_part_of_toil(tmp_path):
    case = CASES["xena_toil"](tmp_path)
    found = read(case, samples={"study": ["GTEX"]}, genes=["INS", HUMAN[3], "ENSG00000000005.6"])
    assert list(found.var_names) == [HUMAN[0], HUMAN[3], HUMAN[4]] and set(found.obs["study"]) == {"GTEX"}
    assert np.allclose(found.X, case.X[:2][:, [0, 3, 4]], rtol=5e-5)
    assert list(read(case, names="symbol").var_names) == SYMBOLS
    assert read(case, names="versioned").var_names[0] == "ENSG00000000001.2"
    assert read(case, obs={"kind": "detailed_category"}).obs["kind"].iloc[0] == "x"
    for wrong in ({"samples": {"study": "MARS"}}, {"samples": {"planet": "MARS"}}, {"genes": ["TP53"]}, {"base": 10}):
        with pytest.raises(DataError):
            read(case, **wrong)
    with pytest.raises(DataError, match="probemap"):
        READERS["xena"](case.paths[:2], names="symbol")


def test_missing_and_repeated_genes_of_tcga(tmp_path):
    case = CASES["xena_tcga"](tmp_path)
    with pytest.raises(DataError, match="no value in some sample for GHRL: missing='drop'"):
        read(case, missing="refuse")
    assert "1 gene without a value" in read(case).uns["notes"][0]
    lines = unpacked(case.paths[0]).decode().split("\n")[:-1]
    write(case.paths[0], [*lines, lines[1]])
    with pytest.raises(DataError, match="more than once"):
        read(case)
    found = read(case, twice="drop")
    assert "INS" not in found.var_names and found.n_vars == 7 and "stands twice (INS)" in found.uns["notes"][1]


# recount3


def test_sums_become_reads_or_are_scaled(tmp_path):
    case = CASES["recount3"](tmp_path)
    raw, scaled = read(case, counts="raw"), read(case, counts="scaled")
    sums = dense(raw).astype(np.float64)
    assert raw.uns["units"] == "none" and (sums.sum(1) > case.X.sum(1) * 70).all()
    assert scaled.uns["units"] == "counts"
    assert np.allclose(dense(scaled), np.rint(sums * (4e7 / np.floor(sums.sum(1) * 1.5))[:, None]), rtol=1e-6)
    assert list(read(case).var["symbol"]) == [s.title() for s in SYMBOLS]
    alone = READERS["recount3"](case.paths[:2], counts="raw")
    assert np.array_equal(dense(alone), dense(raw))
    with pytest.raises(DataError, match="no file of quality, which counts='reads' needs"):
        READERS["recount3"](case.paths[:2])


@pytest.mark.parametrize("value", ["0", "NA", "", "-3", "inf"])
def test_a_run_without_a_length_is_refused(tmp_path, value):
    case = CASES["recount3"](tmp_path)
    text = unpacked(case.paths[2]).decode().replace("150.25", value)
    write(case.paths[2], text.split("\n")[:-1])
    with pytest.raises(DataError, match=r"no positive star\.average_mapped_length for SRR300002"):
        read(case)


def test_large_sums_are_divided_before_they_are_rounded_to_float32(tmp_path):
    """Sums pass 16,777,216, above which float32 holds no odd number."""
    write(tmp_path / "sra.gene_sums.S.M023.gz", ["##annotation=M023", "gene_id\tr1", "g1\t1677721700", "g2\t99"])
    write(tmp_path / "sra.sra.S.MD.gz", ["external_id\tstudy", "r1\tS"])
    quality = ["external_id\tbc_auc.all_reads_all_bases\tstar.average_mapped_length", "r1\t9\t100"]
    write(tmp_path / "sra.recount_qc.S.MD.gz", quality)
    found = READERS["recount3"](sorted(tmp_path.glob("*.gz")))
    assert dense(found).tolist() == [[np.float32(16_777_217), 1]]


# Tabula Muris


def test_organs_and_annotated_cells(tmp_path):
    for name in ("facs", "droplet"):
        case = CASES[name](tmp_path)
        found = read(case, tissues="Bladder")
        assert set(found.obs["tissue"]) == {"Bladder"} and found.n_obs == 3
        with pytest.raises(DataError, match="no organ Brain; it has Bladder, T"):
            read(case, tissues=["Brain"])
        assert read(case, unannotated="drop").n_obs == 5
    with pytest.raises(DataError, match="none of the cells"):
        READERS["tabula_muris"]([CASES["facs"](tmp_path).paths[0], CASES["droplet"](tmp_path).paths[1]])


def test_unpacked_organs(tmp_path):
    import zipfile

    case = CASES["facs"](tmp_path)
    with zipfile.ZipFile(case.paths[0]) as z:
        z.extractall(tmp_path)
    found = READERS["tabula_muris"]([*sorted((tmp_path / "FACS").glob("*.csv")), case.paths[1]])
    assert np.array_equal(dense(found), case.X) and list(found.obs_names) == case.cells


# Orthologs

REPORT = [
    "DB Class Key\tCommon Organism Name\tNCBI Taxon ID\tSymbol\tEntrezGene ID\tMouse MGI ID",
    *(
        f"{k}\tmouse, laboratory\t10090\t{m}\t1\tMGI:1"
        for k, m in ((1, "Ins1"), (1, "Ins2"), (2, "Gcg"), (3, "Sst"), (5, "Ppy"))
    ),
    *(f"{k}\thuman\t9606\t{h}\t2\t" for k, h in ((1, "INS"), (2, "GCG"), (3, "SST"), (4, "GHRL"), (6, "SST"))),
]


def test_orthologs_are_one_to_one(tmp_path):
    path = write(tmp_path / "HOM_MouseHumanSequence.rpt", REPORT)
    found = READERS["orthologs"]([path])
    assert found.to_dict("list") == {"human": ["GCG", "SST"], "mouse": ["Gcg", "Sst"]}
    assert found.attrs == {"families": 6, "lost": 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: [r[0].replace("Symbol", "Name"), *r[1:]], "no column 'Symbol'"),
        (lambda r: [*r, "7\trat\t10116\tIns\t1\t"], "taxa 10116"),
        (lambda r: [*r, "7\thuman\t9606"], "3 fields in row 11 where 6 are due"),
        (lambda r: [*r, "7\thuman\t9606\t\t1\t"], "without a symbol"),
        (lambda r: r[:6], "no family"),
        (lambda r: ["<html><body>"], "web page"),
        (lambda r: r[:1], "no rows"),
    ],
)
def test_a_damaged_report_is_refused(tmp_path, change, message):
    path = write(tmp_path / "HOM_MouseHumanSequence.rpt", change(REPORT))
    with pytest.raises(DataError, match=message):
        READERS["orthologs"]([path])


# Plain files


def test_h5ad_with_other_names(tmp_path):
    import anndata as ad

    from shared.data.routes import _write

    cells = pd.Index(["1", "2", "3"], dtype=object)
    obs = pd.DataFrame({"celltype": ["a", "x", "b"], "tech": ["c", "c", "d"]}, index=cells).astype("category")
    adata = ad.AnnData(np.log1p(counts(3, 4)).astype(np.float32), obs=obs)
    adata.layers["counts"] = counts(3, 4)
    _write(adata, tmp_path / "a.h5ad")
    names = {"cell_type": "celltype", "batch": "tech"}
    found = READERS["h5ad"]([tmp_path / "a.h5ad"], layer="counts", obs=names, units="counts", missing=["x"])
    assert np.array_equal(found.X, counts(3, 4)) and found.uns["units"] == "counts"
    assert [None if pd.isna(v) else v for v in found.obs["cell_type"]] == ["a", None, "b"]
    assert list(found.obs["batch"]) == ["c", "c", "d"] and "celltype" in found.obs
    for wrong in ({"layer": "x"}, {"obs": {"a": "b"}}):
        with pytest.raises(DataError, match=r"a\.h5ad has no"):
            READERS["h5ad"]([tmp_path / "a.h5ad"], **wrong)
    data = (tmp_path / "a.h5ad").read_bytes()
    for changed in (b"", data[:-100], data[: len(data) // 2], b"<html>" * 99):
        (tmp_path / "a.h5ad").write_bytes(changed)
        with pytest.raises(DataError, match=r"a\.h5ad"):
            READERS["h5ad"]([tmp_path / "a.h5ad"])


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz"])
def test_table(tmp_path, name):
    X, separator = counts(3, 4), "\t" if "tsv" in name else ","
    lines = [separator.join(["", *SYMBOLS[:4]]), *rows(([f"c{i}"] for i in range(3)), X, separator)]
    found = READERS["table"]([write(tmp_path / name, lines)])
    assert np.array_equal(found.X, X) and list(found.var_names) == SYMBOLS[:4] and found.X.dtype == np.float32
    lines[1] = lines[1][:-1] + "x"
    with pytest.raises(DataError, match="words in place of numbers"):
        READERS["table"]([write(tmp_path / name, lines)])


def test_own_tables_are_read_as_the_door_reads_them(tmp_path):
    """One code or two: the same matrix, and the same refusals."""
    from shared import data

    X = counts(3, 4)
    good = [",".join(["", *SYMBOLS[:4]]), *rows(([f"c{i}"] for i in range(3)), X, ",")]
    path = write(tmp_path / "t.csv", good)
    assert np.array_equal(data.from_arrays(READERS["table"]([path]).X, SYMBOLS[:4]).X, X)
    for wrong in ([good[0], good[1], good[1]], [good[0].replace("GCG", "INS"), *good[1:]], good[:1], ["c0", "c1"]):
        path = write(tmp_path / "t.csv", wrong)
        with pytest.raises(DataError) as ours:
            found = READERS["table"]([path])
            data.from_arrays(found.X, list(found.var_names))
        with pytest.raises(DataError) as theirs:
            data.load(path)
        assert type(ours.value) is type(theirs.value)


def test_files_may_lie_in_any_folder(tmp_path):
    """Names are read from the file's own name, not from its path."""
    folder = tmp_path / "matrix.mtx genes.tsv" / "human1"
    folder.mkdir(parents=True)
    case = CASES["tenx_v2"](tmp_path)
    moved = [Path(shutil.copy(p, folder / p.name)) for p in case.paths]
    assert np.array_equal(dense(READERS["tenx_mtx"](moved)), case.X)
