"""What a chapter's first and last cells do: choose the profile, set the seed, show the box, quiz the reader.

A lesson says ``book = setup("baselines", profile=profile, seed=seed)`` once, and asks `book` for sizes, seeds, data
and records after that. The code of a chapter is the same at every profile; only ``book.size(...)`` differs.

A study says ``setup("baselines-study", ...)``. Left at ``profile = "auto"`` it fits nothing: it shows what was recorded
(:meth:`Chapter.recorded`). What measures stands under ``if book.reruns:``, and runs when a profile is asked for, by
``make refs``, by ``make full``, or by a reader who sets one in the first cell.
"""

from __future__ import annotations

import html
import importlib.util
import os
import platform
import random
import re
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from shared import results
from shared.results import RECORDED, STUDY

SEEDS = {"smoke": 2, "lesson": 5, "full": 20}
PROFILE_VARIABLE = "BORROWED_PROFILE"
DOES = {
    "smoke": "a quick check that every cell runs; its numbers mean little",
    "lesson": "real data, sized for a laptop",
    "full": "the published protocol, or the largest that the data allow; it may take days",
}


def resolve_profile(profile: str = "auto", study: bool = False) -> str:
    """The profile to run: what was asked for, else the environment's ``BORROWED_PROFILE``, else ``lesson``.

    A study shows what was ``"recorded"`` unless it is asked for another.
    """
    if study and profile in ("auto", RECORDED):
        return RECORDED
    chosen = os.environ.get(PROFILE_VARIABLE, "lesson") if profile == "auto" else profile
    if chosen not in results.PROFILES:
        from shared.data.constraints import nearest

        hint = nearest(chosen, results.PROFILES)
        raise ValueError(f"profile {chosen!r} is not known: choose {', '.join(results.PROFILES)} or auto{hint}")
    return chosen


@dataclass
class Chapter:
    """One execution of one page: its profile, seeds, device and recorded numbers. Made by :func:`setup`."""

    slug: str
    profile: str
    seed: int
    seeds: tuple[int, ...]
    device: str
    run: results.Run

    @property
    def reruns(self) -> bool:
        """Whether this execution measures; a study that shows what was recorded does not."""
        return self.profile != RECORDED

    def size(self, *, smoke, lesson, full):
        """The value for the profile that runs, or that was recorded; the code around it stays the same."""
        return {"smoke": smoke, "lesson": lesson, "full": full}[self.run.profile]

    def load(self, name, **options):
        """``shared.data.load``, with the file's hash entered in the provenance of every number recorded after it."""
        from shared.data import load

        adata = load(name, **options)
        self.run.data[str(name)] = adata.uns["sha256"]
        return adata

    def record(self, name, value, **more):
        """Record a number under `name` for the text, the results page and the tests; see ``shared.results.Run``."""
        if not self.reruns:
            raise results.ResultError(
                f"{name!r} is not recorded: this study shows what was. Record under 'if book.reruns:', "
                'and set profile = "lesson" in the first cell to run it again'
            )
        return self.run.record(name, value, **more)

    def record_all(self, values, prefix=""):
        """Record each value of a dict under the prefix and its name in letters, digits and underscores.

        A value that is a sequence holds one number a seed: its mean is recorded, with the interval over seeds.
        """
        from shared.evaluate import over_seeds

        for name, value in values.items():
            value = over_seeds(value) if hasattr(value, "__len__") and not isinstance(value, str) else value
            self.record(prefix + re.sub(r"\W+", "_", name), value)

    def recorded_all(self, prefix=""):
        """What either page of the chapter recorded under names that begin with `prefix`: a dict without the prefix.

        A value with an interval is a :class:`shared.evaluate.Interval`. What this execution recorded itself comes
        from it, and all else from ``book/results/``.
        """
        from shared.evaluate import Interval

        known = results.recorded(self.slug)
        if self.reruns:
            mine = results.latest(self.slug).get("records", {})
            known = {n: e for n, e in known.items() if n not in mine} | self.run.records

        def value(entry):
            ends = (entry["value"], entry["low"], entry["high"]) if "low" in entry else None
            return Interval(*ends, 0.95, "recorded", entry.get("n", 0)) if ends else entry["value"]

        found = {n.removeprefix(prefix): value(e) for n, e in known.items() if n.startswith(prefix)}
        if not found:
            slug = self.slug.removesuffix(STUDY)
            raise results.ResultError(f"nothing called {prefix}… was recorded: 'make refs CHAPTER={slug}' records it")
        return found

    def recorded(self, name):
        """The one recorded value or interval called `name`; see :meth:`recorded_all`."""
        found = self.recorded_all(name)
        if "" not in found:
            raise results.ResultError(f"{name!r} was not recorded; there are {', '.join(name + n for n in found)}")
        return found[""]

    def table(self, frame, caption: str):
        """Show a table with a caption that says what was done, on what, how often."""
        from IPython.display import display

        shown = frame.to_html().replace(">", f">\n  <caption>{html.escape(caption)}</caption>", 1)
        display({"text/html": shown, "text/plain": f"{caption}\n{frame}"}, raw=True)

    @contextmanager
    def check(self, label):
        """Say whether what is asserted inside holds, for the exercise `label`. A wrong answer stops nothing."""
        from IPython.display import display

        said = "Right."
        try:
            yield
        except Exception as error:
            why = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            why = "there is a ... left to fill in" if "ellipsis" in why else why
            said = f"Not yet: {why or 'a check fails'}"
        told = {"label": label, "passed": said == "Right."}
        display({"text/plain": said}, raw=True, metadata={"check": told})

    def close(self):
        """Leave the provenance in the notebook and return it as a table: versions, seeds, data, commit."""
        import pandas as pd
        from IPython.display import display

        if self.reruns:
            origin = self.run.provenance() | accelerator(self.device)
        else:
            origin = results.latest(self.slug)["provenance"]
        display({"text/plain": ""}, raw=True, metadata={"provenance": origin})
        rows = {
            "profile": origin["profile"],
            "seeds": ", ".join(map(str, origin["seeds"])),
            "device": f"{origin.get('accelerator', origin['device'])} ({origin['machine']})",
            "versions": ", ".join(f"{k} {v}" for k, v in origin["versions"].items()),
            "data": ", ".join(f"{k} sha256 {v[:12]}…" for k, v in origin["data"].items()),
            "commit": origin["commit"],
            "date": origin["date"],
        }
        return pd.DataFrame({"value": rows}).rename_axis("what")


