"""What the renderer leaves undone: ``finish(html_dir)`` makes its pages whole.

* Figures become part of the page: each drawing is inlined with its alternative text, in the page's own ink and paper
  colours, so that it follows light and dark. Identifiers inside it get the figure's name in front, so that two
  figures on one page do not clash.
* Tables that pandas wrote get header cells that a screen reader can use.
* Every page has a language, a title and a description; the first page is a real page and not a bare redirect.
* Nothing that would ask another machine for something stays: the code of the live-kernel extension goes.
* Glossary terms and citations get their text from one small file that works without a server.

A finished page carries a mark and is not read again, so finishing twice changes nothing and costs little.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

from bs4 import BeautifulSoup

from book import pages
from book.plain import minus

INK, PAPER = "#1b1f24", "#ffffff"
# Attributes in alphabetical order, as the parser writes them.
MARK = '<meta content="Borrowed Strength" name="generator"/>'
TITLE = "Borrowed Strength"
DESCRIPTION = "A book that teaches transfer learning for gene expression by running it."
LONG = 60  # a cell with more letters holds words, and no number
PREFERRED = 'matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"'
GENERATED = {
    "search.html": "Search the chapters, the glossary and the package reference of Borrowed Strength.",
    "genindex.html": "Index of every function and class of the package shared.",
    "py-modindex.html": "Index of the modules of the package shared.",
}


class FinishError(ValueError):
    """A rendered page cannot be made whole; the message names the page and the cure."""


def prepare(src: Path, profile: str | None = None) -> list[Path]:
    """Write the generated pages into the staged tree (see ``book.pages.generate``); `profile` makes no difference."""
    return pages.generate(src)


def finish(html_dir: Path) -> list[Path]:
    """Make every page under `html_dir` whole, in place.

    Parameters
    ----------
    html_dir : Path
        Where the renderer wrote the book.

    Returns
    -------
    list of Path
        The pages that were not finished before.

    Raises
    ------
    FinishError
        If a figure has no alternative text, or a drawing is missing or is not SVG.
    """
    html_dir = Path(html_dir)
    _tips(html_dir)
    for unused in html_dir.glob("_static/*sphinx-thebe*"):
        unused.unlink()
    done = []
    for path in sorted(html_dir.rglob("*.html")):
        if "_static" in path.relative_to(html_dir).parts:
            continue
        text = path.read_text(encoding="utf-8")
        if MARK in text:
            continue
        if "http-equiv" in text[:200].lower() and "<body" not in text:
            path.write_text(_front_door(text), encoding="utf-8")
        else:
            path.write_text(page(text, path, html_dir), encoding="utf-8")
        done.append(path)
    return done


def _front_door(text: str) -> str:
    """The bare redirect at the root, as a page with a language, a title and a link for those it does not carry on."""
    target = re.search(r"url=([^\"']+)", text)
    address = html.escape(target[1].strip() if target else "book/index.html")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n{MARK}\n'
        f'<meta http-equiv="refresh" content="0; url={address}"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f'<meta name="description" content="{DESCRIPTION}"/>\n<link rel="icon" href="_static/favicon.svg"/>\n'
        f'<title>{TITLE}</title>\n</head>\n<body>\n<main><h1>{TITLE}</h1><p><a href="{address}">Open the book</a></p>'
        "</main>\n</body>\n</html>\n"
    )


def page(text: str, path: Path, html_dir: Path) -> str:
    """One rendered page, made whole."""
    soup = BeautifulSoup(text, "html.parser")
    inside = path.relative_to(html_dir).as_posix()
    article = soup.find("article") or soup.find("main") or soup.body
    _head(soup, article, inside)
    _furniture(soup)
    for table in article.find_all("table"):
        _table(soup, table)
    for works in article.find_all("div", class_="citation-list"):
        # Its children are bibliography entries and no list items, so it is no list to a screen reader.
        del works["role"]
    for card in article.find_all("a", class_="sd-stretched-link"):
        _card(card)
    for body in article.find_all(id=re.compile("^(exercise|solution)-content$")):
        # Every exercise gets the same identifier from its extension, and nothing points at it.
        del body["id"]
    for number in article.find_all("span", class_="pasted-text"):
        number.string = minus(number.get_text())
    drawings = _figures(soup, article, path, inside)
    out = str(soup)
    for key, drawing in drawings.items():
        out = out.replace(key, drawing)
    return out


def _head(soup, article, inside):
    """Language, one viewport, a description, and none of the live-kernel extension's code."""
    soup.html["lang"] = soup.html.get("lang") or "en"
    head = soup.head
    for extra in head.find_all("meta", attrs={"name": "viewport"})[1:]:
        extra.decompose()
    # The theme knows no mode before the reader chose one, says so in the console and shows a dark reader a light flash.
    soup.body["data-default-mode"] = soup.body.get("data-default-mode") or "auto"
    seen = set()
    for script in head.find_all("script"):
        source, code = script.get("src", ""), script.string or ""
        # The extension is switched off, yet it declares its address twice, which is an error in every console.
        if "THEBE_JS_URL" in code or "sphinx-thebe" in source or (code and code in seen):
            script.decompose()
            continue
        seen.add(code)
        if 'localStorage.getItem("mode") || ""' in code:
            code = code.replace('getItem("mode") || ""', 'getItem("mode") || "auto"')
            script.string = code.replace('getItem("theme") || ""', f'getItem("theme") || ({PREFERRED})')
    for sheet in head.find_all("link", href=re.compile("sphinx-thebe")):
        sheet.decompose()
    if not head.find("meta", attrs={"name": "description"}):
        described = GENERATED.get(inside) or _first_words(article) or f"{_title(soup)}. {DESCRIPTION}"
        head.append(soup.new_tag("meta", attrs={"name": "description", "content": described}))
    head.insert(0, BeautifulSoup(MARK, "html.parser"))


