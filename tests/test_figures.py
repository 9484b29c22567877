"""Figures carry their finding in words, follow light and dark, and are the same bytes every time."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from shared import figures

RNG = np.random.default_rng(0)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def ladder():
    values = pd.DataFrame({"acc": [0.2, 0.8, np.nan]}, index=["majority", "ridge", "failed"])
    return values.assign(acc_low=values["acc"] - 0.05, acc_high=values["acc"] + 0.05)


def learning():
    rows = [(k, s, m, 0.4 + 0.1 * np.log(k) + 0.01 * s) for k in (2, 10, 75) for s in range(3) for m in ("a", "b")]
    return pd.DataFrame(rows, columns=["cells", "seed", "model", "score"])


DRAWN = {
    "dots": lambda: figures.dots(
        ladder(), "acc", title="Ridge wins", xlabel="Accuracy", roles={"ridge": "method"}, chance=0.1
    ),
    "curves": lambda: figures.curves(
        learning(),
        "cells",
        "score",
        by="model",
        title="More cells help",
        xlabel="Cells",
        ylabel="Score",
        roles={"a": "method"},
        reference={"published": ([2, 75], [0.2, 0.5])},
    ),
    "pairs": lambda: figures.pairs(
        pd.DataFrame({"leaky": [0.9], "closed": [0.5]}, index=["genes first"]),
        "leaky",
        "closed",
        title="Leaks flatter",
        xlabel="Accuracy",
        chance=0.5,
    ),
    "reliability": lambda: figures.reliability(
        {"raw": pd.DataFrame({"confidence": [0.5, 0.9], "accuracy": [0.5, 0.58], "count": [10, 30]})}, title="Too sure"
    ),
    "embedding": lambda: figures.embedding(
        RNG.normal(size=(60, 2)), {"type": ["B", "T", "NK"] * 20, "run": ["1", "2"] * 30}, title="Two runs"
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_says_its_finding_and_its_numbers(name):
    text = DRAWN[name]().alt_text
    assert text.count(" ") > 8 and re.search(r"\d", text)
    assert text.endswith(".") and "nan" not in text


def test_alt_text_carries_the_drawn_values():
    assert "ridge 0.80 (0.75 to 0.85) and majority 0.20 (0.15 to 0.25)" in DRAWN["dots"]().alt_text
    assert "published from 0.20 at 2 to 0.50 at 75" in DRAWN["curves"]().alt_text
    assert "raw is 0.24 overconfident" in DRAWN["reliability"]().alt_text


@pytest.mark.parametrize("name", ["dots", "curves", "pairs", "reliability"])
def test_same_figure_same_bytes(name):
    assert figures.to_svg(DRAWN[name]()) == figures.to_svg(DRAWN[name]())


@pytest.mark.parametrize("name", DRAWN)
def test_only_the_ink_the_paper_and_the_marks_are_used(name):
    """Any other fixed colour would not follow the page from light to dark."""
    used = set(re.findall(r"#[0-9a-f]{6}", figures.to_svg(DRAWN[name]())))
    marks = {c for c, _ in figures.ROLES.values()} | set(figures.CYCLE)
    assert used <= {figures.INK, figures.PAPER} | marks


@pytest.mark.parametrize("colour", sorted({c for c, _ in figures.ROLES.values()} | set(figures.CYCLE)))
@pytest.mark.parametrize("page", ["#ffffff", "#14181e"])
def test_marks_stand_out_in_light_and_dark(colour, page):
    assert contrast(colour, page) >= 3


def test_roles_differ_in_shape_too():
    assert len({m for _, m in figures.ROLES.values()}) == len(figures.ROLES)
    assert len(set(figures.MARKERS)) == 11


@pytest.mark.parametrize(
    ("name", "caption", "alt"), [("curve", "c", "a"), ("fig-a", " ", "a"), ("fig-a", "c", ""), ("fig-a", "c", None)]
)
def test_show_refuses_a_figure_without_words(name, caption, alt):
    figure, _ = figures.new()
    if alt is not None:
        figure.alt_text = alt
    with pytest.raises(ValueError, match="needs a label"):
        figures.show(figure, name, caption)


def test_show_leaves_picture_and_words_in_the_notebook():
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    try:
        with capture_output() as seen:
            figures.show(DRAWN["dots"](), "fig-ladder", "Two models.")
    finally:
        InteractiveShell.clear_instance()
    picture, caption = seen.outputs
    assert picture.data["image/svg+xml"].startswith("<svg")
    assert picture.metadata["figure"]["name"] == "fig-ladder"
    assert picture.metadata["figure"]["alt"] == picture.data["text/plain"]
    assert caption.metadata == {"caption_of": "fig-ladder"}


@pytest.mark.parametrize("labels", ["short", "a rung with a very long name, longer than most"])
def test_a_long_title_stays_on_the_figure(labels):
    table = ladder().set_axis([labels, labels + " 2", "failed"])
    title = "An answer that is long enough to need a second line, because the finding is not a simple one"
    figure = figures.dots(table, "acc", title=title, xlabel="Accuracy")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure._suptitle.get_window_extent(canvas.get_renderer())
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
