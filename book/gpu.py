"""The chapters on an accelerator: each is run there, compared with what is stored of a CPU, and kept beside the report.

``_build/gpu/<device>/<profile>/NN-slug/`` holds the executed notebook and ``slug.json``: provenance with the device's
name, minutes and peak memory, the records, and what differs. The numbers of ``book/results/`` stay as they are. A
chapter that did not change is not run again. On a CPU the same happens, on the CPU.
"""

from __future__ import annotations

import json
from pathlib import Path

from book import execute, notebooks, outputs
from book.notebooks import CHECKED, ROOT, BookError, Page, code_cells, source, tags

# Sums in another order, kernels and random numbers of its own carry a training to other weights, as another seed does.
# A number of a checked output may differ by a tenth; a record by three times what another CPU is allowed, or it lies in
# the stored interval.
SHARE, WIDER = 0.1, 3


def run(only=None, profile="lesson", device="auto", force=False, root: Path = ROOT) -> None:
    """Run the chapters on a device, one after the other, and report each when it has run.

    Raises
    ------
    BookError
        After the last chapter, naming those that failed and those that differ from what is stored.
    """
    from shared.train import resolve_device

    place = str(resolve_device(device))
    if place == "cpu":
        said = "as asked" if device == "cpu" else "no accelerator was found"
        print(f"{said}: the chapters run on the CPU, as they would on an accelerator", flush=True)
    failed, different = [], []
    for page in notebooks.pages(only, root):
        if execute.run([page], profile, 1, root, force, measure=True, device=place):
            failed.append(page.name)
            continue
        report = keep(page, profile, place, root)
        different += [page.name] if report["differences"] else []
        print("\n    ".join([f"{page.name}  {summary(report)}", *report["differences"]]), flush=True)
    said = [f"failed: {', '.join(failed)}"] if failed else []
    said += [f"differ from what is stored: {', '.join(different)}"] if different else []
    if said:
        raise BookError("; ".join(said))


def keep(page: Page, profile: str, device: str, root: Path = ROOT) -> dict:
    """Compare a chapter's executed copy, write ``slug.json`` beside it, and return what that holds."""
    from shared import results

    path = execute.executed(page, profile, root, device)
    found = results.from_notebook(path)
    stored = notebooks.results(page.stem, root).get(profile, {}).get("records")
    cells, differences = compare_cells(page, path) if profile == "smoke" else (0, [])
    if stored:
        differences = differences + results.compare(found["records"], stored, WIDER)
    report = {
        **found,
        "minutes": round(found["provenance"].get("seconds", 0) / 60, 2),
        "compared": {"cells": cells, "records": len(stored or {}), "share": SHARE, "wider": WIDER},
        "differences": differences,
    }
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    notebooks.write(path.with_suffix(".json"), text.encode())
    return report


def compare_cells(page: Page, path: Path) -> tuple[int, list[str]]:
    """The checked cells against the outputs stored in the chapter's notebook, which are of the smoke profile.

    Returns
    -------
    tuple
        How many cells were compared, and what differs beyond the larger of :data:`SHARE` and the cell's own tolerance.
    """
    if not page.notebook.exists():
        return 0, []
    new = {source(c): c["outputs"] for c in code_cells(notebooks.load(path))}
    stored = [c for c in code_cells(notebooks.load(page.notebook)) if CHECKED in tags(c) and c["outputs"]]
    stored = [c for c in stored if source(c) in new]
    said = []
    for cell in stored:
        share = max(SHARE, outputs.tolerance_of(tags(cell)) or 0)
        begins = source(cell).strip().splitlines()[0]
        said += [f"the cell {begins!r}: {p}" for p in outputs.differences(new[source(cell)], cell["outputs"], share)]
    return len(stored), said


def summary(report: dict) -> str:
    """``NVIDIA T4, 1.25 minutes, 812 MiB of its memory; 4 cells and 91 records: agree with what is stored``."""
    origin, compared = report["provenance"], report["compared"]
    parts = [origin.get("accelerator", origin.get("device", "cpu")), f"{report['minutes']:g} minutes"]
    parts += [f"{origin['peak_gpu_mib']} MiB of its memory"] if "peak_gpu_mib" in origin else []
    if not compared["cells"] + compared["records"]:
        return ", ".join(parts) + "; nothing is stored to compare it with"
    agree = f"{len(report['differences'])} differences" if report["differences"] else "agree with what is stored"
    return ", ".join(parts) + f"; {compared['cells']} cells and {compared['records']} records: {agree}"
