"""The catalogue says what is true: fields, addresses, hashes of real files, readers and their options, known traps."""

from __future__ import annotations

import hashlib
import inspect
import re
from dataclasses import replace
from urllib.parse import urlsplit

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from book.croissant import annotations
from shared import data
from shared.data import catalogue, routes, simulate
from shared.data.catalogue import catalog
from shared.data.sources import READERS

CATALOG = catalog()
OFFICIAL = {n: e for n, e in CATALOG.items() if e.route("official")}
OF_ROUTE = [(n, r) for n, e in CATALOG.items() for r in e.routes]
FILES = [(n, f) for n, e in OFFICIAL.items() for f in e.route("official").files]
NAMED = {
    *("baron", "baron-mouse", "muraro", "segerstolpe", "wang", "xin", "pancreas", "gtex-v8", "gtex-v10", "toil"),
    *("tcga", "osd-99", "osd-104", "osd-105", "recount3-mouse", "zheng68k", "pbmc3k", "pbmc8k", "sc-mixology", "kang"),
    *("tabula-muris-facs", "tabula-muris-droplet", "scjoint-10x", "cite-asap", "scjoint-mop", "gse6434"),
}
# Hosts that offer no https, and files that the source keeps at one address only.
PLAIN_HTTP = {"www.maths.usyd.edu.au", "duffel.rail.bio"}
ONE_ADDRESS = r"_series_matrix\.txt\.gz$|^data_(10x|MOp)\.zip$|^pbmc8k_filtered|^fresh_68k_"
ONE_ADDRESS += r"|^(b_cells|cd14_monocytes|cd34|cd4_t_helper|cd56_nk|\w+_t|naive_cytotoxic)_filtered"
DEAD = (
    *("gtex_analysis_v8/", "genelab-data.ndc.nasa.gov", "scrnaseq-public-datasets", "panglaodb.se"),
    *("depmap.org/portal/api", "drive.google.com"),
)


def test_every_promised_source_is_in_the_catalogue():
    assert set(OFFICIAL) >= NAMED and len([n for n in OFFICIAL if n.startswith("osd-")]) >= 7


@pytest.mark.parametrize("name", CATALOG)
def test_the_fields_of_an_entry_are_filled(name):
    entry = CATALOG[name]
    assert entry.organism in ("human", "mouse", "human and mouse")
    assert entry.genes in ("symbols", "ensembl", "entrez", "probes", "proteins")
    for field in ("title", "assay", "labels", "accession", "citation", "licence"):
        assert getattr(entry, field).strip(), field
    assert re.search(r"\(\d{4}\)", entry.citation), "a citation has its year in parentheses"
    assert entry.shape is None or min(entry.shape) > 0
    assert not re.search(r"\s{2}|\s$", entry.notes), "notes are one line of text"


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_source_is_cited_with_its_doi(name):
    found = re.findall(r"https://doi\.org/(\S+)", CATALOG[name].citation)
    if name == "pbmc8k":
        assert not found, "10x Genomics gave it none; cite it by name"
        return
    assert len(found) == 1 and re.fullmatch(r"10\.\d{4,5}/[\w.()/-]+\w", found[0])


def test_one_paper_is_cited_in_one_way():
    said = {}
    for name, entry in OFFICIAL.items():
        for doi in re.findall(r"https://doi\.org/\S+", entry.citation):
            assert said.setdefault(doi, entry.citation) == entry.citation, name


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_source_tells_its_traps(name):
    assert len(CATALOG[name].notes) > 60


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("zheng68k", "correlates with"),
        ("tcga", "adjusted for batch with the help of the labels"),
        ("osd-99", "M23, M26, M27, M28, M37, M38"),
        ("osd-104", "same twelve mice as osd-105"),
        ("osd-105", "same twelve mice as osd-104"),
        ("muraro", "dead"),
        ("segerstolpe", "counts every cell twice"),
        ("baron", "gone"),
        ("gtex-v8", "403"),
        ("gtex-v8", "split by donor"),
        ("sc-mixology", "drop them"),
        ("scjoint-10x", "no labels"),
        ("scjoint-mop", "one that made them"),
        ("scjoint-mop", "without encryption"),
        ("recount3-mouse", "not reads"),
        ("gse6434", "no signal"),
        ("zheng-beads", "cannot be told apart"),
        ("celltypist-immune", "Neither donor nor tissue"),
        ("pbmc5k-protein", "not in the wheel"),
        ("kang", "the eight are the replicates"),
    ],
)
def test_a_known_trap_is_told(name, words):
    assert words in CATALOG[name].notes


