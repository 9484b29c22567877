"""Each claim of a lesson is shown able to fail: planted data run through what stands on the page."""

import ast
import copy
import functools

import numpy as np
import pandas as pd
import torch
from chapter_rules import cells_under, claim_holds

from book import notebooks
from book.imports import without_magics
from shared import evaluate

KINDS = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


@functools.cache
def claims(slug):
    page = next(p for p in notebooks.pages(drafts=True) if p.stem == slug)
    return {c["id"]: c for c in notebooks.front_matter(page)["claims"]}


def functions(slug, values=("=",)):
    """What a lesson's cells define, and its statements that begin with one of `values`; nothing else is run."""
    page, known = next(p for p in notebooks.pages(drafts=True) if p.stem == slug), {}
    for cell in notebooks.code_cells(notebooks.read(page)):
        tree = ast.parse(without_magics(notebooks.source(cell)))
        if any(isinstance(n, ast.Import) and n.names[0].name == "sys" for n in tree.body) or "stub" in notebooks.tags(
            cell
        ):
            continue
        kept = [n for n in tree.body if isinstance(n, KINDS) or ast.unparse(n).startswith(values)]
        exec(compile(ast.Module(kept, []), slug, "exec"), known)
    return known


def refused(slug, name, intervals):
    """What `claim_holds` says against a claim, given intervals by the name of their metric."""
    claim = claims(slug)[name]
    found = intervals[claim["metric"]]
    return claim_holds(claim, {claim["metric"]: {"value": found.value, "low": found.low, "high": found.high}})


# scPretrain


def cells(n, seed, rate, types=4):
    """Counts with six genes of each type's own at `rate`, 40 genes in all, and the types."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, types, n)
    mean = np.full((types, 40), 0.5)
    for k in range(types):
        mean[k, 6 * k : 6 * k + 6] = rate
    return rng.poisson(mean[y]).astype(np.float32), y


def compare(corpus, target, *arms, epochs=1, lr=0.02, seeds=2, width=16):
    """The lesson's leads, of small networks, on three lanes of planted cells; arms that are left out score zero."""
    known, (counts, y) = functions("scpretrain", ("names =", "arms", "fine, ", "Encoder", "trained =")), target
    genes = [f"G{i}" for i in range(counts.shape[1])]
    known |= {"counts": corpus, "genes": genes, "own": genes, "width": width, "epochs": epochs, "y": y}
    known |= {"X": torch.from_numpy(np.log1p(counts)), "code": torch.from_numpy(y), "lane": np.arange(len(y)) % 3}
    every, known["kinds"] = known["arms"], np.unique(y)
    known["arms"] = {arm: every[arm] for arm in arms}
    values = {arm: [lr if how is known["network"] else 1] for arm, (how, _) in known["arms"].items()}
    table = known["measure"](range(3), range(seeds), values)
    one = table[table["arm"] == table["arm"].iloc[0]]
    table = pd.concat([table, *(one.assign(arm=arm, accuracy=0.0) for arm in every if arm not in arms)])
    return known["leads"](table)


def test_scpretrains_gains_vanish_where_the_corpus_is_noise():
    arms = (
        "pre-trained, frozen",
        "genes, logistic",
        "PCA, frozen",
        "pre-trained, fine-tuned",
        "random clusters, frozen",
    )
    found = compare([cells(200, 1, 0.5)[0]], cells(240, 3, 3), *arms, lr=0.1)
    assert refused("scpretrain", "embedding", found)
    assert refused("scpretrain", "components", found)
    assert refused("scpretrain", "control", found)


def test_scpretrains_null_gives_way_where_pretraining_helps():
    corpus, arms = [cells(400, 1, 3)[0]], ("pre-trained, fine-tuned", "from scratch")
    found = compare(corpus, cells(240, 3, 2), *arms, epochs=20, lr=0.04, seeds=4, width=32)
    assert refused("scpretrain", "gain", found), found["gain"]


def test_scpretrains_gap_costs_nothing_where_a_gene_is_zero_on_average():
    counts, y = cells(200, 0, 9)
    train, X, weight = np.arange(200) < 100, np.log1p(counts), np.eye(40, dtype=np.float32)
    X, filled = X - X.mean(0), functions("scpretrain")["filled"]
    fills = [filled(X, y, train, weight, {"zero": np.zeros(40)}, s) for s in range(5)]
    gap = evaluate.over_seeds([one["labelled cells lack them too"] - one["zero"] for one in fills])
    assert refused("scpretrain", "missing", {"same_gap": gap}), gap


# TMP: whole cells of the page, for its experiment is no function.


