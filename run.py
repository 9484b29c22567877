#!/usr/bin/env python3
"""Set up the environment and do one job: ``python3 run.py JOB``. Standard library only, for any system.

    book    run the chapters that changed and build the book: open _build/html/index.html
    test    run every check
    lab     open copies of the chapters in JupyterLab: work/ is yours, nothing overwrites what you change there
    full    run one chapter's published protocol (--chapter NAME), best on an accelerator
    gpu     run chapters on the accelerator and compare them with what is stored: _build/gpu/
    check   the static checks, in seconds
    new     start a method: module, test, lesson, study and API page, as a draft (--method NAME)
    refs    run at smoke and lesson, and store the checked outputs and the numbers
    lock    write constraints.txt anew
    clean   remove what was built (with --all, the environment too)

Options: --profile smoke|lesson|full, --chapter NAME, --method NAME, --jobs N, --device NAME; or the variables PROFILE,
CHAPTER, METHOD, JOBS, DEVICE.
PYTHON=python3.13 names another Python; its environment is .venv, or .venv-3.13 where .venv is another version's.
N chapters run at a time; without a word book and test run two, where there are two cores and 6 GiB of memory free.
"""
# Python older than 3.11 must get far enough to say so, so this file runs, up to the check of the version, on 3.6.

import argparse
import contextlib
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST, NEWEST = (3, 11), (3, 13)
EXTRAS = "book,test,lab,single-cell,sweep,distributed,keras,tune,explain"
JOBS = ("book", "test", "lab", "full", "gpu", "check", "new", "refs", "lock", "clean")
# Where Pythons lie that the path may not name: pyenv's, uv's, those below /opt (Homebrew's too), python.org's.
HOMES = (
    "~/.pyenv/versions/*/bin/python3",
    "~/.pyenv/pyenv-win/versions/*/python.exe",
    "~/.local/share/uv/python/*/bin/python3",
    "~/AppData/Roaming/uv/python/*/python.exe",
    "~/AppData/Local/Programs/Python/Python3*/python.exe",
    "/opt/*/bin/python3",
    "/opt/*/bin/python3.*[0-9]",
    "/opt/*/*/bin/python3",
    "/usr/local/bin/python3.*[0-9]",
    "/Library/Frameworks/Python.framework/Versions/3.*/bin/python3",
)
NEEDS_GIB = 5
STATIC = ["tests/chapters", "tests/test_house.py", "tests/test_environment.py", "tests/test_claims.py"]
NO_NETWORK = (
    "NewConnectionError|Failed to establish a new connection|name resolution|getaddrinfo|Network is unreachable"
    "|Connection refused|ProxyError|ConnectTimeoutError|Read timed out|Max retries exceeded|Connection broken"
)


class Stop(Exception):
    """The job cannot go on; the message says what to do."""


