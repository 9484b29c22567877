"""Tables and series matrices of GEO: species, labels, responses, probes without a value; Baron as others read it."""

import numpy as np
import pandas as pd
import pytest
from official_layouts import CASES, counts, h5ad, read, series_lines, unpacked, write

from shared.data.errors import DataError
from shared.data.sources import READERS

BARON = [
    "GSM2230757_human1_umifm_counts.csv.gz",
    "GSM2230758_human2_umifm_counts.csv.gz",
    "GSM2230759_human3_umifm_counts.csv.gz",
    "GSM2230760_human4_umifm_counts.csv.gz",
    "GSM2230761_mouse1_umifm_counts.csv.gz",
    "GSM2230762_mouse2_umifm_counts.csv.gz",
]


def test_species_apart(tmp_path):
    case = CASES["geo_umi"](tmp_path)
    lines = unpacked(case.paths[0]).decode().replace("human1", "mouse1").split("\n")[:-1]
    lines[0] = lines[0].title().replace("Assigned_Cluster", "assigned_cluster").replace("Barcode", "barcode")
    mouse = write(tmp_path / "GSM2230761_mouse1_umifm_counts.csv.gz", lines)
    with pytest.raises(DataError, match="other genes"):
        READERS["geo_umi"]([*case.paths, mouse])
    obs = READERS["geo_umi"]([mouse]).obs
    assert set(obs["donor"]) == {"mouse1"} and set(obs["species"]) == {"mouse"}


def test_cells_whose_names_say_nothing_are_refused(tmp_path):
    case = CASES["muraro"](tmp_path)
    with pytest.raises(DataError, match="finds no plate"):
        read(case, cells={"plate": r"^(P\d+)"})
    with pytest.raises(DataError, match="no column 'type'"):
        read(case, drop={"type": ["x"]})


def test_the_catalogue_reads_the_pancreas_files(tmp_path):
    """The options that stand in the catalogue fit the layouts."""
    from shared.data.catalogue import entry

    for name in ("muraro", "wang", "xin"):
        (tmp_path / name).mkdir()
        case, route = CASES[name](tmp_path / name), entry(name).route("official")
        options = dict(route.options)
        if name == "xin":  # the layout here has no condition
            options["obs"] = {k: v for k, v in options["obs"].items() if k != "condition"}
        found = READERS[route.reader](case.paths, **options)
        assert found.uns["units"] == entry(name).units
        assert name == "muraro" or found.obs["cell_type"].notna().all()
        assert found.n_obs == len(case.cells)


def test_characteristics_of_mixed_order(tmp_path):
    X = counts(4, 5, fractions=True)
    table = ["\t".join([f'"{p}_at"', *map(str, r)]) for p, r in zip(range(5), X.T)]
    mixed = [["age: 61", "sex: F", "age: 58", "sex: M"], ["sex: M", "age: 70", "", "age: 44"]]
    path = write(tmp_path / "GSE1_series_matrix.txt.gz", series_lines(list("abcd"), mixed, table))
    found = READERS["series_matrix"]([path])
    assert found.obs["age"].tolist()[:2] == ["61", "70"] and pd.isna(found.obs["sex"].iloc[2])
    assert "response" not in found.obs, "nobody said it"


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
    stands = f"'{value}' stands" if value else "nothing stands"
    with pytest.raises(DataError, match=rf"1 column with words in place of numbers \(GSM1001; {stands} in row 1000_at"):
        read(case)


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


@pytest.fixture(scope="module")
def baron(fixtures):
    return [fixtures(f"official/derived_geo_layout_GSE84133/{n}") for n in BARON]


@pytest.fixture(scope="module")
def human(baron):
    return READERS["geo_umi"](baron[:4])


def test_baron(fixtures, baron):
    found, known = READERS["geo_umi"](baron), h5ad(fixtures, "pancreas_baron_human_mouse_350")
    assert found.shape == (350, 12474) and set(found.obs_names) == set(known.obs_names)
    known = known[found.obs_names]
    assert list(found.var_names) == list(known.var_names)
    assert (found.X != known.X).nnz == 0
    for name in ("cell_type", "donor", "species"):
        assert (found.obs[name].astype(str) == known.obs[name].astype(str)).all(), name


def test_baron_by_species(human):
    assert set(human.obs["species"]) == {"human"} and human.obs["donor"].nunique() == 4
    assert human.uns["units"] == "counts"


def test_types_of_baron_agree_with_those_of_all_cells(fixtures, human):
    known = pd.read_csv(fixtures("h5ad/baron_human_cell_labels_8569.csv.gz"), index_col="cell_id")["cell_type"]
    found = human.obs["cell_type"].astype(str)
    assert found.index.isin(known.index).all() and (found == known[found.index]).all()
