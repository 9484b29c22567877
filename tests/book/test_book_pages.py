"""Every rendered page: links, names, order, and nothing that leaves the reader's machine."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from urllib.parse import unquote, urlsplit

import pytest
from book_site import ROOT, contents

from book.html import finish

LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
    "object": "data",
    "use": "href",
    "image": "href",
}
ASKS = re.compile(r"(?:fetch|import|importScripts|\.open)\(\s*['\"](?:GET['\"],\s*['\"])?https?://[^'\"]*")
IMPORTS = re.compile(r"@import\s+(?:url\()?\s*['\"]?(?:https?:)?//[^;]*|url\(\s*['\"]?(?:https?:)?//[^)]*\)")
OUTSIDE = re.compile(r"^\s*(?:[a-z][a-z0-9+.-]*:)?//", re.I)


def outside(address: str) -> bool:
    return bool(OUTSIDE.match(address)) and not address.startswith("data:")


def test_the_contents_list_every_page_and_every_page_is_there(site):
    written = {p.relative_to(ROOT).with_suffix(".html").as_posix() for p in (ROOT / "book").rglob("*.md")}
    written -= {"book/assets/vendor/README.html", "book/results/README.html"}
    assert written <= set(contents()), "a page is missing from book/_toc.yml"
    assert set(contents()) <= set(site.pages), "a page of book/_toc.yml was not rendered"


class Links(HTMLParser):
    """The places that a page has names for, and those that it leads to; quicker than a whole parse."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.leads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found[k] for k in ("id", *(["name"] if tag == "a" else [])) if found.get(k)}
        if tag in ("a", "link", "img", "script", "area"):
            self.leads.append(found.get("href") or found.get("src") or "")


def test_internal_links_and_anchors_resolve(site):
    pages = {name: Links((site.html / name).read_text(encoding="utf-8")) for name in site.pages}
    anchors = {name: page.anchors for name, page in pages.items()}
    broken = []
    for name, page in pages.items():
        here = site.html / name
        for address in page.leads:
            parts = urlsplit(address)
            if not address or parts.scheme or parts.netloc:
                continue
            target = (here.parent / unquote(parts.path)).resolve() if parts.path else here.resolve()
            if not target.is_file():
                broken.append(f"{name}: {address}")
                continue
            inside = target.relative_to(site.html.resolve()).as_posix()
            if parts.fragment and inside in anchors and unquote(parts.fragment) not in anchors[inside]:
                broken.append(f"{name}: {address} (no such anchor)")
    assert not broken, "\n".join(sorted(set(broken))[:40])


def test_no_page_loads_anything_from_elsewhere(site):
    found = []
    for name, page in site.pages.items():
        for tag in page.find_all(list(LOADS)):
            for key in (LOADS[tag.name], f"xlink:{LOADS[tag.name]}", "srcset"):
                if outside(tag.get(key, "")):
                    found.append(f"{name}: <{tag.name} {key}={tag[key]}>")
        for tag in page.find_all("link"):
            if outside(tag.get("href", "")) and set(tag.get("rel", [])) & {
                "stylesheet", "preload", "prefetch", "preconnect", "dns-prefetch", "icon", "modulepreload", "manifest",
            }:  # fmt: skip
                found.append(f"{name}: {tag}")
        for tag in page.find_all(["script", "style"]):
            text = tag.string or ""
            if re.search(r"@import|url\(\s*['\"]?https?:|(?:fetch|import)\(\s*['\"]https?:|unpkg|jsdelivr|cdnjs", text):
                found.append(f"{name}: inline {text[:100]}")
        for tag in page.find_all("form"):
            if outside(tag.get("action", "")):
                found.append(f"{name}: form to {tag['action']}")
    for sheet in site.html.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8", errors="replace")
        for hit in IMPORTS.findall(text):
            found.append(f"{sheet.name}: {hit[:100]}")
    for script in site.html.rglob("*.js"):
        text = script.read_text(encoding="utf-8", errors="replace")
        for hit in ASKS.findall(text):
            found.append(f"{script.name}: {hit[:100]}")
    assert not found, "\n".join(found[:40])


def test_no_page_loads_the_live_kernel_code(site):
    for name, page in site.pages.items():
        assert not re.search("THEBE_JS_URL|sphinx-thebe", str(page.head)), name


