"""Run pages: each in its own process, skipped when nothing it depends on changed, with a line of progress.

An executed copy lies at ``_build/executed/<profile>/NN-slug/slug.ipynb`` and appears there only when it is whole, so
an interrupted run is simply run again. The copy of a page that failed is ``slug.failed.ipynb`` beside it.

Runs on a named device (``device="cuda"``) are kept apart, in ``_build/gpu/<device>/<profile>/``; without a name a page
takes the device it finds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from book import exercises, notebooks
from book.imports import reached
from book.notebooks import INJECTED, RECORDED, ROOT, STUDY, BookError, Page, code_cells, source, tags
from shared.results import latest

KEY_VERSION = "2"
INTERRUPTED = 130
SETS_UP = re.compile(r"^book = setup\(", re.M)
QUOTES = re.compile(r"\.recorded(_all)?\(")
TWO_NEED = 6 * 2**30  # bytes; a chapter's peak is about 2 GiB
ALLOWANCE = Path("/sys/fs/cgroup/memory.max")  # a container may be allowed less than the machine has


def executed(page: Page, profile: str, root: Path = ROOT, device: str = "") -> Path:
    """Where the page's executed copy lies."""
    place = root / "_build" / Path("gpu", device.replace(":", "-")) if device else root / "_build" / "executed"
    return place / profile / page.folder.name / f"{page.stem}.ipynb"


def variables(device: str) -> dict[str, str]:
    """What must be in the environment of a kernel for every library to compute on a device; empty without one.

    On an accelerator Keras runs on torch, which is known to see it, unless ``KERAS_BACKEND`` says otherwise: the
    TensorFlow of the pinned set computes on the CPU alone.
    """
    if not device:
        return {}
    if device == "cpu":
        return {
            "BORROWED_DEVICE": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
            "JAX_PLATFORMS": "cpu",
            "KERAS_TORCH_DEVICE": "cpu",
        }
    keras = os.environ.get("KERAS_BACKEND", "torch")
    return {"BORROWED_DEVICE": device, "KERAS_TORCH_DEVICE": device, "KERAS_BACKEND": keras}


def key(page: Page, profile: str, root: Path = ROOT, device: str = "") -> str:
    """What an execution depends on, as a hash: code cells, profile, the modules reached, data, the pinned set, Python.

    Prose is not part of it. What was recorded is, where the page shows it, and so is what is tried of its exercises.
    """
    digest = hashlib.sha256(f"{KEY_VERSION} {profile} {sys.version_info[:2]}".encode())
    nb = notebooks.read(page)
    code = [source(c) for c in code_cells(nb)]
    for cell in code_cells(nb):
        digest.update(f"{source(cell)}\0{sorted({'parameters', 'raises-exception'} & set(tags(cell)))}\0".encode())
    if profile == "smoke":
        digest.update(repr([(task.label, task.checks, task.wrong) for task in notebooks.tasks(page)]).encode())
    for path in reached("\n".join(code), root):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    digest.update(data_digest(nb["metadata"]["book"].get("data", []), root).encode())
    constraints = root / "constraints.txt"
    digest.update(constraints.read_bytes() if constraints.exists() else b"")
    shown = [latest(page.stem, root / "book" / "results")] if profile == RECORDED else []
    if profile == RECORDED or QUOTES.search("\n".join(code)):
        other = page.slug if page.study else page.slug + STUDY
        shown.append(latest(other, root / "book" / "results").get("records"))
    digest.update(json.dumps(shown, sort_keys=True).encode() if shown else b"")
    if device:
        keras = variables(device).get("KERAS_BACKEND", os.environ.get("KERAS_BACKEND"))
        digest.update(f"{device} {keras}".encode())
    return digest.hexdigest()


def data_digest(names: list[str], root: Path = ROOT) -> str:
    """Hash of the named data sets: their catalogue entries and their bundled files.

    Raises
    ------
    BookError
        If a name is not in the catalogue.
    """
    digest = hashlib.sha256()
    catalogue = root / "data" / "catalog.yml"
    entries = yaml.safe_load(catalogue.read_text(encoding="utf-8")) if names and catalogue.exists() else {}
    for name in names:
        if name not in entries:
            raise BookError(f"a chapter names the data set {name!r}, which data/catalog.yml does not have")
        digest.update(json.dumps([name, entries[name]], sort_keys=True, default=str).encode())
        for path in sorted((root / "data" / name).glob("*")):
            if path.is_file() and path.suffix not in (".md", ".py", ".pyc"):
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def is_current(page: Page, profile: str, root: Path = ROOT, device: str = "") -> bool:
    """True when a whole executed copy exists and nothing it depends on changed."""
    path = executed(page, profile, root, device)
    try:
        made = notebooks.load(path)["metadata"].get("book", {}).get("key") if path.exists() else None
        return made is not None and made == key(page, profile, root, device)
    except BookError:
        return False


