"""Cell lines of GDSC: five files become one AnnData, names that differ by a hyphen meet, and fillers are no genes."""

import gzip
import pickle

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from shared import data
from shared.data.catalogue import catalog
from shared.data.errors import DataError
from shared.data.sources import gdsc

LINES = ["A375", "H2869", "TT", "KMH2", "NCIH23", "LONELY"]
GENES = ["MITF", "KRT18", "EPCAM", "HOXC6", "TP53"]
VALUES = np.arange(30, dtype=np.float32).reshape(6, 5) / 10
VALUES[:, [1, 3]] = -1.25 - np.arange(6, dtype=np.float32)[:, None] / 100  # KRT18 and HOXC6 hold one filler a line
VALUES[0, 0] = VALUES[0, 1]  # MITF is as low as the filler in one line, and measured all the same
LABELS = """\
SAMPLE_NAME,COSMIC_ID,GDSC1,GDSC2,TCGA,MMR,GROWTH_PROPERTIES
A375,1,skin,melanoma,SKCM,MSI-S,Adherent
H2869,2,lung,mesothelioma,MESO,MSI-S,Adherent
T-T,3,digestive_system,oesophagus,ESCA,MSI-S,Adherent
TT,4,thyroid,thyroid,THCA,,Adherent
KMH-2,5,thyroid,thyroid,THCA,MSI-S,Adherent
KM-H2,6,lymphoma,Hodgkin_lymphoma,,MSI-S,Suspension
NCI-H23,7,lung_NSCLC,lung_NSCLC_adenocarcinoma,LUAD,MSI-L,Adherent
ELSEWHERE,8,bone,osteosarcoma,,MSI-S,Adherent
"""
SCREEN = """\
CELL_LINE_NAME,DRUG_NAME,LN_IC50
A375,Dabrafenib,-3.0
A375,Dabrafenib,-1.0
A375,VNLG/124,2.5
NCI-H2869,Dabrafenib,4.0
T-T,Dabrafenib,9.0
TT,Dabrafenib,1.0
KMH-2,Dabrafenib,8.0
KM-H2,Dabrafenib,0.5
ELSEWHERE,Dabrafenib,7.0
ELSEWHERE,Nothing ,7.0
NCI-H23,GSK-LSD1-2HCl ,3.0
"""


@pytest.fixture
def files(tmp_path):
    """Five small files in the packages' layout, by name."""
    tensors = {line: torch.tensor(row) for line, row in zip(LINES, VALUES)}
    (tmp_path / "GDSC_EXP.pkl").write_bytes(pickle.dumps(tensors))
    (tmp_path / "key.genes.txt").write_text("\n".join(GENES) + "\n")
    (tmp_path / "GDSC1_IC50.csv").write_text(SCREEN)
    (tmp_path / "GDSC2_IC50.csv").write_text("CELL_LINE_NAME,DRUG_NAME,LN_IC50\nNCI-H23,Oxaliplatin,1.5\n")
    with gzip.open(tmp_path / "cosmic_info.csv.gz", "wt") as file:
        file.write(LABELS)
    return {p.name: p for p in sorted(tmp_path.iterdir())}


def test_five_files_become_one(files):
    got = gdsc.read(list(files.values()))
    assert got.shape == (6, 3) and list(got.var_names) == ["MITF", "EPCAM", "TP53"] and list(got.obs_names) == LINES
    assert got.X.dtype == np.float32 and (VALUES[:, [0, 2, 4]] == got.X).all() and got.uns["units"] == "z"
    backwards = gdsc.read(list(files.values())[::-1])
    assert (backwards.X == got.X).all() and backwards.obs.equals(got.obs)


def test_labels_find_their_line(files):
    obs = gdsc.read(list(files.values())).obs
    assert obs["subtype"].tolist()[:5] == [
        "melanoma", "mesothelioma", "thyroid", "Hodgkin_lymphoma", "lung_NSCLC_adenocarcinoma",
    ]  # fmt: skip
    assert obs["cell_line"].tolist() == ["A375", "H2869", "TT", "KM-H2", "NCI-H23", "LONELY"]
    assert obs.loc["LONELY"].isna().sum() == 5 and obs["msi"].isna().sum() == 2 and "bone" not in set(obs["tissue"])
    assert list(obs.columns) == ["cell_line", "tissue", "subtype", "tcga_type", "msi", "growth"]