def setup(slug: str, *, profile: str = "auto", seed: int = 0, device: str = "auto") -> Chapter:
    """Prepare a notebook: profile, seeds, device, and the box that says what running it costs.

    Parameters
    ----------
    slug : str
        The page's one name: ``"baselines"`` for the lesson, ``"baselines-study"`` for the study.
    profile : {"auto", "smoke", "lesson", "full"}
        An explicit value wins, then the environment's ``BORROWED_PROFILE``, then ``lesson``; a study that is left at
        ``"auto"`` shows what was recorded.
    seed : int
        The first of the chapter's seeds; it also sets Python's, NumPy's and torch's generators.
    device : str
        ``"auto"`` takes an accelerator when there is one. Another value is meant for everything the notebook computes:
        it is left in the environment, as ``BORROWED_DEVICE``, where ``"auto"`` looks for it.

    Returns
    -------
    Chapter

    Raises
    ------
    ValueError
        If the profile is not known or the seed is not a whole number from 0 up.
    """
    import pandas as pd
    from IPython.display import HTML, display

    study = slug.endswith(STUDY)
    chosen = resolve_profile(profile, study)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed {seed!r} is not a whole number from 0 up")
    pd.set_option("display.max_colwidth", None)  # a table that cuts off a version or a hash says nothing
    if chosen == RECORDED:
        origin = results.latest(slug).get("provenance")
        if origin is None:
            name = slug.removesuffix(STUDY)
            raise results.ResultError(f"{slug} has no recorded run to show: 'make refs CHAPTER={name}' records one")
        sized, seeds, place = origin["profile"], tuple(origin["seeds"]), origin["device"]
        # What the page draws beside the recorded numbers is drawn alike every time; torch is not needed for it.
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  libraries draw from it
    else:
        from shared import load_triton
        from shared.train import resolve_device, seed_everything
        from shared.train.settings import DEVICE_VARIABLE

        load_triton()
        seed_everything(seed)
        sized, seeds, place = chosen, tuple(range(seed, seed + SEEDS[chosen])), str(resolve_device(device))
        if device != "auto":
            os.environ[DEVICE_VARIABLE] = place
    chapter = Chapter(slug, chosen, seed, seeds, place, results.Run(slug, sized, seeds, place))
    display(HTML(_box(chapter)))
    return chapter