def python_in(venv):
    """The interpreter inside an environment, on any system."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def version_problem(version):
    """Why this Python will not do, or None."""
    said = ".".join(map(str, version[:3]))
    span = "{}.{} to {}.{}".format(*OLDEST, *NEWEST)
    if tuple(version[:2]) < OLDEST:
        return f"Python {said} is too old: Python {span} is needed"
    if tuple(version[:2]) > NEWEST:
        return f"Python {said} is too new: its packages are not all published yet, and Python {span} is needed"
    return None


def version_of(words, needs="sys"):
    """The version of a Python, as (3, 12), and its path; (None, None) when it does not run or lacks a module."""
    code = f"import sys, {needs}; print(sys.version_info[0], sys.version_info[1], sys.executable)"
    try:
        said = subprocess.check_output([*words, "-c", code], stderr=subprocess.DEVNULL, universal_newlines=True)
        major, minor, path = said.strip().split(" ", 2)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None, None
    return (int(major), int(minor)), path


def pythons():
    """The Pythons on this machine that will do, as version to path, newest first; the path is asked first."""
    wanted = [(OLDEST[0], minor) for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    asked = [[path] for path in (shutil.which("python{}.{}".format(*v)) for v in wanted) if path]
    if os.name == "nt":
        asked += [["py", "-{}.{}".format(*v)] for v in wanted]
    uv = os.environ.get("UV_PYTHON_INSTALL_DIR")
    homes = HOMES + ((os.path.join(uv, "*", "bin", "python3"),) if uv else ())
    asked += [[path] for home in homes for path in sorted(glob.glob(os.path.expanduser(home)), reverse=True)]
    found = {}
    for words in asked:
        # A name on the path may be an empty shim, so each is asked to run.
        version, path = version_of(words, "venv")
        if version in wanted:
            found.setdefault(version, path)
    return {v: found[v] for v in wanted if v in found}


def named_python(name):
    """The interpreter that ``PYTHON=`` names: a command, a path, or a version such as 3.13 wherever that lies."""
    path = shutil.which(name)
    if path and version_of([path])[0]:
        return path
    version = re.match(r"(?:python)?(3)\.(\d+)$", name)
    found = pythons()
    if version and tuple(map(int, version.groups())) in found:
        return found[tuple(map(int, version.groups()))]
    there = ", ".join("{}.{} ({})".format(*v, path) for v, path in found.items()) or "none that will do"
    raise Stop(f"PYTHON={name} does not run here. On this machine: {there}")


def venv_of(version):
    """The environment of a Python: ``.venv``, or ``.venv-3.13`` where ``.venv`` is that of another version."""
    plain = ROOT / ".venv"
    try:
        made = re.search(r"^version\w*\s*=\s*(\d+)\.(\d+)", (plain / "pyvenv.cfg").read_text(), re.M)
    except OSError:
        return plain
    if made and tuple(map(int, made.groups())) != tuple(version[:2]):
        return ROOT / ".venv-{}.{}".format(*version[:2])
    return plain


def fingerprint(extras):
    """Changes when the environment would."""
    digest = hashlib.sha256(extras.encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def missing_parts():
    """The advice when Python came without what makes environments, or None."""
    try:
        import ensurepip
        import venv

        assert ensurepip and venv
    except ImportError as error:
        package = "python{}.{}-venv".format(*sys.version_info[:2])
        return (
            f"this Python cannot make an environment ({error}).\n"
            f"  Debian, Ubuntu: sudo apt-get install {package}\n"
            "  elsewhere: install Python from python.org or conda, which bring it along"
        )
    return None


def ready(extras=EXTRAS, stamp=".ready"):
    """Make or complete the environment; does nothing when it matches pyproject.toml and constraints.txt."""
    venv = venv_of(sys.version_info)
    stamp = venv / stamp
    wanted = fingerprint(extras)
    python = python_in(venv)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    if venv.exists() and not works(python):
        print("The environment is not whole; making it again.", flush=True)
        shutil.rmtree(str(venv))
    if not venv.exists():
        problem = missing_parts()
        if problem:
            raise Stop(problem)
        print(f"Making the environment in {venv.name} ...", flush=True)
        make_venv(venv)
    print("Installing packages (some minutes the first time; if you stop it, the next call goes on) ...", flush=True)
    install(python, extras)
    stamp.write_text(wanted)
    return python


def works(python):
    """True when the environment's Python runs and has pip; false after an interrupted start."""
    if not python.exists():
        return False
    return (
        subprocess.call([str(python), "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        == 0
    )


def make_venv(venv):
    child = subprocess.run(
        [sys.executable, "-m", "venv", str(venv)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if child.returncode:
        shutil.rmtree(str(venv), ignore_errors=True)
        if "No space left" in child.stdout:
            raise Stop(disk_full())
        package = "python{}.{}-venv".format(*sys.version_info[:2])
        raise Stop(f"python -m venv failed; on Debian and Ubuntu: sudo apt-get install {package}\n{child.stdout}")


def install(python, extras):
    """Install the package in place with its extras, at the pinned versions, saying how far it is."""
    # The variable would keep pip from compiling, and every later import would compile again: many seconds each.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    words = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--prefer-binary", "--no-color"]
    words += ["--progress-bar", "off", "-c", "constraints.txt", "-e", ".[" + extras + "]"]
    live = sys.stdout.isatty()
    said, found, shown = [], 0, time.time()
    with subprocess.Popen(
        words, cwd=str(ROOT), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        for line in child.stdout:
            said.append(line)
            found += line.startswith("Collecting ")
            now = "installing them" if line.startswith("Installing collected") else line.strip()
            if now.startswith(("Collecting ", "Downloading ", "installing", "Building ")) and (
                live or time.time() - shown > 15
            ):
                shown = time.time()
                text = f"  {found} packages; {now}"[:78]
                sys.stdout.write(f"\r\x1b[K{text}" if live else text + "\n")
                sys.stdout.flush()
    if live:
        sys.stdout.write("\r\x1b[K")
    if child.returncode:
        sys.stderr.write("".join(said[-15:]))
        raise Stop(why("".join(said)))


def why(said):
    """One clear sentence for what pip complained about."""
    if "No space left on device" in said or "Errno 28" in said or "not enough space on the disk" in said:
        return disk_full()
    if re.search(NO_NETWORK, said):
        return (
            "The package index could not be reached. Check the network (or the proxy settings), "
            "then run the same command again."
        )
    if "externally-managed" in said:
        return "pip refused to touch the system's Python: remove .venv and run the same command again."
    return "pip could not install the packages; its last words are above. Run the same command again to retry."


def disk_full():
    free = shutil.disk_usage(str(ROOT)).free / 2**30
    return (
        f"The disk is full: {free:.1f} GiB are free here and about {NEEDS_GIB} are needed (temporary files included).\n"
        "Free some space, or point TMPDIR at a larger disk, then run the same command again."
    )


def environment(**more):
    """Variables for a job: threads that wait without spinning, text in UTF-8."""
    env = dict(os.environ, PYTHONUTF8="1", **more)
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Compiled once on a first run, then read: without it every kernel start compiles again.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env


def call(python, *words, **more):
    """Run a module of the environment; returns its exit status."""
    return patient([str(python), "-m"] + [str(w) for w in words], cwd=str(ROOT), env=environment(**more))


def patient(words, last=False, **how):
    """Run a command; returns its exit status. A key press reaches the command too, which may end in peace.

    With `last` nothing comes after it, and how it ended after a key press is how this ends.
    """
    with subprocess.Popen(words, **how) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(30)
            if last and child.returncode is not None:
                return child.returncode
            raise
        finally:
            if child.poll() is None:
                child.terminate()


def build(python, job, a):
    words = ["book.build", job, "--profile", a.profile] + (["--jobs", a.jobs] if a.jobs else [])
    words += ["--device", a.device] if job == "gpu" else []
    return call(python, *words + (["--chapter", a.chapter] if a.chapter else []))


def steps(named, costs=None):
    """Run every step, then say which failed: a broken comma does not hide a broken number.

    Into `costs` goes what each took in CPU seconds, as ``name=seconds``.
    """
    failed = []
    for name, step in named:
        print("\n== " + name, flush=True)
        before = sum(os.times()[2:4])
        if step():
            failed.append(name)
        if costs is not None:
            costs.append(f"{name}={sum(os.times()[2:4]) - before:.1f}")
    print("\n" + ("FAILED: " + ", ".join(failed) if failed else "All checks passed."), flush=True)
    return 1 if failed else 0


def style(python):
    # Notebooks are generated, and code in the text keeps the columns its author lined up.
    only = ["--quiet", "--exclude", "*.ipynb,*.md", "."]
    return [
        ("style", lambda: call(python, "ruff", "check", *only)),
        ("layout", lambda: call(python, "ruff", "format", "--check", *only)),
    ]


def test(python, a):
    ready("peers", ".ready-peers")
    one = {"OMP_NUM_THREADS": "1"}
    smoke = argparse.Namespace(profile="smoke", jobs=a.jobs, chapter=a.chapter)
    workers = str(min(8, os.cpu_count() or 1))
    meter = ["-p", "book.budget", "--budget-step"]
    tests = ["pytest", "tests", "-n", workers, "--dist", "loadfile", *meter, "tests"]
    nbval = ["pytest", "chapters", "--nbval-lax", "-q", *meter, "stored outputs"]
    costs = []
    return steps(
        [
            *style(python),
            ("chapters at smoke", lambda: build(python, "run", smoke)),
            ("tests", lambda: call(python, *tests, **one)),
            ("stored outputs", lambda: none_collected(call(python, *nbval, BORROWED_PROFILE="smoke", **one))),
            ("budget", lambda: call(python, "book.budget", *costs)),
        ],
        costs,
    )


def none_collected(status):
    """pytest's 5 means that there was nothing to test, which is right while there are no chapters."""
    return 0 if status == 5 and not list(ROOT.glob("chapters/*/*.ipynb")) else status


def check(python, a):
    found = [p for p in STATIC if (ROOT / p).exists()]
    words = ["pytest", "-q", "-m", "not slow and not network and not browser", *found]
    return steps([*style(python), ("house rules", lambda: call(python, *words))])


def new(python, a):
    return call(python, "book.new", a.method)


def lab(python, a):
    """JupyterLab on the reader's copies, for this machine alone; one Ctrl-C ends it."""
    failed = build(python, "lab", a)
    if failed:
        return failed
    words = ["jupyterlab", "work", "-y", "--ServerApp.ip=127.0.0.1", *lab_options(os.environ)]
    try:
        return call(python, *words)
    except KeyboardInterrupt:
        print("\nJupyterLab ended. What you saved is in work/.", flush=True)
        return 0


def lab_options(env):
    """What Jupyter must be told on some machines: that root may run it, and that there is no browser to open."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    blind = sys.platform.startswith("linux") and not any(
        env.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "WSL_DISTRO_NAME")
    )
    return (["--allow-root"] if root else []) + (["--no-browser"] if blind else [])


def lock(python, a):
    """Resolve every extra once for the oldest Python, and write the versions without a machine's own suffixes."""
    ready("lock", ".ready-lock")
    out = ROOT / "constraints.txt"
    words = ["uv", "pip", "compile", "--quiet", "--no-annotate", "--no-header", "--no-emit-index-url", "--all-extras"]
    words += ["--python-version", "{}.{}".format(*OLDEST), "pyproject.toml"]
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    words += ["--no-emit-find-links", "--find-links", links] if links else []
    child = subprocess.run(
        [str(python), "-m", *words], cwd=str(ROOT), env=environment(), stdout=subprocess.PIPE, text=True
    )
    if child.returncode:
        return child.returncode
    pins = [re.sub(r"\+\w+", "", line) for line in child.stdout.splitlines()]
    pins = [p for p in pins if "==" in p and not re.match("nvidia-|cuda-|triton", p)]
    span = "{}.{} to {}.{}".format(*OLDEST, *NEWEST)
    head = f"# The one exact set the book is built with, for Python {span}: written by 'make lock', never by hand."
    out.write_text("\n".join([head, *pins]) + "\n")
    return 0


def clean(everything):
    """Remove what was built, and with `everything` the environments; work/ is the reader's."""
    environments = [p.name for p in ROOT.glob(".venv*")] if everything else []
    for name in ["_build", ".pytest_cache", ".ruff_cache", ".hypothesis", *environments]:
        shutil.rmtree(str(ROOT / name), ignore_errors=True)
    for top in ("book", "shared", "tests", "chapters", "data"):
        for cache in (ROOT / top).rglob("__pycache__"):
            shutil.rmtree(str(cache), ignore_errors=True)
    return 0


def another_python():
    """The Python to go on with where ``PYTHON=`` names one of another version or this one will not do, else None."""
    name, problem = os.environ.get("PYTHON"), version_problem(sys.version_info)
    if name:
        better = named_python(name)
        if version_of([better])[0] != tuple(sys.version_info[:2]):
            print(f"Going on with {better}", flush=True)
            return better
    if not problem:
        return None
    made = python_in(ROOT / ".venv")
    better = made if works(made) else next(iter(pythons().values()), None)
    if not better:
        raise Stop(problem + ". Install one, or name it: make PYTHON=python3.12")
    print(f"{problem}; going on with {better}", flush=True)
    return better


def main(words=None):
    parser = argparse.ArgumentParser(
        prog="run.py", usage="python3 run.py JOB [options]", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.description = __doc__
    parser.add_argument("job", choices=JOBS, metavar="JOB")
    parser.add_argument("--profile", default=os.environ.get("PROFILE") or "lesson", choices=("smoke", "lesson", "full"))
    parser.add_argument("--chapter", default=os.environ.get("CHAPTER") or None)
    parser.add_argument("--method", default=os.environ.get("METHOD") or None)
    parser.add_argument("--jobs", default=os.environ.get("JOBS") or None)
    parser.add_argument("--device", default=os.environ.get("DEVICE") or "auto", help="with gpu: auto, cpu, cuda, mps")
    parser.add_argument("--all", action="store_true", help="with clean: the environment too")
    a = parser.parse_args(words)
    if a.job == "clean":
        return clean(a.all)
    if a.job == "full" and not a.chapter:
        raise Stop(
            "Which chapter? For example: make full CHAPTER=baselines, or python3 run.py full --chapter baselines"
        )
    if a.job == "new" and not a.method:
        raise Stop("Which method? For example: make new METHOD=my_method, or python3 run.py new --method my_method")
    better = another_python()
    if better:
        # The other Python is asked for no third.
        env = {k: v for k, v in os.environ.items() if k != "PYTHON"}
        return patient([str(better), str(Path(__file__).resolve()), *(words or sys.argv[1:])], True, env=env)
    python = ready()
    jobs = {"test": test, "check": check, "new": new, "lab": lab, "lock": lock}
    return jobs[a.job](python, a) if a.job in jobs else build(python, a.job, a)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Stop as stop:
        sys.exit(f"\n{stop}")
    except KeyboardInterrupt:
        sys.exit("\nStopped. Run the same command again and it goes on from here.")
    except OSError as error:
        if error.errno == 28:
            sys.exit("\n" + disk_full())
        raise