@pytest.mark.parametrize(("name", "file"), FILES, ids=lambda v: getattr(v, "name", v))
def test_addresses_are_safe_and_alive(name, file):
    hosts = [urlsplit(u).netloc for u in file.urls]
    for url, host in zip(file.urls, hosts):
        assert re.fullmatch(r"https?://[\w.-]+/[^\s\\\"<>]+", url)
        assert url.startswith("https://") or host in PLAIN_HTTP
        assert not [d for d in DEAD if d in url]
    if any(h in PLAIN_HTTP for h in hosts):
        assert "without encryption" in CATALOG[name].notes
        encrypted = [i for i, u in enumerate(file.urls) if u.startswith("https://")]
        assert not encrypted or encrypted[0] == 0, "an encrypted address comes first"
    assert len(set(file.urls)) == len(file.urls)
    assert len(file.urls) >= 2 or re.search(ONE_ADDRESS, file.name), "a second address, or a reason"


@pytest.mark.parametrize(("name", "file"), FILES, ids=lambda v: getattr(v, "name", v))
def test_an_address_is_of_its_file(name, file):
    numbered = ("figshare.com", "ndownloader.figshare.com")  # figshare knows files by number
    for url in file.urls:
        if urlsplit(url).netloc not in numbered and file.name != "GSE96583_RAW.tar":
            assert file.name in url.replace("%2B", "+"), url


def test_a_file_name_means_one_file():
    """The local mirror and the cache go by name, so two files of one name would be taken for each other."""
    known = {}
    for name, file in FILES:
        assert known.setdefault(file.name, file) == file, name


@pytest.mark.parametrize(("name", "file"), [(n, f) for n, f in FILES if f.sha256], ids=lambda v: getattr(v, "name", v))
def test_hashes_are_those_of_the_real_files(name, file, fixtures):
    found = sorted(fixtures("official").rglob(file.name))
    if not found:
        pytest.skip(f"{file.name} is not among the real files")
    assert not [p for p in found if "derived" in p.parts[-2]], "a file laid out anew is not the source's own"
    for path in found:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
        assert path.stat().st_size == file.size


def test_the_sources_whose_bytes_are_here_are_pinned(fixtures):
    held = {p.name for p in fixtures("official").rglob("*") if p.is_file() and "derived" not in str(p)}
    pinned = {f.name for _, f in FILES if f.sha256}
    assert len(held & pinned) == 13 and held & {f.name for _, f in FILES} <= pinned


def test_names_are_those_of_the_local_mirror(fixtures):
    """Every file of these entries is found by name in the folder of real files, so that it can serve as a mirror."""
    held = {p.name for p in fixtures("official").rglob("*") if p.is_file()}
    for name in ("baron", "baron-mouse", "osd-99", "osd-104", "osd-105", "sc-mixology", "cite-asap"):
        assert {f.name for f in OFFICIAL[name].route("official").files} <= held, name


def test_the_same_mice_are_in_three_studies_as_the_notes_say(fixtures):
    mice = {}
    for number in (99, 104, 105):
        path = fixtures(f"official/NASA_GeneLab/GLDS-{number}_rna_seq_Unnormalized_Counts.csv")
        table = pd.read_csv(path, index_col=0)
        entry = CATALOG[f"osd-{number}"]
        assert table.T.shape == entry.shape
        assert sum("_FLT_" in c for c in table) == sum("_GC_" in c for c in table) == 6
        assert ((table % 1) > 0).to_numpy().any() and "fractions" in entry.notes
        mice[number] = {c.rsplit("_", 1)[1] for c in table}
    assert mice[104] == mice[105]
    shared = sorted(mice[99] & mice[105])
    assert f"({', '.join(shared)})" in CATALOG["osd-99"].notes