def accelerator(device: str) -> dict:
    """The accelerator's name and, of a CUDA one, the most memory that torch took of it here, in MiB; empty on a CPU."""
    if device == "cpu":
        return {}
    import torch

    place = torch.device(device)
    if place.type != "cuda":
        return {"accelerator": place.type}
    peak = torch.cuda.max_memory_reserved(place)
    return {"accelerator": torch.cuda.get_device_name(place), "peak_gpu_mib": round(peak / 2**20)}


def _box(chapter: Chapter) -> str:
    """The "run this" box: what was measured when the page last ran at this profile, beside this machine."""
    last = results.runs(chapter.slug).get(chapter.run.profile, {}).get("provenance", {})
    cost = f"{_minutes(last['seconds'])} on {last['machine']}" if last.get("seconds") else "not measured yet"
    if last.get("seconds") and last.get("peak_mib"):
        cost += f", {last['peak_mib'] / 1024:.1f} GiB of memory at most"
    if chapter.reruns:
        rows = {
            "Profile": f"{chapter.profile}: {DOES[chapter.profile]}",
            "Takes": cost,
            "Seeds": f"{len(chapter.seeds)}, from {chapter.seeds[0]}",
            "Runs on": f"{chapter.device}, {os.cpu_count()} cores, Python {platform.python_version()}",
        }
    else:
        rows = {
            "Shows": f"what was recorded on {last['date']} at the {last['profile']} profile: {DOES[last['profile']]}",
            "Seeds": f"{len(chapter.seeds)}, from {chapter.seeds[0]}",
            "Run again": f'set profile = "{last["profile"]}" in the first cell and run all; it took {cost}',
        }
    if chapter.profile == "full" and chapter.device == "cpu" and importlib.util.find_spec("torch"):
        rows["Note"] = "no accelerator was found; this profile may take hours here"
    cells = "".join(f"<dt>{k}</dt><dd>{html.escape(v)}</dd>" for k, v in rows.items())
    return f'<div class="bs-run" role="note" aria-label="What running this takes"><dl>{cells}</dl></div>'


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.1f} minutes"


def quiz(question: str, answers: dict[str, tuple[bool, str]], *, name: str):
    """A multiple-choice question that works by mouse, keyboard and screen reader, without JavaScript.

    Parameters
    ----------
    question : str
        One sentence.
    answers : dict of answer to (is it right, why)
        Compute the truth from the chapter's numbers where you can, so that the key cannot go stale.
    name : str
        Unique on the page: it groups the radio buttons.

    Raises
    ------
    ValueError
        If there is not exactly one right answer, or fewer than two answers.
    """
    from IPython.display import HTML

    right = [a for a, (ok, _) in answers.items() if ok]
    if len(answers) < 2 or len(right) != 1:
        raise ValueError(f"quiz {name!r} needs at least two answers and exactly one that is right; it has {len(right)}")
    items = []
    for i, (answer, (ok, why)) in enumerate(answers.items()):
        key = f"quiz-{name}-{i}"
        items.append(
            f'<div class="bs-answer"><input type="radio" name="quiz-{name}" id="{key}" aria-describedby="{key}-why">'
            f'<label for="{key}">{html.escape(answer)}</label>'
            f'<p class="bs-why {"bs-right" if ok else "bs-wrong"}" id="{key}-why">'
            f"<strong>{'Yes.' if ok else 'No.'}</strong> {html.escape(why)}</p></div>"
        )
    style = (
        "<style>.bs-quiz .bs-why{display:none;margin:.2rem 0 .6rem 1.7rem}"
        ".bs-quiz input:checked~.bs-why{display:block}</style>"
    )
    legend = f"<legend>{html.escape(question)}</legend>"
    return HTML(f'{style}<fieldset class="bs-quiz">{legend}{"".join(items)}</fieldset>')
