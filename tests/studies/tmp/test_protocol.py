"""The published protocol, end to end and at small size, on simulated files of the official layouts."""

import gzip

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from shared.data.catalogue import catalog
from shared.data.errors import DataError
from shared.data.sources import READERS
from shared.studies.tmp import protocol
from shared.studies.tmp.protocol import ISLETS, Protocol, Stage

CONFIG = Protocol(
    n_genes=24, widths=(8, 6), relation=(6,), tissue_size=16, class_size=20, n_way=3, k_shot=2, n_query=3, cells=6,
    bulk=Stage(8, 5e-3, 4), tumours=Stage(6, 5e-3, 2, 0.99), islets=Stage(6, 5e-3), log_every=3, eval_episodes=5,
    size_episodes=4, sizes=((4, 6), (3, 6), (3, 8)), repeats=(1, 2), device="cpu",
)  # fmt: skip
SYMBOLS = [f"G{i:02d}" for i in range(30)]


def profiles(seed, names, n_rows):
    """Counts of classes with means of their own over the 30 genes, and their labels."""
    means = np.random.default_rng(7).gamma(1, 20, (8, len(SYMBOLS)))[: len(names)]
    return np.random.default_rng(seed).poisson(np.repeat(means, n_rows, 0)), np.repeat(names, n_rows)


def write(path, lines):
    text = ("\n".join("\t".join(map(str, line)) for line in lines) + "\n").encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    return path


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A loader that reads small files, laid out as the official ones, by the catalogue's readers and options."""
    folder, files = tmp_path_factory.mktemp("official"), {}

    X, tissues = profiles(0, ["Lung", "Liver", "Spleen", "Colon", "Bladder"], 20)
    X, tissues = X[:-8], tissues[:-8]  # 12 samples of bladder are too few
    ids = [f"GTEX-{i:04d}-0001-SM-00001" for i in range(len(X))]
    genes = [[f"ENSG{99 - i:011d}.1", s] for i, s in enumerate(SYMBOLS)]  # in another order than the symbols
    table = [["#1.2"], [len(genes), len(ids)], ["Name", "Description", *ids]]
    table += [[*gene, *row] for gene, row in zip(genes, X.T, strict=True)]
    said = [["SAMPID", "SMTS", "SMTSD", "SMGEBTCH"], *([i, t, t, "A"] for i, t in zip(ids, tissues, strict=True))]
    files["gtex-v8"] = [write(folder / "tpm.gct.gz", table), write(folder / "attributes.txt", said)]

    X, cancers = profiles(1, ["cancer a", "cancer b", "cancer c", "cancer d"], 25)
    ids = [f"TCGA-OR-{i:04d}-01" for i in range(len(X))]
    table = [["sample", *ids], *([s, *row] for s, row in zip(SYMBOLS, np.log2(X.T + 1).round(4), strict=True))]
    kinds = np.where(np.arange(len(X)) % 25 == 0, "Solid Tissue Normal", "Primary Tumor")
    said = [["sample", "sample_type_id", "sample_type", "_primary_disease"]]
    said += [[i, "01", kind, cancer] for i, kind, cancer in zip(ids, kinds, cancers, strict=True)]
    files["tcga"] = [write(folder / "pancan.xena.gz", table), write(folder / "phenotype.tsv.gz", said)]

    parts = []
    for i, tech in enumerate(("inDrop1", "inDrop2", "celseq2", "smartseq2", "smarter", "fluidigmc1")):
        X, types = profiles(10 + i, ["alpha", "beta", "delta", "mast"], 14)
        names = pd.DataFrame({"celltype": types, "tech": tech}, [f"{tech}-{j}" for j in range(len(X))])
        parts.append(anndata.AnnData(sparse.csr_matrix(X[:, ::-1].astype(np.float32)), names))
    joined = anndata.concat(parts)
    joined.var_names, joined.layers["counts"] = SYMBOLS[::-1], joined.X.copy()
    joined.write_h5ad(folder / "joined.h5ad")
    files["pancreas"] = [folder / "joined.h5ad"]

    X, types = profiles(20, ["alpha", "beta", "duct", "dropped"], 14)
    facts = [["chr1", i, i + 9, "+", f"NM_{i}", "tx", s] for i, s in enumerate(SYMBOLS[:-4])]  # four genes are missing
    head = ["chr", "start", "end", "strand", "transcript", "part", "gene", *(f"reads.{i}" for i in range(len(X)))]
    table = write(folder / "cpms.csv.gz", [head, *([*f, *row] for f, row in zip(facts, X.T, strict=False))])
    series = [table]
    for k, platform in enumerate(("GPL11154", "GPL16791")):
        mine = range(k, len(X), 2)
        column = lambda key, value, mine=mine: [key, *(f'"{value(i)}"' for i in mine)]  # noqa: E731
        lines = [
            ["!Series_title", '"A study"'],
            column("!Sample_title", lambda i: f"HP-1::1 {i}"),
            column("!Sample_geo_accession", lambda i: f"GSM{i}"),
            column("!Sample_platform_id", lambda _, platform=platform: platform),
            column("!Sample_characteristics_ch1", lambda i: f"curated-cell-type: {types[i]}"),
            ["!series_matrix_table_begin"],
            column('"ID_REF"', lambda i: f"GSM{i}"),
            ["!series_matrix_table_end"],
        ]
        series.append(write(folder / f"{platform}_series_matrix.txt.gz", lines))
    files["wang"] = series

    def load(name, route):
        (one,) = catalog()[name].routes_of(route)
        return READERS[one.reader](files[name], **one.options)

    return load


