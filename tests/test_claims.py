"""What a chapter claims is what its recorded lesson run shows; the rule is ``claim_holds`` in tests/chapters."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "chapters"))

from chapter_rules import claim_holds

from book import notebooks

CLAIMS = [(c.slug, claim) for c in notebooks.chapters() for claim in notebooks.front_matter(c).get("claims", [])]


@pytest.mark.parametrize(("slug", "claim"), CLAIMS, ids=[f"{s}-{c['id']}" for s, c in CLAIMS])
def test_claim(slug, claim):
    lesson = notebooks.results(slug).get("lesson")
    assert lesson, f"{slug} has no recorded lesson run: run 'python3 run.py refs'"
    problems = claim_holds(claim, lesson["records"])
    assert not problems, problems[0]