def expected_seconds(page: Page, profile: str, root: Path = ROOT, device: str = "") -> float | None:
    """How long the page took when it last ran here, else when its results were recorded, else None."""
    path = executed(page, profile, root, device)
    if path.exists():
        try:
            if seconds := notebooks.load(path)["metadata"].get("book", {}).get("seconds"):
                return seconds
        except BookError:
            pass
    return notebooks.results(page.stem, root).get(profile, {}).get("provenance", {}).get("seconds")


# --- one page, in a process of its own ----------------------------------------------------------------------------


def run_here(page: Page, profile: str, report=lambda **event: None, root: Path = ROOT, device: str = "") -> dict:
    """Execute one page in this process with papermill.

    Returns
    -------
    dict
        ``ok``, ``seconds``, ``peak_mib``; ``cpu_seconds``, processor time in all, and ``cpu_after_setup``, that of the
        kernel after the cell that sets the page up, so without its imports. After a failure ``ok``, ``cell``, ``of``,
        ``lines``, ``error``, ``left``.
    """
    import nbformat
    import papermill
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError

    watch = {"cell": 0, "peak": 0.0, "set up": 0.0, "cpu": 0.0}
    nb = notebooks.make(page, root)
    total = len(code_cells(nb))
    if profile == "smoke":
        nb["cells"] = exercises.with_trials(nb["cells"], notebooks.tasks(page))

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
            return _client(nb_man, kernel_name, watch, total, report).execute()

    papermill_engines.register("reporting", Engine)
    goal = executed(page, profile, root, device)
    goal.parent.mkdir(parents=True, exist_ok=True)
    _forget_dead(goal)
    running = goal.with_name(f"{page.stem}.running-{os.getpid()}.ipynb")
    failed = goal.with_name(f"{page.stem}.failed.ipynb")
    os.environ |= {"BORROWED_PROFILE": profile, **variables(device)}
    wanted = key(page, profile, root, device)
    parameters = {"profile": profile} | ({"device": device} if device else {})
    has_parameters = any("parameters" in tags(c) for c in code_cells(nb))
    started = time.monotonic()
    try:
        papermill.execute_notebook(
            nbformat.from_dict(json.loads(notebooks.dump(nb))),
            running,
            parameters=parameters if has_parameters else None,
            engine_name="reporting",
            progress_bar=False,
            cwd=str(page.folder),
        )
    except PapermillExecutionError as e:
        running.replace(failed)
        lines = [line for line in e.source.splitlines() if line.strip()][:3]
        where = failed.relative_to(root).as_posix()
        error = f"{e.ename}: {e.evalue}".strip()
        return {"ok": False, "cell": watch["cell"], "of": total, "lines": lines, "error": error, "left": where}
    except BaseException:
        # A kernel that died or a key press: what was reached is kept for whoever wants to look.
        if running.exists():
            running.replace(failed)
        raise
    done = notebooks.load(running)
    # The kernel has ended, so its processor time is among this process's children's.
    measured = {"seconds": round(time.monotonic() - started, 1), "cpu_seconds": round(sum(os.times()[:4]), 1)}
    measured["cpu_after_setup"] = round(watch["cpu"] - watch["set up"], 1)
    measured["peak_mib"] = round(watch["peak"])
    done["metadata"]["book"] = {**done["metadata"].get("book", {}), **measured, "key": wanted, "profile": profile}
    notebooks.write(goal, notebooks.dump(done))
    running.unlink()
    failed.unlink(missing_ok=True)
    return {"ok": True, **measured}