class Planted:
    """Stands for the page's `book`: short runs of two seeds; its records are what the claims are asked about."""

    seeds = (0, 1)

    def __init__(self, *episodes):
        self.episodes, self.records = episodes, {}  # of pre-training, of fine-tuning, of evaluation

    def size(self, *, smoke, lesson, full):
        return self.episodes if isinstance(lesson, tuple) else smoke

    def record(self, name, value):
        ends = {"low": value.low, "high": value.high} if hasattr(value, "low") else {}
        self.records[name] = {"value": float(getattr(value, "value", value)), **ends}

    def record_all(self, values, prefix=""):
        for name, value in values.items():
            self.record(prefix + name, evaluate.over_seeds(value) if hasattr(value, "__len__") else value)


def claims_refused(source, target, *episodes):
    """Claims of the lesson that do not hold when its cells read other profiles: `source` and `target` are (X, y)."""
    page = notebooks.chapters(["tmp"])[0]
    nb, book, (X_lines, subtype), (X, y) = notebooks.read(page), Planted(*episodes), source, target
    run, genes = np.resize(["run1", "run2"], len(y)), range(X.shape[1])
    known = {"np": np, "pd": pd, "torch": torch, "evaluate": evaluate, "copy": copy, "book": book, "seed": 0}
    known |= {"X": X, "y": y, "run": run, "X_lines": X_lines, "subtype": subtype, "genes": genes}
    parts = ("By hand", "The method", "The package", "The experiment", "One type")
    cells = [notebooks.source(c) for part in parts for c in cells_under(nb, part)]
    for code in cells:
        if not any(word in code for word in ("figures.show", "ladder(", "book.table", "networks", "five_way", "hits")):
            exec(code, known)
    wrong = [c for c in claims("tmp").values() if claim_holds(c, book.records)]
    return {c["id"]: book.records[c["metric"]]["value"] for c in wrong}


def mixed(rows, kinds, seed):
    """Six genes tell the kinds apart; thirty others vary more, and mean nothing."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(kinds), rows)
    told = np.random.default_rng(7).normal(size=(kinds, 6))[y] + 0.1 * rng.normal(size=(len(y), 6))
    X = np.hstack([told, 1.5 * rng.normal(size=(len(y), 30))]).astype(np.float32)
    return X, np.array([f"kind {c:02}" for c in y])


def test_tmps_claims_fail_where_there_is_nothing_to_learn():
    """Labels without meaning: no pre-training gains, no centroid leads, no batch loses."""
    X, y = mixed(40, 8, 0)
    lines, kinds = mixed(12, 20, 1)
    kinds, y = (np.random.default_rng(seed).permutation(labels) for seed, labels in enumerate((kinds, y)))
    refused = claims_refused((lines, kinds), (X, y), 12, 6, 20)
    assert {"gain", "control", "centroid", "batch"} <= refused.keys()


def test_tmps_claims_fail_where_the_source_knows_the_types():
    """Few genes matter, and the source has the very types: pre-training finds them, four episodes do not."""
    refused = claims_refused(mixed(12, 20, 1), mixed(40, 8, 0), 150, 4, 15)
    assert refused["unconstrained"] > 0.1


# scBERT


def masked_of(tokens):
    """The lesson's leads in masked accuracy, of tiny networks pre-trained on `tokens` and asked about them."""
    known = functions("scbert")
    vectors = torch.randn(tokens.shape[1], 16, generator=torch.Generator().manual_seed(0))
    known |= {"IGNORE": -100, "bins": 5, "length": 16, "epochs": 3, "vectors": vectors, "seed": 0}
    known["small"] = functools.partial(known["GeneTransformer"], depth=2, heads=2, width=16)
    known |= {"nameless": torch.zeros_like(vectors), "tokens": {"corpus": tokens, "new": tokens}}
    known |= {"lane_new": np.arange(len(tokens)) % 4}
    return known["masked_leads"](known["masked_accuracy"]())


def test_scberts_masked_accuracy_is_that_of_the_rule_where_bins_are_noise():
    tokens = torch.from_numpy(np.random.default_rng(0).choice([0, 1, 2, 3, 4, 5], (96, 24), p=[0.2, 0.6] + [0.05] * 4))
    found = masked_of(tokens)
    assert refused("scbert", "masked", found), found["masked_over_best"]


def test_scberts_gene_vectors_are_worth_much_where_each_gene_has_its_bin():
    tokens = torch.from_numpy(np.tile(np.arange(24) % 5 + 1, (96, 1)))
    found = masked_of(tokens.repeat(2, 1))
    assert refused("scbert", "nameless", found), found["vectors_add"]


def test_scberts_random_features_halve_their_error_where_queries_are_short():
    known = functions("scbert", ("EPS",))
    q, k, v = torch.randn(3, 4, 2, 32, 16, generator=torch.Generator().manual_seed(0))
    errors = pd.DataFrame([known["favor_errors"](q / 4, k / 4, v, (64, 256), s) for s in range(5)])
    found = known["error_ratio"](errors)
    assert refused("scbert", "features", {"error_ratio": found}), found


