"""The book in a browser: accessible in light and dark, wide and narrow; quiet; usable from the keyboard.

Every page is opened once and looked at wide and narrow. Measuring contrast takes most of the time and depends on the
kind of page, so that one page of each kind is measured, in light and in dark, and of chapters and reference pages one
is asked whether it is accessible; every night all are, four ways. The server is on this machine, and the browser is
told that no other exists.
"""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from book_site import contents

pytestmark = pytest.mark.browser
# Every rule wide in light and narrow in dark; the other two ways can only differ in colour and in what scrolls.
LOOKS = {"runOnly": ["color-contrast", "link-in-text-block", "scrollable-region-focusable"]}
WAYS = [("light", 1300, {}), ("dark", 1300, LOOKS), ("dark", 390, {}), ("light", 390, LOOKS)]
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
ONLY_LOCAL = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
CHAPTER = "chapters/02-baselines/baselines.html"
REST = {"rules": {"color-contrast": {"enabled": False}}}
SHORT = [("light", 1300, REST), ("dark", 390, None)]
WIDTHS = [("light", 1300, None), ("dark", 390, None)]
MEASURED = [("light", 1300, {}), ("dark", 1300, LOOKS), ("dark", 390, REST)]
PAGES = [*contents(), "search.html", "genindex.html"]
LIGHTER = "chapters/04-beyond-fine-tuning/beyond-fine-tuning.html"
KINDS = {LIGHTER, "book/api/results.html", "book/how-to-use.html", "search.html"}


def ways(name: str) -> list:
    """How a page is looked at every time; one chapter and one reference page stand for all, which share a template."""
    if name in KINDS:
        return MEASURED
    return WIDTHS if name.startswith(("book/api/", "chapters/")) else SHORT