def _client(nb_man, kernel_name, watch, total, report):
    """A papermill client that says which cell runs and notes the kernel's peak memory after each."""
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.log import logger

    class Client(PapermillNotebookClient):
        def execute_cell(self, cell, cell_index, *args, **kwargs):
            counted = cell.cell_type == "code" and not INJECTED & set(cell.metadata.get("tags", []))
            if counted:
                watch["cell"] += 1
                report(cell=watch["cell"], of=total)
            try:
                return super().execute_cell(cell, cell_index, *args, **kwargs)
            finally:
                if counted:
                    pid = getattr(self.km.provisioner, "pid", None)
                    watch["peak"] = max(watch["peak"], peak_mib(pid))
                    watch["cpu"] = max(watch["cpu"], cpu_seconds(pid))
                    if SETS_UP.search(cell.source):
                        watch["set up"] = watch["cpu"]

    return Client(nb_man, kernel_name=kernel_name, startup_timeout=120, timeout=None, log=logger)


def peak_mib(pid: int | None) -> float:
    """Peak resident memory of a process in MiB, or what it holds now where the system keeps no peak; 0 when gone."""
    import psutil

    if pid is None:
        return 0.0
    try:
        status = Path(f"/proc/{pid}/status")
        if status.exists():
            return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024
        memory = psutil.Process(pid).memory_info()
        return getattr(memory, "peak_wset", memory.rss) / 2**20
    except (psutil.Error, OSError, TypeError):
        return 0.0


def cpu_seconds(pid: int | None) -> float:
    """Processor time that a process has taken; 0 when it is gone."""
    import psutil

    try:
        times = psutil.Process(pid).cpu_times()
        return times.user + times.system
    except (psutil.Error, TypeError):
        return 0.0


def _forget_dead(goal: Path):
    """Remove what earlier runs left behind when they were killed."""
    for path in goal.parent.glob("*.running-*.ipynb"):
        if not _runs(int(re.search(r"running-(\d+)", path.name)[1])):
            path.unlink(missing_ok=True)


def _runs(pid):
    """True when the process is a live run of a page, and not another one with its number or one that nobody buried."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "book.execute" in process.cmdline()
    except psutil.Error:
        return False


# --- all pages ---------------------------------------------------------------------------------------------------


class Progress:
    """One line for each page that runs, drawn over itself on a terminal, written now and then elsewhere."""

    EVERY = 15.0

    def __init__(self, stream=None, clock=time.monotonic):
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self.clock = clock
        self.state: dict[str, dict] = {}
        self.lock = threading.Lock()

    def start(self, name, of, expected):
        with self.lock:
            self.state[name] = {"cell": 0, "of": of, "began": self.clock(), "expected": expected, "said": self.clock()}
            self._show(name, force=True)

    def step(self, name, cell, of):
        with self.lock:
            self.state[name] |= {"cell": cell, "of": of}
            self._show(name)

    def tick(self):
        """Redraw the elapsed time on a terminal."""
        with self.lock:
            if self.live and self.state:
                self._draw()

    def end(self, name, said):
        with self.lock:
            self.state.pop(name, None)
            self._line(said)

    def say(self, said):
        with self.lock:
            self._line(said)

    def describe(self, name) -> str:
        """``02-baselines  cell 13/41  0:23 of about 1:40``."""
        s = self.state[name]
        about = f" of about {clock(s['expected'])}" if s["expected"] else ", not timed before"
        return f"{name}  cell {s['cell']}/{s['of']}  {clock(self.clock() - s['began'])}{about}"

    def _show(self, name, force=False):
        now = self.clock()
        if self.live:
            self._draw()
        elif force or now - self.state[name]["said"] >= self.EVERY:
            self.state[name]["said"] = now
            self._line(self.describe(name))

    def _draw(self):
        text = "   ".join(self.describe(n) for n in self.state)
        self.stream.write("\r\x1b[K" + text[: _width() - 1])
        self.stream.flush()

    def _line(self, said):
        self.stream.write(("\r\x1b[K" if self.live else "") + said + "\n")
        if self.live and self.state:
            self._draw()
        self.stream.flush()


def _width():
    try:
        return os.get_terminal_size().columns
    except OSError:
        return 100


def clock(seconds: float) -> str:
    """Seconds as ``m:ss``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fitting_jobs() -> int:
    """How many chapters run at a time unless somebody says: two where there are two cores and memory for both."""
    import psutil

    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):
        free = min(free, int(ALLOWANCE.read_text()))
    return 2 if cores() > 1 and free >= TWO_NEED else 1