def test_ic50_finds_its_line_and_drug(files):
    got = gdsc.read(list(files.values()))
    one, two = got.obsm["ln_ic50_gdsc1"], got.obsm["ln_ic50_gdsc2"]
    assert set(one.columns) == {"Dabrafenib", "VNLG-124", "GSK-LSD1-2HCl"}  # nothing that no line here was given
    assert one.loc["A375", "Dabrafenib"] == -2 and one.loc["H2869", "Dabrafenib"] == 4  # a mean; NCI- or not
    assert one.loc["TT", "Dabrafenib"] == 1 and one.loc["KMH2", "Dabrafenib"] == 0.5  # not those of T-T and KMH-2
    assert one.notna().sum().sum() == 6 and (one.dtypes == np.float32).all() and list(one.index) == LINES
    assert two["Oxaliplatin"].dropna().to_dict() == {"NCIH23": 1.5}


def test_it_passes_through_the_cache_format(files, tmp_path):
    got = gdsc.read(list(files.values()))
    got.write_h5ad(tmp_path / "g.h5ad")
    again = ad.read_h5ad(tmp_path / "g.h5ad")
    assert (again.X == got.X).all() and again.obs.astype(str).equals(got.obs.astype(str))
    for name in ("ln_ic50_gdsc1", "ln_ic50_gdsc2"):
        assert again.obsm[name].equals(got.obsm[name])