def _title(soup):
    return soup.title.get_text(strip=True) if soup.title else TITLE


def _first_words(article, most=200):
    """The first paragraph of running text, cut at the end of a sentence or a word."""
    for paragraph in article.find_all("p"):
        words = re.sub(r"\s+", " ", paragraph.get_text()).strip()
        if len(words) < 60 or paragraph.find_parent(["figure", "table", "nav", "aside", "dl"]):
            continue
        if len(words) <= most:
            return words
        end = max(words.rfind(mark, 60, most) for mark in (". ", "? "))
        return words[: end + 1] if end > 0 else words[: words.rfind(" ", 0, most)] + " …"
    return ""


def _furniture(soup):
    """The theme's own small gaps: a skip link, and names for what has only a symbol."""
    if not soup.find(id="pst-skip-link") and soup.find(id="main-content"):
        skip = '<div id="pst-skip-link" class="skip-link"><a href="#main-content">Skip to main content</a></div>'
        soup.body.insert(0, BeautifulSoup(skip, "html.parser"))
    for sign in soup.find_all("i", class_=re.compile(r"\bfa")):
        sign["aria-hidden"] = "true"
    for link in soup.find_all("a", class_="headerlink"):
        # Twenty tab stops called "#" stand between a keyboard and the text; they stay for the mouse.
        link["tabindex"] = "-1"
        link["aria-hidden"] = "true"


def _table(soup, table):
    """Header cells with a scope, no header cell without text, words that break, and a box to scroll in."""
    del table["border"]
    head = table.find("thead")
    rows = head.find_all("tr") if head else []
    for line in rows:
        del line["style"]
    if len(rows) == 2 and "dataframe" in table.get("class", []):
        # pandas gives the name of the index a row of its own; it belongs above the index.
        first, second = rows[0].find_all(["th", "td"]), rows[1].find_all(["th", "td"])
        alone = len(second) == len(first) and not any(c.get_text(strip=True) for c in second[1:])
        if alone and not first[0].get_text(strip=True):
            first[0].string = second[0].get_text(strip=True)
            rows[1].decompose()
    for header in table.find_all("th"):
        if not header.get_text(strip=True):
            header.name = "td"
            del header["scope"]
        elif not header.has_attr("scope"):
            header["scope"] = "col" if header.find_parent("thead") else "row"
    if "dataframe" in table.get("class", []) and _of_words(
        [cell.get_text(strip=True) for cell in table.select("tbody td")]
    ):
        table["class"] = [*table["class"], "bs-words"]
    if "bs-scroll" not in (table.parent.get("class") or []):
        table.wrap(soup.new_tag("div", attrs={"class": "bs-scroll"}))


def _of_words(cells) -> bool:
    """Whether a table holds words, whose lines may break, rather than numbers, whose lines may not."""
    return any(len(cell) > LONG for cell in cells) or 2 * sum(cell[:1].isalpha() for cell in cells) > len(cells)


def _card(link):
    """A card's link gets the name that stands on the card, which is what a listener hears and a speaker says."""
    card = link.find_parent("div", class_="sd-card")
    title = card.find("div", class_="sd-card-title") if card else None
    if title:
        link["aria-label"] = title.get_text(strip=True)


