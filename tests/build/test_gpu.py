"""Runs on a named device: kept apart, compared with what is stored of a CPU, and resumed chapter by chapter."""

import json
import os

import pytest

import shared.train
from book import execute, gpu, notebooks, outputs
from book.notebooks import BookError


@pytest.fixture
def stored(mini, change):
    """Alpha with a record and a checked output that are stored as a CPU's; returns a way to change both."""
    alpha = notebooks.chapters(["alpha"], mini)[0]
    change(alpha.text, 'scored 0.75"', 'on {device} scored 0.75"')
    results = mini / "book/results/alpha.json"
    results.parent.mkdir()

    def store(device, output, record):
        nb = notebooks.make(alpha, mini)
        checked = next(c for c in notebooks.code_cells(nb) if notebooks.CHECKED in notebooks.tags(c))
        text = f"'profile smoke on {device} scored {output}'"
        notebooks.store_outputs(checked, [{"output_type": "execute_result", "data": {"text/plain": text}}])
        notebooks.write(alpha.notebook, notebooks.dump(nb))
        results.write_text(
            json.dumps({"profiles": {"smoke": {"records": {"score": {"name": "score", "value": record}}}}})
        )

    return store


def test_run_compare_keep_and_go_on(mini, change, stored, monkeypatch, capsys):
    """One story: both run and agree within the wider tolerances; nothing runs twice; a number too far off is named."""
    monkeypatch.setattr(shared.train, "resolve_device", lambda device: "cuda:0")
    for name in ("KERAS_BACKEND", "BORROWED_DEVICE", "KERAS_TORCH_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    stored("cuda:0", 0.8, 0.9)
    before = (mini / "book/results/alpha.json").read_bytes()
    code = "import os\nprint(*(os.environ[n] for n in ('BORROWED_DEVICE', 'KERAS_BACKEND', 'KERAS_TORCH_DEVICE')))"
    change(mini / "chapters/02-beta/beta.md", "x = 1", f"{code}\nx = 1")
    gpu.run(None, "smoke", "auto", root=mini)
    said = capsys.readouterr().out
    assert "01-alpha  ran in" in said and "1 cells and 1 records: agree with what is stored" in said
    assert "02-beta" in said and "nothing is stored to compare it with" in said and "on the CPU" not in said
    folder = mini / "_build/gpu/cuda-0/smoke"
    assert "cuda:0 torch cuda:0" in (folder / "02-beta/beta.ipynb").read_text()
    report = json.loads((folder / "01-alpha/alpha.json").read_text())
    assert report["records"]["score"]["value"] == 0.75 and report["minutes"] > 0 and report["differences"] == []
    assert report["compared"] == {"cells": 1, "records": 1, "share": gpu.SHARE, "wider": gpu.WIDER}
    assert not (mini / "_build/executed").exists() and (mini / "book/results/alpha.json").read_bytes() == before
    alpha = notebooks.chapters(["alpha"], mini)[0]
    assert not execute.is_current(alpha, "smoke", mini) and execute.is_current(alpha, "smoke", mini, "cuda:0")

    stored("cuda:0", 0.9, 1.5)
    with pytest.raises(BookError, match="differ from what is stored: 01-alpha"):
        gpu.run(None, "smoke", "auto", root=mini)
    said = capsys.readouterr().out
    assert said.startswith("01-alpha  unchanged\n") and "02-beta  unchanged" in said, (
        "a finished chapter is compared anew"
    )
    assert "2 differences\n    the cell" in said and "the number 0.9 became 0.75; 0.09 is allowed" in said
    assert len(json.loads((folder / "01-alpha/alpha.json").read_text())["differences"]) == 2

    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert not execute.is_current(alpha, "smoke", mini, "cuda:0"), "another back end is another run"


def test_on_a_cpu_it_says_so_and_a_failure_stops_no_other(mini, change, stored, capsys):
    stored("cpu", 0.75, 0.75)
    change(mini / "chapters/01-alpha/alpha.md", "list(range(3))", "1 / 0")
    with pytest.raises(BookError, match="failed: 01-alpha"):
        gpu.run(None, "smoke", "cpu", root=mini)
    said = capsys.readouterr().out
    assert said.startswith("as asked: the chapters run on the CPU") and "02-beta  ran in" in said
    assert "_build/gpu/cpu/smoke/01-alpha/alpha.failed.ipynb" in said
    assert (mini / "_build/gpu/cpu/smoke/02-beta/beta.json").exists()


def test_the_cpu_is_all_that_a_run_there_sees(monkeypatch):
    assert execute.variables("") == {}
    seen = execute.variables("cpu")
    assert seen["CUDA_VISIBLE_DEVICES"] == "" and seen["JAX_PLATFORMS"] == seen["BORROWED_DEVICE"] == "cpu"
    assert "KERAS_BACKEND" not in seen, "the CPU's back end is the usual one"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert execute.variables("cuda")["KERAS_BACKEND"] == "jax"
    assert {"BORROWED_DEVICE", "KERAS_TORCH_DEVICE"}.isdisjoint(os.environ)


def test_the_share_is_wider_than_the_usual_one():
    assert outputs.text_difference("score 0.80", "score 0.74") and not outputs.text_difference(
        "0.80", "0.74", gpu.SHARE
    )
    assert outputs.text_difference("score 0.80", "score 0.70", gpu.SHARE)


def test_the_summary_says_where_how_long_and_how_much():
    origin = {"device": "cuda", "accelerator": "NVIDIA T4", "peak_gpu_mib": 812}
    compared = {"cells": 4, "records": 91}
    report = {"provenance": origin, "minutes": 1.25, "compared": compared, "differences": []}
    assert gpu.summary(report) == (
        "NVIDIA T4, 1.25 minutes, 812 MiB of its memory; 4 cells and 91 records: agree with what is stored"
    )