def test_the_mixtures_are_as_large_as_the_catalogue_says(fixtures):
    genes, cells = [], []
    for file in CATALOG["sc-mixology"].route("official").files:
        path = fixtures(f"official/sc_mixology_data_csv/{file.name}")
        if ".metadata." in file.name:
            cells.append(pd.read_csv(path, index_col=0)[["cell_line_demuxlet", "demuxlet_cls"]])
        else:
            lines = pd.read_csv(path, usecols=[0], header=None, skiprows=1)
            genes.append(set(lines[0]))
    cells = pd.concat(cells)
    assert (len(cells), len(set.intersection(*genes))) == CATALOG["sc-mixology"].shape
    kinds = cells["demuxlet_cls"].value_counts()
    assert f"(SNG {kinds['SNG']}, DBL {kinds['DBL']})" in CATALOG["sc-mixology"].labels
    assert f"({cells['cell_line_demuxlet'].nunique()} lines)" in CATALOG["sc-mixology"].labels


def test_the_proteins_are_as_many_as_the_catalogue_says(fixtures):
    entry = CATALOG["cite-asap"]
    kinds = {}
    for file in entry.route("official").files:
        if file.name.endswith(".csv"):
            kinds[file.name[:4]] = pd.read_csv(fixtures(f"official/scJoint_demo_data/{file.name}"))["x"].value_counts()
    cite, asap = kinds["cite"], kinds["asap"]
    assert cite.sum() + asap.sum() == entry.shape[0]
    assert f"({len(cite)} types in CITE-seq, {len(asap)} in ASAP-seq)" in entry.labels
    assert f"modality (cite {cite.sum()}, asap {asap.sum()})" in entry.labels
    alone = asap[~asap.index.isin(cite.index)]
    assert alone.to_dict() == {"DC": 203, "unknown": 142}
    assert f"{alone.sum()} ASAP cells" in entry.notes and f"the other {asap.sum() - alone.sum():,}" in entry.notes


@pytest.mark.parametrize("name", [n for n, e in CATALOG.items() if e.route("bundled") and e.genes == "symbols"])
def test_labels_of_bundled_sets_are_as_many_as_they_say(name):
    entry = CATALOG[name]
    if entry.units == "none":
        return
    obs = data.load(name).obs
    said = dict(re.findall(r"(?:^|; )(\w+) \((\d+)(?: \w+)?(?:;[^()]*)?\)", entry.labels))
    assert said, "a bundled set counts its labels"
    for column, n in said.items():
        assert obs[column].nunique() == int(n), column
    assert set(annotations(entry)) <= set(obs)


# Readers and simulators


@pytest.mark.parametrize(("name", "route"), OF_ROUTE, ids=lambda v: getattr(v, "kind", v))
def test_a_route_names_a_reader_and_options_it_takes(name, route):
    if route.kind == "simulated":
        make = getattr(simulate, route.reader, None)
        assert callable(make), f"shared.data.simulate has no {route.reader}"
        inspect.signature(make).bind(**route.options)
    else:
        assert route.reader in READERS, f"there is no reader {route.reader}"
        inspect.signature(READERS[route.reader]).bind([], **route.options)


MIRRORED = ("baron-mouse", "osd-99", "osd-104", "osd-105", "sc-mixology", "cite-asap")
UNLABELLED = ("muraro", "pbmc3k", "pbmc8k")  # the source has no types; the stand-in has some


def label_of(entry):
    return entry.route("simulated").options.get("label", "cell_type")


VECTORS = ("gene2vec",)  # drawn at random they would know nothing of genes


@pytest.mark.parametrize("name", [name for name in OFFICIAL if name not in VECTORS])
def test_what_is_fetched_can_be_simulated(name):
    """Where the source cannot be had, a small stand-in has a label of the same name, and says that it is simulated."""
    entry = CATALOG[name]
    route = entry.route("simulated")
    adata = routes.obtain(entry, "simulated")
    assert adata.uns["simulated"] is True and adata.n_obs * adata.n_vars < 5e6
    label = label_of(entry)
    assert label in annotations(entry) or name in UNLABELLED
    kinds = route.options["labels"]
    said = set(map(str, kinds)) if isinstance(kinds, list) else None
    assert said is None or set(adata.obs[label].astype(str)) == said
    assert adata.obs[label].nunique() == (len(kinds) if said else kinds)
    if entry.units == "counts" or entry.units == "tpm":
        assert adata.uns["units"] == entry.units