def test_scberts_gain_and_lead_turn_where_the_pretrained_network_is_right():
    known, truth = functions("scbert"), torch.arange(240) % 4

    def right(share):
        def predict(start, few, test, value, seed):
            wrong = torch.rand(240, generator=torch.Generator().manual_seed(seed)) > share
            return (truth + wrong) % 4

        return predict

    shares = {"fine": 0.9, "plain": 0.5, "dealt": 0.5, "lasso": 0.5, "binned": 0.5, "same": 0.5}
    known |= {"arms": {arm: (right(share), [1]) for arm, share in shares.items()}} | {arm: arm for arm in shares}
    known |= {"starts": lambda seed: dict.fromkeys(shares)}
    lanes = np.arange(240) // 30
    scores = known["measure"]([(arm, 1) for arm in shares], np.arange(60), None, truth, lanes, range(3), 50)
    found = known["leads"](scores)
    assert refused("scbert", "gain", found), found["gain"]
    assert refused("scbert", "logistic", found), found["logistic_lead"]


# Guided transfer


def guided(optimizer=torch.optim.Adam):
    """How far a guide on the gradient, or the update, moves the end of twenty updates of a network on planted cells."""
    known, (X, y) = functions("guided-transfer"), mixed(12, 4, 0)
    known |= {"X": torch.from_numpy(X), "y": torch.from_numpy(np.unique(y, return_inverse=True)[1])}
    known |= {"n_genes": X.shape[1], "kinds": np.unique(y), "pool": np.arange(len(y))}
    torch.manual_seed(0)
    start = known["encoder"]()
    guide = [torch.rand(p.shape) for p in start.parameters()]
    known["prepared"] = lambda seed: (torch.nn.Sequential(start), [], guide)
    found = pd.DataFrame([known["against"](s, optimizer, 0.001) for s in range(3)])
    places = "gradient", "update"
    return {place: {"adam_distance": evaluate.over_seeds(found[f"{place}_distance"])} for place in places}


def test_a_guide_moves_the_end_on_the_update_and_where_the_optimiser_does_not_divide():
    adam = guided()
    assert not refused("guided-transfer", "adam", adam["gradient"])
    assert refused("guided-transfer", "adam", adam["update"])
    assert refused("guided-transfer", "adam", guided(torch.optim.SGD)["gradient"])


def test_a_guides_gains_are_no_null_where_only_the_guided_network_is_right():
    known = functions("guided-transfer", ("own =", "guided, ", "pairs ="))
    table = [(arm, s, lane) for arm in known["own"] for s in range(3) for lane in "ab"]
    scores = pd.DataFrame(table, columns=["arm", "seed", "lane"])
    scores["accuracy"] = np.where(scores["arm"] == known["guided"], 0.9, 0.5) + 0.01 * scores["seed"]
    found = known["leads"](scores)
    assert refused("guided-transfer", "gain", found) and refused("guided-transfer", "which", found)


def test_neighbours_know_neither_mice_nor_flight_where_expression_depends_on_neither():
    known, values = functions("guided-transfer"), np.random.default_rng(0).normal(size=(24, 200))
    known |= {"tibialis": np.arange(12), "mouse": np.tile(np.arange(12), 2), "flew": np.tile(np.arange(12) % 2 == 0, 2)}
    test = np.arange(12, 24)
    near = known["nearest"](values, test)
    same, right = known["mouse"][near[:, 0]] == known["mouse"][test], known["flew"][near[:, 0]] == known["flew"][test]
    p = (known["dealt"](near, test, 200) >= right.mean()).mean()
    assert claim_holds(claims("guided-transfer")["same"], {"soleus_same": {"value": int(same.sum())}})
    assert claim_holds(claims("guided-transfer")["mice"], {"p_new": {"value": float(p)}})


# Domain adaptation


def planted(gain):
    """Scores of all arms in all worlds, one half everywhere but where `gain` has something to add."""
    arms = ["logistic", "centred", "CORAL", "subspace", "transport", "network", "centred net"]
    arms += ["deep CORAL", "MMD", "DANN", "CDAN"]
    worlds = ["none", "batch", "shares", "covariate"]
    rows = [(a, w, s, 0.5 + 0.01 * s + gain.get((w, a), 0)) for a in arms for w in worlds for s in range(3)]
    return pd.DataFrame(rows, columns=["arm", "world", "seed", "score"]), dict.fromkeys(arms, 0.5) | {"DANN": 0.6}