def _figures(soup, article, path, inside) -> dict[str, str]:
    """Put a mark in the place of every drawing and return what belongs there."""
    drawings, used = {}, set()
    for image in article.find_all("img"):
        if not image.get("alt", "").strip():
            raise FinishError(f"{inside}: the image {image.get('src')} has no alternative text; give it one")
        source = image.get("src", "")
        if not source.endswith(".svg") or "://" in source:
            continue
        file = (path.parent / source).resolve()
        if not file.exists():
            raise FinishError(f"{inside}: the drawing {source} does not exist; render the book again")
        figure = image.find_parent("figure")
        prefix = (figure.get("id") if figure else None) or file.stem[:12]
        while prefix in used:
            prefix += "x"
        used.add(prefix)
        key = f"<!--drawing {prefix}-->"
        drawing = inline(file.read_text(encoding="utf-8"), image["alt"], prefix, inside)
        classes = " ".join(["bs-figure", *image.get("class", [])])
        drawings[key] = drawing.replace('class="bs-figure"', f'class="{classes}"', 1)
        target = image.parent if image.parent.name == "a" and image.parent.get("href", "").endswith(".svg") else image
        box = soup.new_tag("div", attrs={"class": "bs-drawing"})
        target.replace_with(box)
        box.append(BeautifulSoup(key, "html.parser"))
    return drawings


def inline(svg: str, alt: str, prefix: str, where: str = "") -> str:
    """An SVG file's text as an element of a page.

    Parameters
    ----------
    svg : str
        The file. Its ink and paper colours are those of ``shared.figures``.
    alt : str
        What a reader who cannot see it is told.
    prefix : str
        Put before every identifier in it; unique on the page.
    where : str
        Named in an error.

    Returns
    -------
    str

    Raises
    ------
    FinishError
        If the text holds no SVG with a ``viewBox``.
    """
    found = re.search(r"<svg\b[^>]*>(.*)</svg>", svg, re.S)
    box = re.search(r'\bviewBox="([^"]+)"', svg)
    if not found or not box:
        raise FinishError(f"{where}: the drawing of {prefix} is not an SVG with a viewBox")
    opening = svg[found.start() : found.start(1)]
    body = re.sub(r"<metadata>.*?</metadata>", "", found[1], flags=re.S)
    # A style element would reach every other drawing on the page; matplotlib's only sets how lines join.
    joins = "stroke-linejoin:round;stroke-linecap:butt" if "stroke-linejoin: round" in body else ""
    body = re.sub(r"<style\b.*?</style>", "", body, flags=re.S)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    width = float(box[1].split()[2])
    # Points become pixels; a drawing without a unit is in pixels already.
    width *= 4 / 3 if re.search(r'\bwidth="[\d.]+pt"', opening) else 1
    style = ";".join(filter(None, [f"max-width:{width:.0f}px", joins]))
    kept = "".join(
        f' {name}="{value}"' for name, value in re.findall(r'\s(fill|font-family|stroke|color)="([^"]*)"', opening)
    )
    out = (
        f'<svg class="bs-figure" role="img" aria-label="{html.escape(alt, quote=True)}" viewBox="{box[1]}" '
        f'style="{style}" focusable="false" xmlns:xlink="http://www.w3.org/1999/xlink"{kept}>{body.strip()}</svg>'
    )
    out = re.sub(INK, "currentColor", out, flags=re.I)
    return re.sub(f"{PAPER}|(?<=[ :\"'])#fff(?=[;\"' ])", "var(--bs-paper)", out, flags=re.I)


def _tips(html_dir: Path) -> None:
    """Write ``_static/tips-text.js``: what each glossary term and each citation says, for the page's small script.

    It is a script and not data because a page opened from a folder may not read other files.
    """
    said = {}
    for name, pick in (("book/glossary.html", _terms), ("book/references.html", _works)):
        file = html_dir / name
        if file.exists():
            soup = BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")
            said |= {f"{name}#{key}": words for key, words in pick(soup)}
    path = html_dir / "_static" / "tips-text.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"window.bsTips = {json.dumps(said, ensure_ascii=False, indent=0, sort_keys=True)};\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _terms(soup):
    for term in soup.select("dl.glossary dt[id]"):
        meaning = term.find_next_sibling("dd")
        if meaning:
            yield term["id"], _said(meaning)


def _works(soup):
    for work in soup.select("div.citation[id]"):
        yield work["id"], _said(work.find("p") or work)


def _said(tag):
    return re.sub(r"\s+", " ", tag.get_text()).strip()
