"""Stored outputs: a number beyond its tolerance fails, one within it passes, a changed word fails."""

import pytest

from book.outputs import differences, text_difference, tolerance_of


@pytest.mark.parametrize(
    ("stored", "new", "tolerance"),
    [
        ("accuracy 0.860", "accuracy 0.860", None),
        ("accuracy 0.86000000", "accuracy 0.86000001", None),
        ("accuracy 0.86", "accuracy 0.87", 0.02),
        ("94 of 100", "93 of 100", 0.02),
        ("   0.5  b", "  0.501  b", 0.02),
        ("−0.50 to 1,336", "-0.50 to 1,336", None),
        ("gap -0.000", "gap 0.000", None),
        ("[1.5e-05 2.]", "[1.49e-05 2.]", 0.02),
        ("run1 CD4 0x7f", "run1 CD4 0x7f", None),
    ],
)
def test_within_tolerance_passes(stored, new, tolerance):
    assert text_difference(stored, new, tolerance) is None


@pytest.mark.parametrize(
    ("stored", "new", "tolerance", "said"),
    [
        ("accuracy 0.86", "accuracy 0.88", 0.02, "0.86 became 0.88"),
        ("accuracy 0.86", "accuracy 0.87", None, "0.86 became 0.87"),
        ("94 of 100", "93 of 100", None, "94 became 93"),
        ("2 of 40", "3 of 40", 0.02, "2 became 3"),
        ("accuracy 0.86", "precision 0.86", 0.5, "words differ"),
        ("run1 0.5", "run2 0.5", 0.5, "words differ"),
        ("0.5", "nan", 0.5, "words differ"),
        ("0.5 0.6", "0.5", 0.5, "words differ"),
        ("1\n2", "1 2", 0.5, "words differ"),
        ("1.0", "-1.0", 0.5, "became -1.0"),
        ("0.0", "0.1", 0.02, "became 0.1"),
    ],
)
def test_beyond_tolerance_fails(stored, new, tolerance, said):
    assert said in text_difference(stored, new, tolerance)


def test_kinds_of_output_must_agree():
    text = {"output_type": "execute_result", "data": {"text/plain": "1"}}
    warned = {"output_type": "stream", "name": "stderr", "text": "careful"}
    picture = {"output_type": "display_data", "data": {"image/svg+xml": "<svg/>"}}
    assert differences([text], [text]) == []
    assert differences([text, picture], [text]) == []
    assert differences([text, warned], [text]) == ["stderr now, but none stored"]
    assert differences([], [text]) == ["stored text/plain, but none now"]
    assert differences([text], [text, text]) == ["2 outputs of text/plain were stored, now there are 1"]
    assert differences([{"data": {"text/html": ["<b>1</b>", "x"]}}], [{"data": {"text/html": "<b>1</b>x"}}]) == []


@pytest.mark.parametrize("tag", ["tolerance=", "tolerance=much", "tolerance=2", "tolerance=0"])
def test_a_tag_that_states_no_tolerance_is_refused(tag):
    with pytest.raises(ValueError, match="states no tolerance"):
        tolerance_of([tag])
    assert tolerance_of(["setup"]) is None
    assert tolerance_of(["tolerance=0.02"]) == 0.02
