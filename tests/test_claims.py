"""What a page claims is what the recorded run that it shows says; the rule is ``claim_holds`` in tests/chapters."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "chapters"))

from chapter_rules import claim_holds

from book import notebooks

CLAIMS = [(p.slug, claim) for p in notebooks.pages() for claim in notebooks.front_matter(p).get("claims", [])]


@pytest.mark.parametrize(("slug", "claim"), CLAIMS, ids=[f"{s}-{c['id']}" for s, c in CLAIMS])
def test_claim(slug, claim):
    records = notebooks.quotable(slug)
    assert records, f"{slug} has no recorded run: run 'python3 run.py refs'"
    problems = claim_holds(claim, records)
    assert not problems, problems[0]