def test_every_image_has_words_and_every_drawing_is_named(site):
    for name, page in site.pages.items():
        for image in page.find_all("img"):
            assert image.get("alt", "").strip(), f"{name}: {image}"
            assert not re.search(r"\.(svg|png)$|^_images", image["alt"]), f"{name}: the file name is no description"
        for drawing in page.select("article svg.bs-figure"):
            assert drawing["role"] == "img" and len(drawing["aria-label"]) > 20, name
        assert not page.select("article img[src$='.svg']"), f"{name}: a drawing was not inlined"


def test_headings_come_in_order(site):
    for name in site.written:
        article = site.pages[name].find("article")
        levels = [int(h.name[1]) for h in article.find_all(re.compile(r"^h[1-6]$"))]
        assert levels.count(1) == 1 and levels[0] == 1, f"{name}: {levels}"
        assert all(b <= a + 1 for a, b in pairwise(levels)), f"{name}: a level is skipped: {levels}"


def test_identifiers_are_unique_on_a_page(site):
    for name in site.written:
        twice = [i for i, n in Counter(t["id"] for t in site.pages[name].find_all(id=True)).items() if n > 1]
        assert not twice, f"{name}: {twice}"


def test_every_page_has_a_language_a_title_and_a_description(site):
    for name, page in site.pages.items():
        assert page.html.get("lang") == "en", name
        assert page.title and page.title.get_text(strip=True), name
        found = page.find_all("meta", attrs={"name": "description"})
        assert len(found) == 1 and 30 <= len(found[0]["content"]) <= 320, f"{name}: {found}"
        assert len(page.find_all("meta", attrs={"name": "viewport"})) == 1, name
    said = Counter(p.find("meta", attrs={"name": "description"})["content"] for p in map(site.pages.get, site.written))
    assert max(said.values()) == 1, said.most_common(2)


def test_table_headers_have_a_scope_and_words(site):
    for name, page in site.pages.items():
        for header in page.select("article th"):
            assert header.get("scope") in {"col", "row"} and header.get_text(strip=True), f"{name}: {header}"
        for table in page.select("article table"):
            assert "bs-scroll" in table.parent.get("class", []), f"{name}: a table without a box to scroll in"


def test_search_knows_the_pages_and_their_words(site):
    text = (site.html / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(re.search(r"Search\.setIndex\((.*)\)", text, re.S)[1])
    assert set(index["docnames"]) >= {name.removesuffix(".html") for name in site.written}
    assert {"transduct", "prototyp", "kappa"} <= set(index["terms"])


def test_the_chapters_open_their_own_notebook_in_colab(site):
    chapters = [n for n in site.written if n.startswith("chapters/")]
    assert chapters
    base = "https://colab.research.google.com/github/borrowed-strength/borrowed-strength/blob/main/"
    for name in chapters:
        links = {a["href"] for a in site.pages[name].find_all("a", href=re.compile("colab.research"))}
        assert base + name.replace(".html", ".ipynb") in links, f"{name}: {links}"


def test_no_hosted_kernel_and_no_counting_of_readers(site):
    for name, page in site.pages.items():
        assert not page.find_all("a", href=re.compile("mybinder")), name
        assert not re.search(r"google-analytics|googletagmanager|plausible|matomo", str(page.head)), name


def test_terms_and_citations_have_their_meaning_at_hand(site):
    text = (site.html / "_static" / "tips-text.js").read_text(encoding="utf-8")
    said = json.loads(re.search(r"= (\{.*\});", text, re.S)[1])
    terms = {k: v for k, v in said.items() if "#term-" in k}
    works = {k: v for k, v in said.items() if k.startswith("book/references.html#")}
    assert len(terms) >= 30 and len(works) >= 30
    assert all(len(v) > 20 and "\\(" not in v for v in said.values())
    asked = {a["href"].split("#")[1] for a in site.pages["book/glossary.html"].select("article a[href*='#term-']")}
    assert {f"book/glossary.html#{k}" for k in asked} <= set(terms)


def test_finishing_again_changes_nothing(site):
    before = {n: (site.html / n).read_bytes() for n in site.pages}
    assert finish(site.html) == []
    assert {n: (site.html / n).read_bytes() for n in site.pages} == before


def test_the_first_page_leads_to_the_welcome(site):
    page = site.pages["index.html"]
    assert page.find("a")["href"] == "book/index.html" and page.h1
    assert "book/index.html" in page.find("meta", attrs={"http-equiv": "refresh"})["content"]


@pytest.mark.parametrize("words", ["Borrowed Strength", "Who it is for", "What to do next"])
def test_the_welcome_says_what_it_is_for_whom_and_what_to_do(site, words):
    assert words in site.pages["book/index.html"].find("article").get_text()