def test_a_network_that_leads_and_a_match_that_shares_do_not_hurt_are_told():
    known = functions("domain-adaptation")
    none = known["leads"](*planted({}))
    assert not refused("domain-adaptation", "centring", none)
    assert refused("domain-adaptation", "shares", none)
    ahead = known["leads"](*planted({("batch", "DANN"): 0.1}))
    assert refused("domain-adaptation", "centring", ahead)
    moved = dict.fromkeys([("shares", arm) for arm in ("centred", "CORAL", "subspace", "transport")], -0.1)
    assert not refused("domain-adaptation", "shares", known["leads"](*planted(moved)))


def test_a_distance_that_sees_shuffled_genes_is_told():
    known, cases = functions("domain-adaptation"), ["MMD, shuffled", "network, batch"]

    def far(shuffled):
        rows = [(case, s, d + 0.01 * s) for case, d in zip(cases, (shuffled, 0.2), strict=True) for s in range(3)]
        return {"blind_share": known["blind"](pd.DataFrame(rows, columns=["case", "seed", "MMD²"]))}

    assert refused("domain-adaptation", "blind", far(0.1)) and not refused("domain-adaptation", "blind", far(0.01))


def test_one_encoder_for_both_domains_has_no_second_end():
    """The lesson's own training, on clusters that the source's encoder reads as well as the target's."""
    known = functions("domain-adaptation")
    rng, kind = np.random.default_rng(0), np.arange(200) % 2
    S, T = (torch.from_numpy((np.eye(3)[kind] * 4 + rng.normal(size=(200, 3))).astype(np.float32)) for _ in range(2))
    areas = []
    for s in range(4):
        torch.manual_seed(s)
        net = known["EncoderHead"](3, (16,), 2)
        known["train"](net, known["mmd_step"], S, torch.from_numpy(kind), T, 1.0, 1e-2, updates=60)
        score = net(T).softmax(1)[:, 1].detach().numpy()
        areas.append(float((score[kind == 1][:, None] > score[kind == 0]).mean()))
    assert min(areas) > 0.9
    found = known["ends"](pd.DataFrame({"area": areas * 5}))
    assert claim_holds(claims("domain-adaptation")["ends"], {"fewer_end": {"value": found}})


def test_centring_that_does_not_lose_in_blood_is_told():
    known, arms = functions("domain-adaptation"), ["logistic", "centred", "CORAL", "network", "MMD", "DANN"]

    def blood(loss):
        rows = [(a, s, 0.8 - loss * (a == "centred") + 0.01 * s, "few T") for a in arms for s in range(3)]
        found = known["blood_leads"](pd.DataFrame(rows, columns=["arm", "seed", "score", "shares"]))
        return {"blood_few_T_centred": found["few T centred"]}

    assert refused("domain-adaptation", "blood", blood(0.0)) and not refused("domain-adaptation", "blood", blood(0.2))


# BERMUDA

BERMUDA_VALUES = ("EQUAL", "(EQUAL", "ONLY", "WIDTHS")


def integrated(changes):
    """The lesson's table of scores, each a half with a little noise, but for what is planted at (world, arm, score)."""
    arms, rows = ("PCA", "z-scores", "autoencoder", "whole-batch", "BERMUDA", "wrong pairs"), []
    for world in ("shift", "own", "bent"):
        for arm in arms:
            for s in range(3):
                noise = 0.01 * np.sin(7 * s + len(arm))
                scores = {k: 0.5 + noise + changes.get((world, arm, k), 0) for k in ("mixing", "types", "named")}
                rows.append({"arm": arm, "world": world, "seed": s, **scores})
    return pd.DataFrame(rows)


def test_pairs_that_gain_nothing_are_told():
    known = functions("bermuda", BERMUDA_VALUES)
    none = known["leads"](integrated({}))
    assert not refused("bermuda", "scaling", none) and not refused("bermuda", "wrong", none)
    assert refused("bermuda", "own", none) and refused("bermuda", "shares", none)
    found = known["leads"](integrated({("own", "BERMUDA", "mixing"): 0.4, ("bent", "whole-batch", "named"): -0.2}))
    assert not refused("bermuda", "own", found) and not refused("bermuda", "shares", found)
    assert refused("bermuda", "wrong", found), "wrong pairs that mix far less"
    assert refused("bermuda", "scaling", known["leads"](integrated({("shift", "BERMUDA", "mixing"): 0.4})))


def test_a_lonely_type_that_stays_apart_without_a_threshold_is_told():
    known = functions("bermuda", BERMUDA_VALUES)

    def forced(far):
        arms = ("BERMUDA", "no threshold")
        rows = [(arm, s, 0.1 + 0.01 * s + far * (arm != "BERMUDA")) for arm in arms for s in range(3)]
        return {"forced": known["forced"](pd.DataFrame(rows, columns=["arm", "seed", "own entropy"]))}

    assert refused("bermuda", "missing", forced(0.0)) and not refused("bermuda", "missing", forced(0.5))
