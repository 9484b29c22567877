"""``check FILE`` and ``convert FILE OUT``: what is said of a file of one's own, and what the clean copy holds."""

import gzip
import os
import shlex
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from shared.data import __main__ as cli
from shared.data import load
from shared.data.convert import Options, convert, judge, parted
from shared.data.errors import DataError


@pytest.fixture(scope="module")
def blood():
    """Forty cells of two types, two hundred genes that are found in them, counts."""
    adata = load("pbmc")
    adata = adata[adata.obs["cell_type"].isin(["B", "T"]) if "T" in set(adata.obs["cell_type"]) else slice(None)]
    kinds = adata.obs["cell_type"].value_counts().index[:2]
    cells = np.concatenate([np.flatnonzero(adata.obs["cell_type"] == kind)[:20] for kind in kinds])
    genes = np.argsort(-np.asarray((adata.X[cells] > 0).sum(0)).ravel(), kind="stable")[:200]
    return ad.AnnData(adata.X[cells][:, genes], obs=adata.obs.iloc[cells][["cell_type"]], var=adata.var.iloc[genes][[]])


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """A folder to stand in, and the command: its status, what it printed, what it complained of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words):
        status = cli.main(list(words))
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def table(adata, path="cells.csv", *, turned=False, **columns):
    frame = pd.DataFrame(adata.X.toarray().astype(int), index=adata.obs_names, columns=adata.var_names)
    frame = frame.T if turned else frame
    for name, values in reversed(columns.items()):
        frame.insert(0, name, values)
    frame.to_csv(path, sep="\t" if ".tsv" in path else ",")
    return frame


def command_of(out):
    """The command that an output names, as the words after ``python -m shared.data``."""
    words = shlex.split(out.split("one command mends it:\n")[1].split("\nwhat is left")[0].replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "shared.data"]
    return words[3:]


# What is wrong with a file, and what is right once the command that is named was run.
DAMAGE = {
    "genes in rows": lambda a: table(a, "f.csv", turned=True),
    "genes in rows, one twice": lambda a: table(a[:, [*range(200), 0]], "f.tsv", turned=True),
    "a gene twice": lambda a: table(a[:, [*range(200), 0]], "f.csv"),
    "labels in a table": lambda a: table(a, "f.csv", cluster=list(a.obs["cell_type"])),
    "genes in rows, described": lambda a: table(a, "f.csv.gz", turned=True, biotype="protein coding", Length=12),
    "an empty cell": lambda a: table(ad.AnnData(sparse.diags([0.0] + [1.0] * 39) @ a.X, obs=a.obs, var=a.var), "f.csv"),
    "units that do not hold": lambda a: written(a, "f.h5ad", log=True, units="tpm"),
}


def written(adata, path, log=False, **uns):
    adata = adata.copy()
    adata.X = adata.X.log1p() if log else adata.X
    adata.uns |= uns
    adata.write_h5ad(path)


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_command_that_is_named_mends_the_file(here, blood, damage):
    DAMAGE[damage](blood)
    (name,) = os.listdir()
    before = Path(name).read_bytes()
    status, out, err = here("check", name)
    assert status in (1, 2) and err == "" and all(len(line) <= 80 for line in out.splitlines()), out
    words = command_of(out)
    status, out, err = here(*words)
    assert (status, err) == (0, "") and f"written: {words[2]}" in out and "changed on the way in:" in out
    status, out, _ = here("check", words[2])
    assert status == 0 and "one command" not in out
    got = ad.read_h5ad(words[2])
    cells = 39 if "empty" in damage else 40
    assert got.shape == (cells, 200) and got.X.dtype == np.float32 and got.obs_names[-1] == blood.obs_names[-1]
    assert Path(name).read_bytes() == before and not [f for f in os.listdir() if f not in (name, words[2])]
    order = got[:, blood.var_names].X
    wanted = blood.X[40 - cells :].toarray()
    wanted = np.log1p(wanted) if "units" in damage else wanted
    wanted[:, 0] *= 2 if "twice" in damage else 1
    assert np.allclose(order.toarray() if sparse.issparse(order) else order, wanted)
    if damage == "labels in a table":
        assert got.obs["cell_type"].tolist() == blood.obs["cell_type"].tolist()
    if "described" in damage:
        assert set(got.var["biotype"]) == {"protein coding"} and set(got.var["Length"]) == {12}


def test_a_sound_file_needs_nothing(here, blood):
    written(blood, "f.h5ad")
    status, out, err = here("check", "f.h5ad", "--need", "counts", "--organism", "human", "--labels", "cell_type")
    assert (status, err) == (0, "") and "40 cells × 200 genes" in out and "mends" not in out


def test_what_no_command_mends_is_said(here, blood):
    frame = table(blood, "f.csv")
    frame.iloc[3, 5] = np.nan
    frame.to_csv("f.csv")
    status, out, _ = here("check", "f.csv")
    assert status == 2 and "NaN" in out and "no command mends this" in out
    status, out, _ = here("convert", "f.csv", "f.h5ad")
    assert status == 2 and "nothing was written" in out and os.listdir() == ["f.csv"]
    status, out, err = here("check", "gone.csv")
    assert status == 2 and "there is no file gone.csv" in out and "no command" not in out and err == ""


def test_counts_in_a_layer_and_labels_nearly_named(here, blood):
    other = blood.copy()
    other.layers["raw_counts"] = other.X.copy()
    other.X = other.X.log1p()
    other.obs = other.obs.rename(columns={"cell_type": "celltype"})
    other.write_h5ad("f.h5ad")
    assert here("check", "f.h5ad")[0] == 0
    status, out, _ = here("check", "f.h5ad", "--need", "counts", "--labels", "cell_type")
    words = command_of(out)
    assert status == 2 and words == [
        "convert",
        "f.h5ad",
        "f-clean.h5ad",
        "--layer",
        "raw_counts",
        "--labels",
        "celltype",
    ]
    assert here(*words)[0] == 0
    got = load("f-clean.h5ad")
    assert got.uns["units"] == "counts" and (got.X != blood.X).nnz == 0
    assert got.obs["cell_type"].tolist() == blood.obs["cell_type"].tolist()


def test_nothing_is_written_over_and_nothing_half(here, blood, monkeypatch):
    table(blood, "f.csv")
    assert here("convert", "f.csv", "f.h5ad")[0] == 0
    whole = Path("f.h5ad").read_bytes()
    for out, says in (("f.h5ad", "add --overwrite"), ("f.csv", "does not end in .h5ad"), ("no/f.h5ad", "no folder no")):
        status, said, err = here("convert", "f.csv", out)
        assert status == 2 and says in err and said == ""
    assert "the file itself" in here("convert", "f.h5ad", "f.h5ad", "--overwrite")[2]

    def cut(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ad.AnnData, "write_h5ad", cut)
        status, _, err = here("convert", "f.csv", "f.h5ad", "--overwrite")
    assert status == 2 and "No space left on device" in err and "Traceback" not in err
    assert Path("f.h5ad").read_bytes() == whole and sorted(os.listdir()) == ["f.csv", "f.h5ad"]
    assert here("convert", "f.csv", "f.h5ad", "--overwrite")[0] == 0


def test_names_and_files_are_not_mixed(here, blood):
    table(blood, "f.csv")
    status, out, err = here("check", "f.csv", "pbmc")
    assert status == 2 and out == "" and "pbmc is of the catalogue" in err


def test_any_bytes_end_in_words(here, blood):
    table(blood, "f.csv")
    text = Path("f.csv").read_bytes()
    for name, content in {
        "f.csv.gz": gzip.compress(text)[:-40],
        "a.h5ad": b"\x89HDF\r\n\x1a\n" + b"\0" * 99,
        "b.csv": b"\0" * 50,
        "d.csv": b"",
        "e.xyz": b"?",
        "g_series_matrix.txt": b"!Series_title\n",
    }.items():
        Path(name).write_bytes(content)
        status, out, err = here("check", name)
        assert status == 2 and out.startswith("refused: ") and err == "" and "Traceback" not in out, name


def test_spaces_around_names_are_taken_off(blood, tmp_path):
    other = blood.copy()
    other.var_names = [f" {name}" if i < 3 else name for i, name in enumerate(other.var_names)]
    other.obs_names = [f"{name}\u200b" if i < 1 else name for i, name in enumerate(other.obs_names)]
    other.write_h5ad(tmp_path / "f.h5ad")
    found = judge(tmp_path / "f.h5ad")
    assert found.status == 0 and "spaces around 3 gene names taken off" in found.changes
    assert "spaces around 1 cell name taken off" in found.changes
    with pytest.raises(DataError, match=r"does not end in \.h5ad: name the copy g\.h5ad"):
        convert(tmp_path / "f.h5ad", tmp_path / "g.csv")


def test_a_command_is_parted_as_a_shell_takes_it():
    command = "python -m shared.data convert 'my cells.csv' cells.h5ad --transpose --units counts"
    for room in (40, 60, 80):
        lines = parted(command, room)
        assert shlex.split("\n".join(lines).replace("\\\n", " ")) == shlex.split(command)
        assert max(map(len, lines)) <= room
    assert Options(transpose=True, annotation=("a", "b")).words() == [
        "--transpose",
        "--annotation",
        "a",
        "--annotation",
        "b",
    ]


def test_columns_of_words_are_found_whatever_parts_the_fields(tmp_path):
    (tmp_path / "f.csv").write_text("id;kind;TP53;CD3E\na;T;1;2\nb;B;4;10\n")
    found = judge(tmp_path / "f.csv")
    assert found.status == 2 and found.mend.annotation == ("kind",) and found.mend.labels == "kind"


def test_a_table_of_featurecounts_is_mended_by_one_command(tmp_path):
    """A line of comment, five columns that describe a gene, two samples."""
    path, head = tmp_path / "counts.txt", "Geneid\tChr\tStart\tEnd\tStrand\tLength\ta.bam\tb.bam\n"
    rows = (f"{gene}\t1;1\t2;3\t4;5\t+;+\t90\t{i}\t{3 * i}\n" for i, gene in enumerate(("TP53", "CD3E", "GNLY")))
    path.write_text("# Program:featureCounts v2.0\n" + head + "".join(rows))
    mend = judge(path).mend
    assert mend.transpose and mend.annotation == ("Chr", "Start", "End", "Strand", "Length")
    convert(path, tmp_path / "a.h5ad", mend)
    found = load(tmp_path / "a.h5ad")
    assert list(found.obs_names) == ["a.bam", "b.bam"] and found.X.tolist() == [[0, 1, 2], [0, 3, 6]]


def test_a_gene_with_one_word_is_not_moved_to_obs(tmp_path):
    (tmp_path / "f.csv").write_text("id,TP53,CD3E,GNLY\na,1,2,3\nb,n.d.,4,1\nc,1,0,2\nd,2,2,1\n")
    found = judge(tmp_path / "f.csv")
    assert found.status == 2 and found.mend is None and "write a number there" in found.refused
