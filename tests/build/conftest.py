"""A repository small enough to build in a test: two chapters, a package of three files, one data set."""

import json
import textwrap

import pytest

ALPHA = """\
---
book:
  slug: alpha
  modules: [one]
  gpu: false
  data: [cells]
  goals: [a, b, c]
  claims: []
---

# Alpha

Made of {term}`cells <cell>` {cite:p}`doe2020`, and **{glue:text}`score:.2f`** right ({numref}`fig-line`).

```{code-cell} ipython3
:tags: [parameters]

profile = "auto"
seed = 0
device = "auto"
```

```{code-cell} ipython3
:tags: [setup]

import sys

if "google.colab" in sys.modules:
    %pip install -q nothing
```

```{code-cell} ipython3
if False:
    from shared.one import first
import json, os
from IPython.display import display
def record(name, value):
    meta = {"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"},
            "record": {"name": name, "value": value}}
    display({"application/papermill.record/text/plain": json.dumps(value)}, raw=True, metadata=meta)
record("score", 0.75)
display({"text/plain": ""}, raw=True, metadata={"provenance": {"chapter": "alpha", "profile": profile}})
```

```{code-cell} ipython3
:tags: [nbval-check-output, tolerance=0.02]

f"profile {profile} scored 0.75"
```

```{code-cell} ipython3
svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M0 0L9 9" stroke="#1b1f24"/></svg>'
display({"image/svg+xml": svg, "text/plain": "A line."}, raw=True,
        metadata={"figure": {"name": "fig-line", "caption": "A *line*.", "alt": "A line that rises."}})
```

```{exercise-start} ★ Count
:label: ex-count
```

Count to three.

```{exercise-end}
```

```{solution-start} ex-count
:class: dropdown
```

```{code-cell} ipython3
:tags: [solution]

list(range(3))
```

```{solution-end}
```
"""

BETA = """\
---
book: {slug: beta, modules: [two], gpu: true, data: [], goals: [a, b, c], claims: []}
---

# Beta

```{code-cell} ipython3
:tags: [parameters]

profile = "auto"
```

```{code-cell} ipython3
x = 1
```

```{code-cell} ipython3
x + 1
```
"""

CONFIG = """\
title: Mini
only_build_toc_files: true
execute: {execute_notebooks: "off"}
bibtex_bibfiles: [book/references.bib]
sphinx:
  extra_extensions: [sphinx_exercise]
  config: {numfig: true, bibtex_reference_style: author_year}
"""

TOC = """\
format: jb-book
root: book/index
parts:
  - caption: Chapters
    chapters:
      - file: chapters/01-alpha/alpha
      - file: chapters/02-beta/beta
"""

# The study of alpha; `setup` stands in for the package's, which the tests do without.
STUDY = """\
---
book: {slug: alpha, gpu: false, data: [], claims: []}
---

# Alpha, measured

The gain is {glue:text}`gain:.2f`, and the lesson says {glue:text}`score:.1f`.

```{code-cell} ipython3
:tags: [parameters]

profile = "auto"
seed = 0
```

```{code-cell} ipython3
:tags: [setup]

import json
from IPython.display import display
def setup(name, profile):
    return profile
```

```{code-cell} ipython3
book = setup("alpha-study", profile)
if book != "recorded":
    entry = {"name": "gain", "value": 0.125}
    meta = {"scrapbook": {"name": "gain", "mime_prefix": "application/papermill.record/"}, "record": entry}
    display({"application/papermill.record/text/plain": json.dumps(0.125)}, raw=True, metadata=meta)
    origin = {"chapter": "alpha-study", "profile": profile, "commit": "c", "seeds": [0, 1, 2], "device": "cpu",
              "versions": {"python": "3"}, "data": {"cells": "abc"}}
    display({"text/plain": ""}, raw=True, metadata={"provenance": origin})
```

```{code-cell} ipython3
f"shown at {book}"
```
"""

BIB = """\
@article{doe2020, author = {Doe, Jane and van Berg, Ann}, title = {T}, journal = {J}, year = {2020}, doi = {10.1/x}}
"""

FILES = {
    "pyproject.toml": '[project]\nname = "mini"\n[project.urls]\nHomepage = "https://github.com/some-one/mini"\n',
    "constraints.txt": "numpy==2\n",
    "_config.yml": CONFIG,
    "book/_toc.yml": TOC,
    "book/references.bib": BIB,
    "book/index.md": "# Mini\n\n```{glossary}\ncell\n  A cell.\n```\n\n```{bibliography}\n```\n",
    "data/catalog.yml": "cells: {sha256: abc}\n",
    "data/cells/cells.csv": "1,2\n",
    "shared/__init__.py": "",
    "shared/one.py": "from . import two\nfirst = 1\n",
    "shared/two.py": "second = 2\n",
    "shared/other.py": "third = 3\n",
    "chapters/01-alpha/alpha.md": ALPHA,
    "chapters/02-beta/beta.md": BETA,
}


@pytest.fixture
def mini(tmp_path):
    """The path of a fresh small repository."""
    for name, text in FILES.items():
        path = tmp_path / "mini" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text) if name.endswith(".py") else text, encoding="utf-8")
    return tmp_path / "mini"


@pytest.fixture
def study(mini):
    """The small repository with a study beside alpha, and a recorded run of each page."""
    (mini / "chapters/01-alpha/alpha-study.md").write_text(STUDY, encoding="utf-8")

    def run(**values):
        return {"provenance": {}, "records": {n: {"name": n, "value": v} for n, v in values.items()}}

    held = {"chapter": "alpha", "profiles": {"lesson": run(score=0.75)}, "study": {"lesson": run(gain=0.5)}}
    (mini / "book/results").mkdir()
    (mini / "book/results/alpha.json").write_text(json.dumps(held), encoding="utf-8")
    return mini


def edit(path, old, new):
    """Replace `old` in a file, and fail when it was not there."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def change():
    return edit