def other(name, content):
    def change(files):
        files[name].write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def pickled(tensors):
    return other("GDSC_EXP.pkl", pickle.dumps(tensors))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda files: files.pop("key.genes.txt"), "there is no file of genes"),
        (lambda files: [files.pop(n) for n in list(files)[:2]], "there is no file of ln_ic50_gdsc1"),
        (other("key.genes.txt", "MITF\nTP53\n"), "names 2 genes: the files do not belong together"),
        (other("key.genes.txt", "A B C D A"), r"names 1 gene more than once \(A\)"),
        (other("key.genes.txt", b"\xff\xfe\x00"), r"key\.genes\.txt is not UTF-8"),
        (pickled({"A375": torch.zeros(5), "a-375": torch.zeros(5)}), r"names 1 cell more than once \(A375\)"),
        (pickled({"A375": torch.zeros(5), "B": torch.zeros(4)}), r"line 'B' has shape \(4,\)"),
        (pickled({"A375": torch.zeros(5, dtype=torch.int64)}), "KeyError.*torch.LongStorage"),
        (pickled({"A375": torch.tensor([0, 1, 2, 3, torch.nan])}), "NaN or infinite"),
        (pickled({"A375": print}), r"KeyError.*builtins\.print"),
        (other("GDSC_EXP.pkl", b"<html>"), r"GDSC_EXP\.pkl is damaged"),
        (other("GDSC1_IC50.csv", ""), r"GDSC1_IC50\.csv cannot be read"),
        (other("GDSC1_IC50.csv", "<html>\n"), r"GDSC1_IC50\.csv cannot be read"),
        (other("GDSC1_IC50.csv", "CELL_LINE_NAME,DRUG_NAME,LN_IC50\n"), "names none of the lines"),
        (other("GDSC2_IC50.csv", SCREEN.replace("-3.0", "low")), "LN_IC50 holds words"),
        (other("GDSC2_IC50.csv", SCREEN.replace("-3.0", "")), "LN_IC50 holds words, NaN"),
        (other("GDSC2_IC50.csv", SCREEN.replace("-3.0", "inf")), "infinities"),
        (other("GDSC2_IC50.csv", "CELL_LINE_NAME,DRUG_NAME,LN_IC50\nQ,x,1.5\n"), "names none of the lines"),
        (other("cosmic_info.csv.gz", gzip.compress(LABELS.encode())[:-30]), r"cosmic_info\.csv\.gz is cut short"),
        (other("cosmic_info.csv.gz", LABELS), r"cosmic_info\.csv\.gz is cut short or damaged"),
        (other("cosmic_info.csv.gz", gzip.compress(b"a,b\n1,2\n")), r"cosmic_info\.csv\.gz cannot be read"),
        (other("cosmic_info.csv.gz", gzip.compress(LABELS.encode()[:61] + b"Q,1,a,b,c,d,e\n")), "none of the lines"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(files, change, says):
    change(files)
    with pytest.raises(DataError, match=says):
        gdsc.read(list(files.values()))


# The real files.


@pytest.fixture(scope="module")
def paths(packaged):
    return packaged(catalog()["gdsc"])


@pytest.fixture(scope="module")
def lines(paths):
    return gdsc.read(paths)


@pytest.mark.network
def test_the_catalogue_tells_the_truth(lines):
    entry = catalog()["gdsc"]
    assert lines.shape == entry.shape == (975, 5778) and lines.uns["units"] == entry.units == "z"
    assert lines.obs.nunique().to_dict() == {
        "cell_line": 975, "tissue": 19, "subtype": 55, "tcga_type": 31, "msi": 3, "growth": 3,
    }  # fmt: skip
    assert lines.obs["tissue"].notna().sum() == 967 and (lines.obs["tcga_type"].value_counts() >= 10).sum() == 26
    assert (lines.obs["subtype"].value_counts() >= 10).sum() == 32
    shapes = {n: (t.shape[1], int(t.notna().any(axis=1).sum())) for n, t in lines.obsm.items()}
    assert shapes == {"ln_ic50_gdsc1": (378, 938), "ln_ic50_gdsc2": (286, 937)}
    assert np.nanmin(lines.obsm["ln_ic50_gdsc2"]) > -12 and np.nanmax(lines.obsm["ln_ic50_gdsc2"]) < 15
    for number in ("378 drugs, 938 lines", "286 drugs, 937 lines", "tissue (19)", "subtype (55)", "967 lines"):
        assert number in entry.labels


@pytest.mark.network
def test_genes_and_lines_are_in_their_places(lines):
    table = lines.to_df()

    def r(a, b):
        return np.corrcoef(table[a], table[b])[0, 1]

    assert r("CD79A", "CD19") == pytest.approx(0.88, abs=0.01) and r("ERBB2", "GRB7") == pytest.approx(0.80, abs=0.01)
    assert r("CDH1", "EPCAM") == pytest.approx(0.82, abs=0.01) and r("CDH1", "VIM") == pytest.approx(-0.67, abs=0.01)
    top = table["MITF"].nlargest(20).index
    assert (lines.obs.loc[top, "subtype"].dropna() == "melanoma").sum() >= 16
    blood = lines.obs["tissue"].isin(["leukemia", "lymphoma", "myeloma"]).to_numpy()
    assert table.loc[blood, "PTPRC"].mean() > table.loc[~blood, "PTPRC"].mean() + 1.5
    # Two names that stand for two lines each: the genes agree with the labels chosen.
    assert lines.obs.loc["TT", "tissue"] == "thyroid" and table.loc["TT", "CALCA"] > 3
    assert lines.obs.loc["KMH2", "tissue"] == "lymphoma" and table.loc["KMH2", "PTPRC"] > 1


@pytest.mark.network
def test_drugs_work_where_they_should(lines):
    response = lines.obsm["ln_ic50_gdsc2"]
    skin = (lines.obs["subtype"] == "melanoma").to_numpy()
    assert response.loc[skin, "Dabrafenib"].mean() < response.loc[~skin, "Dabrafenib"].mean() - 2
    both = pd.concat([t["5-Fluorouracil"] for t in lines.obsm.values()], axis=1).dropna()
    assert len(both) > 800 and both.corr().iloc[0, 1] > 0.4  # two screens of one drug on the same lines agree


@pytest.mark.network
def test_fillers_are_no_genes(lines):
    """Genes the packagers had no measurement of hold one value in each line, and are left out."""
    assert not {"KRT18", "HOXC6", "CDKN1A"} & set(lines.var_names)
    assert not pd.DataFrame(lines.X.T).duplicated().any()
    tumours = data.load("colorectal")
    assert len(set(tumours.var_names) & set(lines.var_names)) == 5682
