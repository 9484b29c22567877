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


def counted(dispersion=0.3):
    from shared.data import simulate

    return simulate.cells(200, 80, labels=2, dispersion=dispersion, seed=1)


DRAWN = {
    "realism": lambda: figures.realism(
        counted(), counted(2.0), title="A simulator with too much spread gives itself away"
    ),
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
    "pairs by way of": lambda: figures.pairs(
        pd.DataFrame({"counts": [0.9, 0.8], "shares": [0.1, 0.2], "logs": [0.5, 0.6]}, index=["B", "T"]),
        "counts",
        "logs",
        between="shares",
        title="Down and up",
        xlabel="Correlation",
    ),
    "reliability": lambda: figures.reliability(
        {"raw": pd.DataFrame({"confidence": [0.5, 0.9], "accuracy": [0.5, 0.58], "count": [10, 30]})}, title="Too sure"
    ),
    "episode": lambda: figures.episode(
        np.arange(24.0).reshape(12, 2),
        ["B"] * 6 + ["NK"] * 6,
        ([True] * 2 + [False] * 4) * 2,
        title="Two classes, two shots",
        finding="8 of 8 queries lie nearest their own prototype.",
    ),
    "wiring": lambda: figures.wiring(
        {"run 1": ["5", "10", "3"], "run 2": ["8", "16", "5"]}, middle="genes → 200", title="One encoder, six heads"
    ),
    "maps": lambda: figures.maps(
        {"one": RNG.normal(size=(60, 2)), "two": RNG.normal(size=(60, 5))},
        ["B", "T", "NK"] * 20,
        title="Two maps",
        finding="The order of distances is kept at 0.57 and 0.87.",
    ),
    "shares": lambda: figures.shares(
        pd.DataFrame({"batch": [0.1, 0.0], "shared": [-0.001, 0.3], "label": [0.5, 0.0]}, index=["even", "cut"]),
        title="Nothing to divide",
        xlabel="Share of the variance",
    ),
    "zeros": lambda: figures.zeros(
        pd.DataFrame({"mean": [0.1, 1.0, 5.0], "observed": [0.9, 0.4, 0.1], "Poisson": [0.9, 0.37, 0.01]}),
        title="Counting explains the zeros",
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
    assert "2 filled support marks and 4 open query marks" in DRAWN["episode"]().alt_text
    assert "run 2 has 3 of its own (8, 16 and 5)" in DRAWN["wiring"]().alt_text


def test_an_episode_draws_its_prototypes_where_the_support_has_its_mean():
    large = [line for line in DRAWN["episode"]().axes[1].lines if line.get_markersize() == 12]
    assert [tuple(line.get_xydata()[0]) for line in large] == [(1.0, 2.0), (13.0, 14.0)]


def test_two_published_lines_have_marks_of_their_own_and_their_names_outside():
    reference = {"theirs": ([2, 75], [0.2, 0.5]), "theirs, scratch": ([2, 75], [0.1, 0.3])}
    labels = {"by": "model", "title": "More cells help", "xlabel": "Cells", "ylabel": "Score"}
    figure = figures.curves(learning(), "cells", "score", **labels, reference=reference)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["theirs"].get_marker() != lines["theirs, scratch"].get_marker()
    assert {"theirs", "theirs, scratch"} <= {text.get_text() for text in figure.legends[0].get_texts()}


def test_two_arms_of_one_role_can_be_told_apart():
    runs = pd.concat([learning(), learning().assign(model="b"), learning().assign(model="c")])
    labels = {"title": "More cells help", "xlabel": "Cells", "ylabel": "Score"}
    roles = {"a": "method", "b": "method", "c": "source"}
    drawn = figures.curves(runs, "cells", "score", by="model", roles=roles, **labels).axes[0]
    a, b, c = ({line.get_label(): line for line in drawn.lines}[name] for name in "abc")
    assert a.get_color() == b.get_color() != c.get_color() and a.get_marker() == b.get_marker()
    assert [line.get_linestyle() for line in (a, b, c)] == ["-", "--", "-"]
    assert b.get_markerfacecolor() == figures.PAPER


@pytest.mark.parametrize(
    "name",
    ["dots", "curves", "pairs", "reliability", "shares", "zeros", "episode", "wiring"],
)
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


def test_a_step_between_is_drawn_and_told():
    figure = DRAWN["pairs by way of"]()
    lines = figure.axes[0].get_lines()
    crosses = [line for line in lines if line.get_marker() == "x"]
    assert sorted(float(line.get_xdata()[0]) for line in crosses) == [0.1, 0.2]
    assert [list(line.get_xdata()) for line in lines if line.get_marker() == "None"] == [[0.2, 0.8], [0.1, 0.9]]
    assert "B 0.90 (counts), 0.10 (shares) and 0.50 (logs)" in figure.alt_text
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["counts", "shares", "logs"]


def test_rows_stand_by_value_or_as_they_are_given():
    words = {"title": "Ridge leads", "xlabel": "Accuracy"}
    table = ladder().dropna().sort_values("acc")
    drawn = [figures.dots(table, "acc", ranked=ranked, **words) for ranked in (True, False)]
    names = [[label.get_text() for label in figure.axes[0].get_yticklabels()] for figure in drawn]
    assert names[0] == names[1][::-1] and names[0][-1] == "ridge"
    assert ["best first" in figure.alt_text for figure in drawn] == [True, False]


def test_roles_and_groups_differ_in_shape_too():
    assert len({m for _, m in figures.ROLES.values()}) == len(figures.ROLES)
    assert len({figures.mark(i)[1:] for i in range(20)}) == 20


def test_many_groups_are_numbered_on_the_map_and_in_the_legend():
    names = [f"type {i:02}" for i in range(20)]
    at = np.repeat(np.arange(20.0), 3)[:, None] + [0, 0]
    axes = figures.embedding(at, {"type": np.repeat(names, 3), "run": ["1", "2"] * 30}, title="Twenty types").axes
    assert [(t.get_text(), t.xy) for t in axes[0].texts] == [(str(i + 1), (i, i)) for i in range(20)]
    assert axes[0].get_legend_handles_labels()[1] == [f"{i + 1} {name}" for i, name in enumerate(names)]
    assert not axes[1].texts and axes[1].get_legend_handles_labels()[1] == ["1", "2"]


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


def test_the_new_figures_say_what_they_draw():
    assert "even: batch 10.0%, shared -0.1% and label 50.0%; cut:" in DRAWN["shares"]().alt_text
    assert "Over 3 genes" in DRAWN["zeros"]().alt_text and "+0.040 from the Poisson's" in DRAWN["zeros"]().alt_text
    assert "60 cells of 3 groups in one and two. The order" in DRAWN["maps"]().alt_text


def test_a_negative_share_is_drawn_as_nothing_and_shifts_nothing():
    bars = [patch for patch in DRAWN["shares"]().axes[0].patches if patch.get_height() > 0.5]
    assert [round(b.get_x(), 6) for b in bars] == [0, 0, 0.1, 0, 0.1, 0.3]
    assert min(b.get_width() for b in bars) >= 0


def test_intervals_become_the_rows_that_dots_draws():
    from types import SimpleNamespace

    rows = figures.as_rows({"a": SimpleNamespace(value=0.5, low=0.4, high=0.6)}, "found")
    assert rows.loc["a"].to_dict() == {"found": 0.5, "found_low": 0.4, "found_high": 0.6}
    assert "a 0.50 (0.40 to 0.60)" in figures.dots(rows, "found", title="T", xlabel="X").alt_text


def explored(**options):
    table = pd.DataFrame({"Year": [2019, 2021], "Kind": ["<b>", "plain"]}, index=pd.Index(["b", "a"], name="Method"))
    return figures.explorer(table, **({"name": "methods", "caption": "All of them", "filters": ["Kind"]} | options))


def test_the_explorer_is_a_plain_table_first():
    """Without scripts: a caption, a heading for every row and column, words escaped, and no dead controls."""
    from html.parser import HTMLParser

    text = explored().data
    before = text[: text.index("<script>")]
    seen = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.append((tag, dict(attrs)))

    Reader().feed(before)
    assert [a["scope"] for t, a in seen if t == "th"] == ["col"] * 3 + ["row"] * 2
    assert sum(t == "td" for t, _ in seen) == 4 and "<caption>All of them</caption>" in before
    assert ("div", {"class": "bs-controls", "hidden": None}) in seen and "<b>" not in before
    assert not any(t == "button" for t, _ in seen) and "src=" not in text


@pytest.mark.parametrize("bad", [{"name": "Two words"}, {"caption": " "}, {"filters": ["Colour"]}])
def test_the_explorer_refuses_what_it_cannot_use(bad):
    with pytest.raises(ValueError, match="needs a plain name"):
        explored(**bad)


@pytest.mark.browser
def test_the_explorer_filters_sorts_and_works_by_keyboard(tmp_path):
    import shutil

    webdriver = pytest.importorskip("selenium.webdriver")
    if not shutil.which("chromedriver"):
        pytest.skip("no chromedriver")
    page = tmp_path / "page.html"
    page.write_text(f"<!DOCTYPE html><html lang='en'><title>t</title><body>{explored().data}</body></html>")
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(word)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as browser:
        browser.get(page.as_uri())

        def rows():
            return [r.text.split()[0] for r in browser.find_elements("css selector", "tbody tr") if r.is_displayed()]

        assert rows() == ["b", "a"]
        button = browser.find_element("css selector", "thead button")
        button.send_keys("\ue007")
        assert rows() == ["a", "b"]
        assert button.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
        button.send_keys(" ")
        assert rows() == ["b", "a"]
        browser.find_element("css selector", "input").send_keys("PLAIN")
        assert rows() == ["a"] and browser.find_element("css selector", "output").text == "1 of 2 shown"
        browser.find_element("css selector", "input").clear()
        browser.find_element("css selector", "select").send_keys("<b>")
        assert rows() == ["b"]