@pytest.fixture(scope="module")
def studies(official):
    """What is read: the genes, and (X, y) by name."""
    found = protocol.published(official)
    genes = protocol.gene_list(found, CONFIG.n_genes)
    return found, genes, {name: protocol.on_genes(study, genes) for name, study in found.items()}


def test_all_studies_stand_on_one_list_of_genes_in_one_order(studies):
    found, genes, arrays = studies
    assert list(arrays) == ["GTEx", "TCGA", *ISLETS] and genes == sorted(genes) and len(genes) == 24
    for name, (X, y) in arrays.items():
        assert X.shape == (len(y), 24) and X.dtype == np.float32 and X.min() == 0 and X.max() == 1, name
        adata = found[name][0]
        raw = np.zeros(24)
        for j, gene in enumerate(genes):
            if gene in adata.var_names:  # by name, whatever the order of the file
                raw[j] = np.ravel(adata[0, gene].X.toarray() if sparse.issparse(adata.X) else adata[0, gene].X)[0]
        np.testing.assert_allclose(X[0], (raw - raw.min()) / np.ptp(raw), atol=1e-6)
    missing = [j for j, gene in enumerate(genes) if gene in SYMBOLS[-4:]]
    assert missing and not arrays["Wang"][0][:, missing].any() and arrays["Baron"][0][:, missing].any()
    assert set(arrays["Baron"][1]) == {"alpha", "beta", "delta", "mast"} and len(arrays["Baron"][1]) == 2 * 4 * 14
    assert set(arrays["Wang"][1]) == {"alpha", "beta", "duct"} and len(arrays["TCGA"][1]) == 4 * 24


def test_genes_of_another_kind_are_refused(studies):
    found = dict(studies[0])
    with pytest.raises(DataError, match="0 genes are in GTEx and TCGA"):
        protocol.gene_list(found, 10, wanted=["INS"])
    assert protocol.gene_list(found, 10, wanted=["G03", "G01", "INS"]) == ["G01", "G03"]