def found(*names: str) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    chrome, driver = found("chromium", "chromium-browser", "google-chrome"), found("chromedriver")
    if not chrome or not driver:
        pytest.skip("no headless Chromium and driver on this machine (Debian: apt-get install chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = chrome
    for flag in [*FLAGS, ONLY_LOCAL, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options=options, service=Service(driver))
    window.set_script_timeout(60)
    yield window
    window.quit()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@contextmanager
def served(folder):
    """The address of a folder on this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def address(site):
    with served(site.html) as address:
        yield address


def look(browser, theme, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    # The theme keeps the choice in three places; without transitions, the colours are there at once.
    browser.execute_script(
        "localStorage.setItem('mode', arguments[0]); localStorage.setItem('theme', arguments[0]);"
        "document.documentElement.dataset.mode = document.documentElement.dataset.theme = arguments[0];"
        "if (!document.getElementById('still')) { const s = document.createElement('style'); s.id = 'still';"
        "s.textContent = '* { transition: none !important; animation: none !important; }'; document.head.append(s); }",
        theme,
    )


def wait_for_scripts(browser):
    """Wait until the page's own scripts are through, mathematics included."""
    browser.execute_async_script(
        "const done = arguments[0]; const go = () => (window.MathJax && MathJax.startup && MathJax.startup.promise"
        " ? MathJax.startup.promise : Promise.resolve()).then(() => requestAnimationFrame(() => done(1)));"
        "document.readyState === 'complete' ? go() : addEventListener('load', go);"
    )


def requests(browser) -> list[str]:
    asked = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
    return asked


def foreign(urls, address):
    return [
        u for u in urls if urlsplit(u).scheme not in {"data", "blob", "about", "chrome"} and not u.startswith(address)
    ]


# The page itself, and text that a clipping box hides at its right edge.
TOO_WIDE = """
const done = arguments[0];
requestAnimationFrame(() => setTimeout(() => {
  const edge = document.documentElement.clientWidth, page = document.documentElement.scrollWidth, out = [];
  if (page > edge) out.push('the page is ' + page + ' px wide');
  const rolls = e => e && e.tagName !== 'ARTICLE'
    && (/auto|scroll/.test(getComputedStyle(e).overflowX) || rolls(e.parentElement));
  const text = 'article :is(p, li, dd, dt, h1, h2, h3, code, img, svg, table, fieldset)';
  for (const e of document.querySelectorAll(text)) {
    const beyond = e.getClientRects().length && e.getBoundingClientRect().right > edge + 1;
    if (beyond && !e.closest('mjx-container') && !rolls(e))
      out.push('<' + e.tagName.toLowerCase() + '> ' + e.textContent.trim().slice(0, 60));
  }
  done(out.slice(0, 5));
}, 50));
"""

# Of code that is shown; what a reader unfolds may scroll.
CLIPPED_CODE = """
return [...document.querySelectorAll('.cell_input pre')]
  .filter(e => !e.closest('details') && e.scrollWidth > e.clientWidth).map(e => e.textContent.slice(0, 80));
"""

RUN_AXE = """
const done = arguments[1];
axe.run(document, {resultTypes: ['violations'], iframes: false, preload: false, ...arguments[0]}).then(
  r => done(r.violations.filter(v => ['serious', 'critical'].includes(v.impact)).map(
    v => v.id + ' (' + v.impact + '): ' + v.nodes.slice(0, 3).map(n => n.html.slice(0, 160)).join(' | '))),
  e => done(['axe failed: ' + e]));
"""


@pytest.fixture(scope="session")
def axe():
    """The rules' script."""
    import axe_core_python

    return (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def visit(browser, address, axe, name, ways) -> list[str]:
    """Open a page once, look at it in some ways, and say what is wrong; without rules only what is cut off."""
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(f"{address}/{name}")
    wait_for_scripts(browser)
    browser.execute_script(axe)
    said = []
    for theme, width, rules in ways:
        look(browser, theme, width)
        wrong = browser.execute_async_script(TOO_WIDE)
        if width > 1000:
            wrong += [
                f"beside both side bars, code is cut off: {code}" for code in browser.execute_script(CLIPPED_CODE)
            ]
        if rules is not None:
            wrong += browser.execute_async_script(RUN_AXE, rules)
        said += [f"{name} at {width} px in {theme}: {problem}" for problem in wrong]
    said += [e["message"][:300] for e in browser.get_log("browser") if e["level"] in {"SEVERE", "WARNING"}]
    return said + [f"{name} asks another machine: {url}" for url in foreign(requests(browser), address)]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_whole_quiet_and_asks_nobody(browser, address, axe, name):
    said = visit(browser, address, axe, name, ways(name))
    assert not said, "\n".join(said[:20])


@pytest.mark.nightly
@pytest.mark.parametrize("name", [name for name in PAGES if name not in KINDS])
def test_a_page_is_accessible_in_every_way(browser, address, axe, name):
    said = visit(browser, address, axe, name, WAYS)
    assert not said, "\n".join(said[:20])


def test_what_is_wrong_with_a_page_is_seen(browser, axe, tmp_path):
    wrong = {
        "image-alt": '<img src="data:,">',
        "color-contrast": '<p style="color: #bbb; background: #fff">pale</p>',
        "the page is": '<p style="width: 2000px">wide</p>',
        "code is cut off": '<div class="cell_input"><pre style="width: 50px; overflow: auto">a long line</pre></div>',
        "asks another machine": '<link rel="stylesheet" href="http://example.org/a.css">',
    }
    page = f"<!doctype html><html lang=en><title>Wrong</title><main><article>{''.join(wrong.values())}</article></main>"
    (tmp_path / "wrong.html").write_text(page)
    with served(tmp_path) as address:
        said = "\n".join(visit(browser, address, axe, "wrong.html", MEASURED))
    assert [w for w in wrong if w not in said] == [], said


@contextmanager
def opened(browser, url, theme="light", width=1300):
    browser.get(url)
    look(browser, theme, width)
    wait_for_scripts(browser)
    yield browser
    browser.get_log("browser"), browser.get_log("performance")


def tab_until(browser, wanted, most):
    """Press Tab until the focused element matches a CSS selector; the selectors passed on the way."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    for _ in range(most):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        if browser.execute_script("return document.activeElement.matches(arguments[0])", wanted):
            return True
    return False


@pytest.mark.parametrize("wanted", [".search-button-field", ".theme-switch-button"])
def test_tab_reaches_search_and_the_theme_switch(browser, address, wanted):
    with opened(browser, f"{address}/book/cite.html"):
        assert tab_until(browser, wanted, 60)
        ring = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none", "the focused element does not show that it is"


def test_the_first_tab_offers_to_skip_to_the_text(browser, address):
    with opened(browser, f"{address}/book/cite.html"):
        assert tab_until(browser, ".skip-link a", 1)


def test_a_quiz_works_from_the_keyboard(browser, address):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    with opened(browser, f"{address}/{CHAPTER}"):
        if not browser.execute_script("return document.querySelector('.bs-quiz input')"):
            pytest.fail("the chapter has no quiz")
        shown = "return [...document.querySelectorAll('.bs-why')].filter(w => w.offsetParent !== null).length"
        assert browser.execute_script(shown) == 0, "an answer's reason is shown before it is chosen"
        browser.execute_script("const f = document.querySelector('.bs-quiz'); f.tabIndex = -1; f.focus();")
        assert tab_until(browser, ".bs-quiz input[type=radio]", 1)
        ActionChains(browser).send_keys(Keys.SPACE).perform()
        assert browser.execute_script(shown) == 1
        first = browser.execute_script("return document.querySelector('.bs-quiz input:checked').id")
        ActionChains(browser).send_keys(Keys.ARROW_DOWN).perform()
        second = browser.execute_script("return document.querySelector('.bs-quiz input:checked').id")
        assert first != second and browser.execute_script(shown) == 1


def test_figures_follow_light_and_dark(browser, address):
    with opened(browser, f"{address}/{CHAPTER}"):
        paint = "return [...document.querySelectorAll('svg.bs-figure')].map(s => getComputedStyle(s).color)"
        light = browser.execute_script(paint)
        assert light, "the chapter shows no inlined figure"
        look(browser, "dark", 1300)
        dark = browser.execute_script(paint)
        assert all(a != b for a, b in zip(light, dark, strict=True))
        ground = browser.execute_script(
            "const u = [...document.querySelectorAll('svg.bs-figure [style*=\"fill: var(--bs-paper\"]')].slice(0, 4);"
            "return [u.map(e => getComputedStyle(e).fill), getComputedStyle(document.body).backgroundColor]"
        )
        assert all(fill == ground[1] for fill in ground[0] if fill != "none")


def test_a_term_shows_its_meaning_on_focus_and_hides_it_on_escape(browser, address):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    with opened(browser, f"{address}/book/how-to-use.html"):
        browser.execute_script("document.querySelector('a.bs-term').focus()")
        tip = "const t = document.getElementById('bs-tip'); return t.hidden ? '' : t.textContent"
        assert "one row for each cell" in browser.execute_script(tip)
        assert browser.execute_script("return document.activeElement.getAttribute('aria-describedby')") == "bs-tip"
        box = browser.execute_script("return document.getElementById('bs-tip').getBoundingClientRect()")
        assert box["left"] >= 0 and box["right"] <= 1300 and box["height"] > 20
        ActionChains(browser).send_keys(Keys.ESCAPE).perform()
        assert browser.execute_script(tip) == ""


def test_search_finds_a_glossary_term(browser, address):
    from selenium.webdriver.support.ui import WebDriverWait

    with opened(browser, f"{address}/search.html?q=transductive"):
        hits = "return [...document.querySelectorAll('#search-results a')].map(a => a.getAttribute('href'))"
        wait = WebDriverWait(browser, 20)
        assert wait.until(lambda b: any("glossary" in h for h in b.execute_script(hits)))


def test_what_is_too_wide_scrolls_from_the_keyboard_and_the_rest_is_no_stop(browser, address):
    with opened(browser, f"{address}/{CHAPTER}", "light", 390):
        boxes = browser.execute_async_script(
            "const done = arguments[0]; window.dispatchEvent(new Event('resize'));"
            "setTimeout(() => done([...document.querySelectorAll('.bs-scroll, .bs-drawing')].map("
            "b => [b.scrollWidth > b.clientWidth + 1, b.tabIndex, b.getAttribute('aria-label')])), 400)"
        )
        assert any(wide for wide, _, _ in boxes), "nothing is wide at 390 px, so this test sees nothing"
        assert all((tab == 0 and label) if wide else tab == -1 for wide, tab, label in boxes), boxes


def test_the_book_works_from_a_folder_without_a_server(browser, site):
    requests(browser)
    with opened(browser, (site.html / "book" / "glossary.html").as_uri()):
        assert browser.execute_script("return document.querySelectorAll('a.bs-term').length") > 0
        assert not foreign(requests(browser), "file://")
        assert not [e for e in browser.get_log("browser") if e["level"] == "SEVERE"]
    assert re.search("Glossary", browser.title)
