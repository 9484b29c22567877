"""The finisher on small pages: drawings, tables, heads, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from book.html import FinishError, finish, inline
from shared import figures

SVG = (
    '<?xml version="1.0"?><!DOCTYPE svg><svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="36pt" '
    'viewBox="0 0 72 36"><metadata>made</metadata><defs><style type="text/css">*{stroke-linejoin: round; '
    'stroke-linecap: butt}</style><clipPath id="clip"><rect width="9" height="9"/></clipPath><path id="m" d="M0 0"/>'
    '</defs><g clip-path="url(#clip)" style="fill: #ffffff; stroke: #1b1f24"><use xlink:href="#m"/></g></svg>'
)
PAGE = """<!DOCTYPE html><html><head><meta name="viewport" content="a"/><meta name="viewport" content="b"/>
<title>T</title><script>const THEBE_JS_URL = "https://unpkg.com/x"</script>
<script src="_static/sphinx-thebe.js"></script>
<script>const THEBE_JS_URL = "https://unpkg.com/x"</script></head><body><main id="main-content"><article>
<h1>T<a class="headerlink" href="#t">#</a></h1>
<p>This sentence is long enough to describe what the page is about. And more.</p>
BODY</article></main></body></html>"""
FRAME = """<table border="1" class="dataframe"><thead><tr style="text-align: right;"><th></th><th>score</th></tr>
<tr><th>model</th><th></th></tr></thead><tbody><tr><th>ridge</th><td>0.5</td></tr></tbody></table>"""


def write(folder: Path, body: str, **files: str) -> Path:
    (folder / "_images").mkdir(exist_ok=True)
    (folder / "_static").mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / "_images" / f"{name}.svg").write_text(text, encoding="utf-8")
    page = folder / "page.html"
    page.write_text(PAGE.replace("BODY", body), encoding="utf-8")
    return page


def figure(name, file, alt="Ridge comes first with 0.5"):
    return f'<figure id="{name}"><img alt="{alt}" src="_images/{file}.svg"/><figcaption>c</figcaption></figure>'


def finished(tmp_path, body, **files):
    page = write(tmp_path, body, **files)
    finish(tmp_path)
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def test_a_drawing_takes_the_page_colours_and_keeps_its_words():
    out = inline(SVG, 'says "this" & that', "fig-a")
    assert 'role="img"' in out and 'aria-label="says &quot;this&quot; &amp; that"' in out
    assert "currentColor" in out and "var(--bs-paper)" in out
    assert not re.search("#1b1f24|#ffffff|<metadata|<style|<\\?xml|DOCTYPE", out, re.I)
    assert 'viewBox="0 0 72 36"' in out and "max-width:96px" in out and "stroke-linejoin:round" in out


def test_two_drawings_on_a_page_do_not_share_identifiers(tmp_path):
    page = finished(tmp_path, figure("fig-a", "one") + figure("fig-b", "one"), one=SVG)
    found = [t["id"] for t in page.find_all(id=True)]
    assert len(found) == len(set(found)) and {"fig-a-clip", "fig-b-clip", "fig-a-m", "fig-b-m"} <= set(found)
    text = str(page)
    for prefix in ("fig-a", "fig-b"):
        assert f"url(#{prefix}-clip)" in text and f'href="#{prefix}-m"' in text
    assert not page.find_all("img")


def test_a_figure_of_the_house_is_taken_whole():
    figure, axes = figures.new()
    axes.plot([0, 1], [0, 1])
    svg = figures.to_svg(figure)
    out = inline(svg, "a line goes up", "fig-x")
    assert not re.search("#1b1f24|#ffffff", out)
    used = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", out))
    made = set(re.findall(r'\bid="([^"]+)"', out))
    assert used and {a or b for a, b in used} <= made
    BeautifulSoup(out, "html.parser")


def test_an_image_without_words_is_refused(tmp_path):
    write(tmp_path, '<img src="_images/one.svg"/>', one=SVG)
    with pytest.raises(FinishError, match="no alternative text"):
        finish(tmp_path)


def test_a_missing_drawing_is_refused(tmp_path):
    write(tmp_path, figure("fig-a", "two"), one=SVG)
    with pytest.raises(FinishError, match="does not exist"):
        finish(tmp_path)


@pytest.mark.parametrize("text", ["not a drawing", '<svg width="3"></svg>'])
def test_what_is_not_svg_is_refused(text):
    with pytest.raises(FinishError, match="fig-a is not an SVG"):
        inline(text, "words", "fig-a", "page.html")


def test_a_table_from_pandas_gets_headers_and_a_box(tmp_path):
    page = finished(tmp_path, FRAME)
    table = page.find("table")
    assert table.parent["class"] == ["bs-scroll"] and not table.has_attr("border")
    assert [[c.get_text() for c in r.find_all(["th", "td"])] for r in table.find_all("tr")] == [
        ["model", "score"],
        ["ridge", "0.5"],
    ]
    assert [h["scope"] for h in table.find_all("th")] == ["col", "col", "row"]


def test_a_table_of_words_is_one_whose_words_break(tmp_path):
    assert "bs-words" not in finished(tmp_path, FRAME).find("table")["class"]
    words = finished(
        tmp_path, FRAME.replace("0.5", "python 3.11.7, numpy 2.4.6, scipy 1.17.1, pandas 2.3.3, torch 2.13.0")
    )
    assert "bs-words" in words.find("table")["class"]
    assert "bs-words" in finished(tmp_path, FRAME.replace("0.5", "tuned")).find("table")["class"]


def test_an_empty_corner_is_no_header(tmp_path):
    page = finished(tmp_path, FRAME.replace("<tr><th>model</th><th></th></tr>", ""))
    corner = page.find("thead").find(["th", "td"])
    assert corner.name == "td" and not corner.get_text()


def test_a_negative_number_has_a_minus_sign(tmp_path):
    numbers = '<p><span class="pasted-text">-0.10</span> <span class="pasted-text">k-NN</span> -1 <code>-0.1</code></p>'
    shown = finished(tmp_path, numbers).find_all("p")[-1]
    assert shown.get_text() == "\N{MINUS SIGN}0.10 k-NN -1 -0.1"


def test_two_real_header_rows_both_stay(tmp_path):
    page = finished(tmp_path, FRAME.replace("<th>model</th><th></th>", "<th>model</th><th>mean</th>"))
    assert len(page.find("thead").find_all("tr")) == 2


def test_the_head_is_made_whole(tmp_path):
    head = finished(tmp_path, "").head
    assert len(head.find_all("meta", attrs={"name": "viewport"})) == 1
    assert "THEBE" not in str(head) and "thebe" not in str(head)
    said = head.find("meta", attrs={"name": "description"})["content"]
    assert said == "This sentence is long enough to describe what the page is about. And more."


def test_a_page_without_a_skip_link_gets_one(tmp_path):
    page = finished(tmp_path, "")
    assert page.find(id="pst-skip-link").a["href"] == "#main-content"
    assert page.html["lang"] == "en"


def test_finishing_twice_is_finishing_once(tmp_path):
    page = write(tmp_path, figure("fig-a", "one") + FRAME, one=SVG)
    assert finish(tmp_path) == [page]
    once = page.read_bytes()
    assert finish(tmp_path) == [] and page.read_bytes() == once


def test_the_bare_redirect_becomes_a_page(tmp_path):
    (tmp_path / "index.html").write_text('<meta http-equiv="Refresh" content="0; url=book/index.html" />\n')
    finish(tmp_path)
    page = BeautifulSoup((tmp_path / "index.html").read_text(), "html.parser")
    assert page.html["lang"] == "en" and page.title.string and page.a["href"] == "book/index.html"
    assert finish(tmp_path) == []