def test_the_whole_protocol_runs_by_parts_and_goes_on(studies, tmp_path, monkeypatch):
    _, genes, arrays = studies
    arrays = dict(arrays)
    tissues, tumours = arrays.pop("GTEx"), arrays.pop("TCGA")
    met, plain = [], protocol.train

    def spy(net, study, stage, config, seed, checkpoint=None):
        met.append((stage, study[1], next(net.parameters()).device.type))
        return plain(net, study, stage, config, seed, checkpoint)

    monkeypatch.setattr(protocol, "train", spy)
    names = {"pre-trained": False, "scrambled": True}
    inits = {n: protocol.pretrain(tmp_path / n, tissues, genes, CONFIG, scrambled=s) for n, s in names.items()}
    assert [stage for stage, *_ in met] == [CONFIG.bulk] * 2 and "Bladder" not in met[0][1]
    inits |= {"from scratch": None}
    swap = protocol.swap(arrays, genes, inits, CONFIG, tmp_path / "islets")
    # 5 studies × 3 arms × 2 repeats, evaluated on all 5; and with all of Baron's cells, or none.
    assert len(met) == 2 + 30 + 3
    assert swap.groupby("arm", sort=False).size().to_dict() == {
        **dict.fromkeys(inits, 50), "pre-trained, all cells": 4, "scrambled, all cells": 4,
        "from scratch, all cells": 4, "pre-trained, not fine-tuned": 5, "scrambled, not fine-tuned": 5,
    }  # fmt: skip
    assert {len(y) for _, y, _ in met[2:32]} == {3 * 6, 4 * 6} and swap["accuracy"].between(0, 1).all()
    bulk = protocol.tumours(tumours, genes, inits, CONFIG, tmp_path / "tumours")
    assert [len(y) for _, y, _ in met[35:]] == [24] * 6 + [18] * 6 + [24] * 6
    assert {stage for stage, *_ in met[35:]} == {CONFIG.tumours} and len(bulk) == 2 + 18
    tests = protocol.t_tests(swap, "pre-trained", "from scratch")
    assert len(tests) == 25 and tests["p"].dropna().between(0, 1).all() and (tests["n"] == 2).all()
    # What is finished is not run again; what is not, is.
    before = len(met)
    again = protocol.swap(arrays, genes, inits, CONFIG, tmp_path / "islets")
    assert len(met) == before and protocol.pretrain(tmp_path / "pre-trained", tissues, genes, CONFIG)
    pd.testing.assert_frame_equal(again, swap)
    for lost in sorted((tmp_path / "islets").glob("Baron*"))[:1]:
        lost.unlink()
    protocol.swap(arrays, genes, inits, CONFIG, tmp_path / "islets")
    assert len(met) <= before + 1
    counted = protocol.cost(CONFIG, n_inits=3)
    assert counted["trainings"].to_dict() == {
        "pre-training": 2, "islets, 15 cells": 30, "islets, all cells": 3, "tumours": 18, "not fine-tuned": 4
    }  # fmt: skip
    assert counted.loc["islets, 15 cells", "episodes"] == 30 * 6


def test_no_test_episode_has_a_cell_of_the_finetuning(studies, monkeypatch):
    _, genes, arrays = studies
    seen, plain = [], protocol.EpisodeSampler
    monkeypatch.setattr(protocol, "EpisodeSampler", lambda X, y, *a: seen.append(X) or plain(X, y, *a))
    X, y = arrays["Baron"]
    tuned = protocol.finetune(None, "islets", 6, None, CONFIG, genes, ("Baron", X, y), 1)
    protocol.evaluated(CONFIG, 3, tuned, {"Baron": (X, y), "Xin": arrays["Xin"]}, 1)
    train, same, other = (set(map(bytes, some)) for some in seen)
    assert len(tuned.rows) == 24 and not train & same and len(same) + len(train) == len(set(map(bytes, X))) and other
    assert protocol.evaluated(CONFIG, 3, tuned._replace(rows=np.arange(len(y))), {"Baron": (X, y)}, 1) == []


def test_a_training_stops_at_its_accuracy_and_halves_its_rate(studies):
    _, genes, arrays = studies
    net = protocol.new_network(len(genes), CONFIG, 0)
    history = protocol.train(net, arrays["TCGA"], Stage(12, 4e-3, 3, -0.5), CONFIG, 0)
    assert len(history.rows) == 1 and history.stopped == "accuracy"  # at the first look, any accuracy is above
    history = protocol.train(net, arrays["TCGA"], Stage(12, 4e-3, 3, 1.5), CONFIG, 0)
    np.testing.assert_allclose([row["lr"] for row in history.rows], [4e-3, 2e-3, 1e-3, 5e-4])


def test_defaults_are_the_published_ones():
    published = Protocol()
    assert published.tumours == (50_000, 5e-4, 1_500, 0.99) and published.log_every == 2_500
    assert (published.n_query, published.eval_episodes, len(published.repeats)) == (10, 5_000, 10)
    assert protocol.cost(published)["episodes"]["islets, 15 cells"] == 2 * 5 * 10 * 100_000
    net = protocol.new_network(10, published, 0)
    assert (net.norm, net.clamp, net.proto, net.kind) == ("batch", "all", "mean", "mse_mean")
    took = protocol.measure(CONFIG, n=1)
    assert min(took.values()) > 0 and took["parameters"] == sum(
        p.numel() for p in protocol.new_network(24, CONFIG, 0).parameters()
    )