@pytest.mark.parametrize("name", MIRRORED)
def test_real_files_load_by_the_entry_and_are_what_it_says(name, fixtures, tmp_path, monkeypatch):
    monkeypatch.setenv("BORROWED_MIRROR", str(fixtures("official")))
    monkeypatch.setenv("BORROWED_CACHE", str(tmp_path))
    monkeypatch.setenv("BORROWED_OFFLINE", "1")
    entry = CATALOG[name]
    routes.files(entry, entry.route("official"), unverified=True)
    adata = routes.obtain(entry, "official", progress=False)
    assert adata.uns["units"] == entry.units and set(annotations(entry)) <= set(adata.obs)
    if entry.route("official").verified:
        assert adata.shape == entry.shape
    label = label_of(entry)
    real = set(adata.obs[label].dropna().astype(str))
    simulated = set(entry.route("simulated").options["labels"])
    assert real <= simulated or simulated <= real, "the stand-in has other labels than the real data"


def test_an_unknown_option_would_be_seen():
    with pytest.raises(TypeError):
        inspect.signature(READERS["gdsc"]).bind([], colour="blue")


def problems(entry) -> list[str]:
    """What is wrong with an entry's units and files, in words; empty for a good one."""
    said = [] if entry.units in catalogue.UNITS else [f"units {entry.units!r}"]
    for route in entry.routes:
        kind = route.kind
        if bool(route.files) == (kind == "simulated"):
            said.append(f"the {kind} route should have {'no' if route.files else 'at least one'} file")
        for f in route.files:
            plain, package = not re.search(r"[/\\]|^\.", f.name), re.fullmatch(r"[\w.-]+==[\w.]+", f.package or "")
            rules = {
                f"{f.sha256!r} is no sha256": f.sha256 is None or re.fullmatch("[0-9a-f]{64}", f.sha256),
                f"a {kind} file needs its size and sha256": kind == "official" or (f.sha256 and f.size),
                "name its package as name==version": kind != "package" or package,
                "an official file needs an address": kind != "official" or f.urls,
                "a plain file name is needed, without folders": kind == "bundled" or plain,
            }
            said += [f"{f.name}: {words}" for words, kept in rules.items() if not kept]
    return said


def test_known_units_and_files_are_as_they_should_be():
    assert {name: found for name, e in CATALOG.items() if (found := problems(e))} == {}
    file = catalogue.File("a/b.txt", "0" * 63)
    bad = replace(CATALOG["pbmc"], units="mg", routes=(catalogue.Route("official", "table", (file,)),))
    words = ("units 'mg'", "is no sha256", "needs an address", "without folders")
    assert all(any(word in said for said in problems(bad)) for word in words)


# Inside a published package


@pytest.fixture(scope="module")
def immune(packaged):
    return READERS["table"](packaged(catalog()["celltypist-immune"]))


# The file is one of a pinned archive, so that only the archive's disappearance could change what these find.
@pytest.mark.network
@pytest.mark.nightly
def test_the_catalogue_tells_the_truth_of_celltypist(immune, fixtures):
    entry = catalog()["celltypist-immune"]
    assert immune.shape == entry.shape and "cell_type" not in immune.obs
    counts = immune.X.astype(np.float32)  # 525.000000000001 stands for 525
    assert (counts % 1 == 0).all() and counts.min() == 0 and list(immune.obs_names[:2]) == ["Cell_1", "Cell_2"]
    known = ad.read_h5ad(fixtures("h5ad/celltypist_sample_immune_559.h5ad"))
    assert list(known.var_names) == list(immune.var_names) and (known.X.toarray() == counts).all()


@pytest.mark.network
@pytest.mark.nightly
def test_celltypist_loads_by_name(packaged, immune, tmp_path, monkeypatch):
    """By the whole way: archive, member, reader, cache and door."""
    entry = catalog()["celltypist-immune"]
    packaged(entry)
    monkeypatch.setenv("BORROWED_CACHE", str(tmp_path))
    monkeypatch.setattr("shared.data.sources.READERS", READERS | {"table": lambda paths: immune.copy()})
    got = data.load("celltypist-immune")
    assert got.shape == entry.shape and got.uns["units"] == "counts" and "counts" in got.layers
