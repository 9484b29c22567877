"""Scenarios follow from facts, and the survey's methods have their sources in the book."""

import re

import pytest

from book.results_page import citation_keys
from shared.data.errors import DataError
from shared.methods.survey import METHODS, methods, scenario


@pytest.mark.parametrize(
    ("facts", "name", "kind"),
    [
        ({"source_labels": True, "target_labels": True}, "inductive", "fine-tuning or multi-task"),
        ({"source_labels": False, "target_labels": True, "same_task": False}, "inductive", "self-taught"),
        ({"source_labels": True, "target_labels": False}, "transductive", "domain adaptation"),
        ({"source_labels": False, "target_labels": False}, "unsupervised", "representation"),
        ({"source_labels": True, "target_labels": False, "target_data": False}, "none", "applied as it is"),
        ({"source_labels": True, "target_labels": False, "same_task": False}, "none", "no bridge"),
        ({"source_labels": True, "target_labels": False, "same_domain": True}, "none", "supervised learning"),
    ],
)
def test_the_scenario_follows_from_the_facts(facts, name, kind):
    assert scenario(**facts)[:2] == (name, kind)


def test_vague_and_contradictory_facts_are_refused():
    with pytest.raises(DataError, match="source_labels is 'yes'"):
        scenario(source_labels="yes", target_labels=False)
    with pytest.raises(DataError, match="without target data"):
        scenario(source_labels=True, target_labels=True, target_data=False)


def test_the_table_holds_the_surveys_sixteen_with_their_sources(root):
    table = methods()
    assert len(table) == len({m.key for m in METHODS}) == 16 and table["Year"].between(2018, 2022).all()
    assert {m.key for m in METHODS} <= set(citation_keys(root / "book" / "references.bib"))
    assert not table.isna().any().any() and (table.astype(str) != "").all().all()
    chapters = {p.name.partition("-")[2] for p in (root / "chapters").glob("[0-9][0-9]-*")}
    assert {m.chapter for m in METHODS} - {""} <= chapters
    text = (root / "chapters" / "01-expression-data" / "expression-data.md").read_text(encoding="utf-8")
    assert {m.key for m in METHODS} <= set(",".join(re.findall(r"\{cite:p\}`([^`]+)`", text)).split(","))