def run(
    only=None, profile="lesson", jobs=1, root: Path = ROOT, force=False, stream=None, measure=False, device=""
) -> list[str]:
    """Run the pages that changed, each in a process of its own, and return the names of those that failed.

    `only` holds names (:func:`book.notebooks.pages`) or pages. A study shows what was recorded; with `measure` it runs
    its experiments at `profile`.

    With a `device` they are told to compute there, and kept apart from the other runs.

    Raises
    ------
    KeyboardInterrupt
        After the running pages were told to stop. Finished pages stay finished.
    """
    progress = Progress(stream)
    pages = only if only is not None and all(isinstance(p, Page) for p in only) else notebooks.pages(only, root)
    chosen = {page: profile if measure else page.shown_at(profile) for page in pages}
    waiting = [p for p, at in chosen.items() if force or not is_current(p, at, root, device)]
    if jobs > 1:
        # The longest first, so that none of them is left to run alone at the end.
        waiting.sort(key=lambda p: expected_seconds(p, chosen[p], root, device) or math.inf, reverse=True)
    for page in chosen:
        if page not in waiting:
            progress.say(f"{page.name}  unchanged")
    # The lesson's matrices are small: with a second thread the ladder took twice as long on two shared cores, because
    # threads that wait for each other spin. Only the full profile is large enough to gain from more.
    jobs = max(1, min(jobs, len(waiting)))
    threads = max(1, cores() // jobs) if profile == "full" else 1
    env = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", **os.environ, "BORROWED_PROFILE": profile}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    failed: list[str] = []
    children: list[subprocess.Popen] = []
    stop = threading.Event()

    def one(page: Page):
        if stop.is_set():
            return
        at = chosen[page]
        progress.start(page.name, len(code_cells(notebooks.read(page))), expected_seconds(page, at, root, device))
        # Our own packages, whatever lies in the root of the pages (-P).
        words = [sys.executable, "-P", "-m", "book.execute", str(page.text), at, str(root), device]
        # The child's errors are shown only when it ends without a word, so its log cannot garble the line.
        end, noise = None, []
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=env, cwd=root
        ) as child:
            children.append(child)
            drain = threading.Thread(target=noise.extend, args=(child.stderr,), daemon=True)
            drain.start()
            for line in child.stdout:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if "ok" in event:
                    end = event
                elif "cell" in event:
                    progress.step(page.name, event["cell"], event["of"])
            drain.join()
        if stop.is_set():
            return
        if end and end["ok"]:
            progress.end(page.name, f"{page.name}  ran in {clock(end['seconds'])}, peak {end['peak_mib']} MiB")
            return
        failed.append(page.name)
        progress.end(page.name, _explain(page, at, end, "".join(noise), root))

    with ThreadPoolExecutor(jobs) as pool:
        try:
            futures = [pool.submit(one, p) for p in waiting]
            while not all(f.done() for f in futures):
                time.sleep(0.2)
                progress.tick()
            for future in futures:
                future.result()
        except BaseException:
            stop.set()
            for child in children:
                child.terminate()
            for future in futures:
                future.cancel()
            if progress.live:
                progress.stream.write("\n")
            raise
    return sorted(failed)


def _explain(page, profile, end, noise, root):
    if end is None or "cell" not in end:
        what = (end or {}).get("error") or (noise.strip().splitlines() or ["the process ended without a word"])[-1]
        return f"{page.name}  FAILED before or between cells: {what}"
    left = f"  The notebook up to there: {end['left']}" if end.get("left") else ""
    code = "\n".join(f"      {line}" for line in end["lines"])
    return (
        f"{page.name}  FAILED in code cell {end['cell']} of {end['of']} at profile {profile}, which begins\n"
        f"{code}\n  with {end['error']}\n{left}"
    ).rstrip()


def _main(text: str, profile: str, root: str, device: str = "") -> int:
    def say(**event):
        out.write(json.dumps(event) + "\n")
        out.flush()

    # Whatever a library prints must not reach the pipe the parent reads.
    out, sys.stdout = sys.stdout, sys.stderr
    page = Page.of(Path(text))
    try:
        end = run_here(page, profile, say, Path(root), device)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as e:
        failed = executed(page, profile, Path(root), device).with_name(f"{page.stem}.failed.ipynb")
        left = f"; the notebook up to there: {failed.relative_to(Path(root)).as_posix()}" if failed.exists() else ""
        say(ok=False, error=f"{type(e).__name__}: {e}{left}")
        return 1
    say(**end)
    return 0 if end["ok"] else 1


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
