"""Domain adaptation: each method against skada, POT or NumPy; what alignment gains, loses, and cannot know."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from scipy.optimize import linear_sum_assignment
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold, train_test_split
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_random_state
from torch.nn.functional import cross_entropy

from shared.data import simulate
from shared.data.constraints import SettingError
from shared.data.errors import DataError, DataWarning
from shared.methods.baselines import Components
from shared.methods.domain_adaptation import (
    CDAN,
    CORAL,
    DANN,
    AdaptedClassifier,
    AdversarialNetwork,
    CenterDomains,
    DeepCORAL,
    DeepMMD,
    EncoderHead,
    RampedBatches,
    SeparateEncoders,
    SubspaceAlignment,
    TransportMap,
    cdan_step,
    coral,
    coral_step,
    cost_matrix,
    dann_step,
    deep_embedded_validation,
    density_ratio,
    exact_plan,
    importance_weighted,
    mmd_step,
    multilinear,
    prediction_entropy,
    separate_encoders,
    separate_step,
    sinkhorn,
    source_step,
    target_risks,
)
from shared.nn.losses import domain_loss, mmd2, ramp
from shared.preprocess import center_by, log_normalize

PEERS = "install the extra peers"
DEEP = pytest.mark.parametrize("kind", [DeepCORAL, DeepMMD, DANN, CDAN], ids=lambda k: k.__name__)
ADAPTERS = pytest.mark.parametrize(
    "adapter", [CenterDomains(), CORAL(), SubspaceAlignment(4), TransportMap()], ids=lambda a: type(a).__name__
)


@pytest.fixture(autouse=True)
def no_routing():
    """skada turns scikit-learn's routing of metadata on for all when it is imported."""
    with config_context(enable_metadata_routing=False):
        yield


@pytest.fixture
def skada(no_routing):
    """skada, with the routing that its pipelines need."""
    library = pytest.importorskip("skada", reason=PEERS)
    with config_context(enable_metadata_routing=True):
        yield library


@pytest.fixture
def two_domains():
    """Eight features of forty source and thirty target cells, of other means and covariances; who is of the source."""
    rng = np.random.default_rng(0)
    S, T = rng.normal(size=(40, 8)) @ rng.normal(size=(8, 8)), rng.normal(size=(30, 8)) @ rng.normal(size=(8, 8)) + 2
    order = rng.permutation(70)
    return np.vstack([S, T])[order], np.repeat([1, -1], [40, 30])[order]


def moved(adapter, X, domain):
    """Source and target cells after they were moved, float64."""
    out = clone(adapter).fit_transform(X, sample_domain=domain).astype(float)
    return out[domain > 0], out[domain < 0]


def skadas(adapter, X, domain):
    out = adapter.fit_transform(X, sample_domain=domain)
    return out[domain > 0], out[domain < 0]


# Shallow methods.


def test_centring_is_center_by_and_moves_new_cells(two_domains):
    X, domain = two_domains
    for scale in (False, True):
        model = CenterDomains(scale).fit(X, sample_domain=domain)
        assert np.allclose(model.transform(X, domain), center_by(X, domain.astype(str), scale), atol=1e-5)
        assert np.allclose(model.transform(X[domain < 0][:1]), model.transform(X, domain)[domain < 0][:1])


@pytest.mark.parametrize("reg", ["auto", 1.0, 1e-9])
def test_correlation_alignment_gives_the_source_the_targets_covariance(two_domains, reg):
    X, domain = two_domains
    S, T = moved(CORAL(reg), X, domain)
    before, after = (np.abs(np.cov(a.T) - np.cov(b.T)).max() for a, b in ((X[domain > 0], T), (S, T)))
    assert after < (1e-4 if reg == 1e-9 else 0.7) * before
    assert np.allclose(S.mean(0), T.mean(0), atol=1e-5) and np.allclose(T, X[domain < 0], atol=1e-5)


def test_correlation_alignment_is_the_papers_two_products(two_domains):
    """Algorithm 1, by Cholesky factors: any root of a covariance gives the same covariance, not the same cells."""
    X, domain = two_domains
    S, T = X[domain > 0], X[domain < 0]
    C_s, C_t = (np.cov(Z.T) + np.eye(8) for Z in (S, T))
    A = CORAL(1.0, center=False).fit(X, sample_domain=domain).recoloring_
    assert np.allclose(A.T @ C_s @ A, C_t)
    found, _ = moved(CORAL(1.0, center=False), X, domain)
    assert np.allclose(found, S @ A, atol=1e-4)


def test_correlation_alignment_is_skadas(two_domains):
    mapping = pytest.importorskip("skada._mapping", reason=PEERS)
    X, domain = two_domains
    ours, theirs = moved(CORAL(), X, domain), skadas(mapping.CORALAdapter(), X, domain)
    mean = X[domain < 0].mean(0)  # skada moves both domains to zero, here the source goes to the target
    assert np.allclose(ours[0], theirs[0] + mean, atol=1e-4) and np.allclose(ours[1], theirs[1] + mean, atol=1e-4)


def test_correlation_alignment_with_more_genes_than_cells():
    rng = np.random.default_rng(0)
    X, domain = rng.normal(size=(20, 50)) * np.r_[np.zeros(2), np.ones(48)], np.repeat([1, -1], 10)
    for reg in ("auto", 0.1):
        assert np.isfinite(CORAL(reg).fit_transform(X, sample_domain=domain)).all()


def test_subspaces_are_aligned_as_in_skada(two_domains):
    subspace = pytest.importorskip("skada._subspace", reason=PEERS)
    X, domain = two_domains
    theirs = skadas(subspace.SubspaceAlignmentAdapter(n_components=4, random_state=0), X, domain)
    for a, b in zip(moved(SubspaceAlignment(4), X, domain), theirs, strict=True):
        assert np.allclose(a, b * np.sign((a * b).sum(0)), atol=1e-4)


def test_subspaces_are_aligned_as_the_paper_says(two_domains):
    X, domain = two_domains
    model = SubspaceAlignment(4).fit(X, sample_domain=domain)
    sides = [X[domain > 0], X[domain < 0]]
    P_s, P_t = (np.linalg.svd(Z - Z.mean(0), full_matrices=False)[2][:4].T for Z in sides)
    wanted = (sides[0] - sides[0].mean(0)) @ P_s @ P_s.T @ P_t
    found = model.transform(X, domain)[domain > 0]
    assert np.allclose(found, wanted * np.sign((found * wanted).sum(0)), atol=1e-4)
    assert np.allclose(np.sort(np.arccos(model.cosines_)), np.sort(subspace_angles(P_s, P_t)), atol=1e-6)
    same = SubspaceAlignment(4).fit(np.vstack([X, X]), sample_domain=np.repeat([1, -1], len(X)))
    assert np.allclose(same.cosines_, 1)


def test_the_exact_plan_is_the_cheapest(two_domains):
    X, domain = two_domains
    cost = cost_matrix(X[domain > 0][:30], X[domain < 0])
    plan = exact_plan(cost)
    assert np.allclose(plan.sum(0), 1 / 30) and np.allclose(plan.sum(1), 1 / 30) and plan.min() >= 0
    pairs = linear_sum_assignment(cost)  # of equal numbers of cells a permutation is among the cheapest
    assert (plan * cost).sum() == pytest.approx(cost[pairs].mean(), rel=1e-9)


def test_plans_are_those_of_pot(two_domains):
    ot = pytest.importorskip("ot", reason=PEERS)
    X, domain = two_domains
    cost = cost_matrix(X[domain > 0], X[domain < 0])
    a, b = np.full(40, 1 / 40), np.full(30, 1 / 30)
    assert np.allclose(exact_plan(cost), ot.emd(a, b, cost), atol=1e-8)
    for reg in (0.02, 0.5):
        theirs = ot.sinkhorn(a, b, cost, reg, stopThr=1e-12, numItermax=100_000)
        assert np.allclose(sinkhorn(cost, reg, tol=1e-10), theirs, atol=1e-8)


@pytest.mark.parametrize("reg", [None, 0.05])
def test_cells_go_where_pot_and_skada_send_them(two_domains, reg):
    ot = pytest.importorskip("ot", reason=PEERS)
    mapping = pytest.importorskip("skada._mapping", reason=PEERS)
    X, domain = two_domains
    S, T = X[domain > 0], X[domain < 0]
    ours = clone(TransportMap(reg)).fit(X, sample_domain=domain)
    theirs = (
        ot.da.EMDTransport(norm="max")
        if reg is None
        else ot.da.SinkhornTransport(reg, norm="max", tol=1e-12, out_of_sample_map="ferradans")
    )
    theirs.fit(Xs=S, Xt=T)
    assert np.allclose(ours.transform(S, np.ones(40)), theirs.transform(Xs=S), atol=1e-3)
    new = S[:5] + 0.01
    assert np.allclose(ours.transform(new, np.ones(5)), theirs.transform(Xs=new), atol=1e-3)
    if reg is None:
        found = skadas(mapping.OTMappingAdapter(norm="max"), X, domain)
        assert np.allclose(moved(TransportMap(None), X, domain)[0], found[0], atol=1e-3)


def test_the_entropic_plan_becomes_the_exact_one_and_the_independent_one(two_domains):
    X, domain = two_domains
    cost = cost_matrix(X[domain > 0], X[domain < 0])
    least = (exact_plan(cost) * cost).sum()
    spent = [(sinkhorn(cost, reg) * cost).sum() for reg in (0.01, 0.1, 1.0, 100.0)]
    assert np.all(np.diff([least, *spent]) > 0)
    assert np.allclose(sinkhorn(cost, 1e4), 1 / 1200, atol=1e-6)
    with pytest.warns(DataWarning, match="set a larger reg"):
        sinkhorn(cost, 0.01, max_iter=3)


def test_plans_that_cannot_be_had_are_refused():
    with pytest.raises(DataError, match=r"600 source and 500 target cells are too many.*set reg=0\.05"):
        exact_plan(np.zeros((600, 500)))
    with pytest.raises(SettingError, match="less underflows"):
        TransportMap(1e-3).fit(np.eye(4), sample_domain=[1, 1, -1, -1])


@ADAPTERS
def test_an_adapter_needs_both_domains_and_is_told_them(adapter, two_domains):
    X, domain = two_domains
    for wrong, said in ((-np.ones(70), "no cell is of the source"), (np.zeros(70), "positive for source")):
        with pytest.raises(DataError, match=said):
            clone(adapter).fit(X, sample_domain=wrong)
    with pytest.raises(DataError, match="one cell says nothing of its domain"):
        clone(adapter).fit(X, sample_domain=np.r_[np.ones(69), -1])
    alone = clone(adapter).fit(X)
    assert np.allclose(alone.transform(X), X, atol=1e-5) and np.array_equal(
        alone.transform(X), alone.transform(X, domain)
    )
    model = clone(adapter).fit(X, sample_domain=domain)
    assert np.array_equal(model.transform(X[domain < 0]), model.transform(X, domain)[domain < 0])


# A classifier behind an adapter.


def batches_of_cells(seed=0, prior=0.0, location=0.8):
    """Three types in two simulated batches, the target's shares changed by `prior`: logged cells, types, domain."""
    adata = simulate.cells(600, 200, labels=3, n_batches=2, location=location, effect=1.0, depth=1000, seed=seed)
    X, y = log_normalize(adata.X).toarray(), adata.obs["cell_type"].astype(str).to_numpy()
    domain = np.where(adata.obs["batch"] == "batch1", 1, -1)
    odds = prior * np.where(np.unique(y, return_inverse=True)[1] % 2, -1.0, 1.0) * -domain
    kept = np.random.default_rng(seed).random(len(y)) < (1 / (1 + np.exp(-odds)) if prior else 1)
    return X[kept], y[kept], domain[kept]


def on_target(model, X, y, domain):
    """Balanced accuracy on target cells, whose labels were masked."""
    masked = np.where(domain > 0, y, y[domain > 0][0])
    return balanced_accuracy_score(y[domain < 0], clone(model).fit(X, masked, domain).predict(X[domain < 0]))


def unadapted(X, y, domain):
    source = LogisticRegression(max_iter=1000).fit(X[domain > 0], y[domain > 0])
    return balanced_accuracy_score(y[domain < 0], source.predict(X[domain < 0]))


@ADAPTERS
def test_labels_of_target_cells_are_not_looked_at_by_a_classifier(adapter):
    X, y, domain = batches_of_cells()
    X = Components(10).fit_transform(X)
    masked = np.where(domain < 0, "no such type", y)
    one, two = (AdaptedClassifier(adapter).fit(X, labels, domain) for labels in (y, masked))
    assert np.array_equal(one.predict_proba(X), two.predict_proba(X)) and len(two.classes_) == 3
    source = one.predict_proba(X[domain > 0], domain[domain > 0])
    assert np.allclose(source, one.predict_proba(X, domain)[domain > 0])


def test_a_classifier_behind_correlation_alignment_is_skadas(skada):
    X, y, domain = batches_of_cells()
    X, last = Components(10).fit_transform(X).astype(float), LogisticRegression(max_iter=10_000, tol=1e-8)
    codes = np.unique(y, return_inverse=True)[1]
    theirs = skada.CORAL(last).fit(X, np.where(domain > 0, codes, -1), sample_domain=domain)
    ours = AdaptedClassifier(CORAL(), last).fit(X, codes, domain).predict_proba(X[domain < 0])
    wanted = theirs.predict_proba(X[domain < 0], sample_domain=domain[domain < 0])
    assert np.abs(ours - wanted).max() < 0.01 and np.array_equal(ours.argmax(1), wanted.argmax(1))


def test_alignment_gains_where_shares_are_equal_and_loses_where_they_are_not():
    """The same cells, batches and methods: what a batch cost comes back, and label shift turns the gain into a loss."""
    for adapter in (CenterDomains(), CORAL()):
        gains = {prior: [] for prior in (0.0, 1.5)}
        for prior, found in gains.items():
            for seed in range(3):
                cells = batches_of_cells(seed, prior)
                found.append(on_target(AdaptedClassifier(adapter), *cells) - unadapted(*cells))
        assert np.mean(gains[0.0]) > 0.02, "the batch did not hurt: the test tests nothing"
        assert np.mean(gains[1.5]) < -0.15


def test_label_shift_alone_breaks_alignment():
    cells = batches_of_cells(0, prior=1.5, location=0.0)
    assert unadapted(*cells) > 0.9 and on_target(AdaptedClassifier(CORAL()), *cells) < 0.7


@pytest.mark.parametrize("model", [AdaptedClassifier(CORAL()), DANN(epochs=5, device="cpu", random_state=0)])
def test_columns_of_an_annotated_table_say_what_arrays_say(model):
    adata = simulate.cells(200, 30, labels=2, effect=2.0, seed=0)
    adata.X = log_normalize(adata.X)
    adata = simulate.domains(adata, seed=1)
    X, y, domain = adata.X, adata.obs["cell_type"].astype(str).to_numpy(), adata.obs["domain"].to_numpy()
    one, two = clone(model).fit(adata, "cell_type", "domain"), clone(model).fit(X, y, domain)
    assert np.allclose(one.predict_proba(adata), two.predict_proba(X), atol=1e-5)
    if isinstance(model, AdaptedClassifier):
        assert np.allclose(one.predict_proba(adata, "domain"), two.predict_proba(X, domain), atol=1e-5)
    found, wanted = target_risks(one, adata, "cell_type", "domain"), target_risks(two, X, y, domain)
    assert found == pytest.approx(wanted, abs=1e-5)
    moved = CenterDomains().set_output(transform="pandas").fit_transform(adata.to_df(), sample_domain=domain)
    assert list(moved.columns) == list(adata.var_names) and list(moved.index) == list(adata.obs_names)


def test_an_adapted_classifier_stands_in_a_search_and_behind_other_steps():
    X, y, domain = batches_of_cells()
    search = GridSearchCV(
        AdaptedClassifier(CORAL()), {"adapter__reg": [0.1, 1.0]}, cv=KFold(2, shuffle=True, random_state=0)
    )
    search.fit(X[:, :20], y, sample_domain=domain)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    pipe = make_pipeline(Components(10), AdaptedClassifier(CenterDomains()))
    assert pipe.fit(X, y, adaptedclassifier__sample_domain=domain).score(X[domain < 0], y[domain < 0]) > 0.9


# Deep methods: the losses and steps of each.


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return rng.normal(size=(15, 4)), rng.normal(size=(11, 4)) @ rng.normal(size=(4, 4)) + 1


def test_the_loss_is_what_numpy_makes_of_it(clouds):
    a, b = clouds
    wanted = ((np.cov(a.T) - np.cov(b.T)) ** 2).sum() / (4 * 4**2)
    assert float(coral(torch.tensor(a), torch.tensor(b))) == pytest.approx(wanted, rel=1e-12)
    assert float(coral(torch.tensor(a), torch.tensor(a + 3))) == pytest.approx(0, abs=1e-20), "means do not matter"


def test_the_loss_is_skadas(clouds):
    pytest.importorskip("skorch", reason="skada's deep methods need skorch: install the extra peers")
    losses = pytest.importorskip("skada.deep.losses", reason="install the extra peers")
    a, b = map(torch.tensor, clouds)
    assert float(coral(a, b)) == pytest.approx(float(losses.deepcoral_loss(a, b)), rel=1e-9)


def test_the_gradient_is_that_of_the_loss(clouds):
    a, b = (torch.tensor(x, requires_grad=True) for x in clouds)
    assert torch.autograd.gradcheck(coral, (a, b))


def test_the_step_is_cross_entropy_and_weighted_coral():
    torch.manual_seed(0)
    net, X, T, y = EncoderHead(6, (5, 4), 3), torch.randn(9, 6), torch.randn(8, 6), torch.arange(9) % 3
    plain, distance = cross_entropy(net(X), y), coral(net.encode(X), net.encode(T))
    assert torch.allclose(coral_step(net, X, y, T, weight=2.5), plain + 2.5 * distance)
    assert torch.equal(source_step(net, X, y), plain)


@pytest.fixture
def adversarial():
    """A small network, source cells with codes, and target cells; a function makes the network for a discriminator."""
    torch.manual_seed(0)
    batch = torch.randn(9, 6), torch.arange(9) % 3, torch.randn(7, 6)
    return lambda n_inputs: AdversarialNetwork(6, (5, 4), 3, n_inputs, 8), batch


def test_the_step_of_the_discrepancy_is_cross_entropy_and_weighted_mmd(adversarial):
    make, (X, y, T) = adversarial
    net = make(4)
    wanted = cross_entropy(net(X), y) + 0.5 * mmd2(net.encode(X), net.encode(T))
    assert torch.allclose(mmd_step(net, X, y, T, weight=0.5), wanted)


def test_the_encoder_goes_against_the_discriminator_and_the_head_does_not_see_it(adversarial):
    make, (X, y, T) = adversarial
    net = make(4)
    parts = [list(part.parameters()) for part in (net.encode, net.head, net.discriminator)]
    gradients = lambda loss: [torch.autograd.grad(loss, p, retain_graph=True, allow_unused=True) for p in parts]  # noqa: E731
    task = gradients(cross_entropy(net(X), y))
    domains = gradients(domain_loss(net.discriminator, net.encode(X), net.encode(T), -1.0))  # nothing reversed
    found = gradients(dann_step(net, X, y, T, 0.3))
    for f, t, d in zip(found[0], task[0], domains[0], strict=True):
        assert torch.allclose(f, t - 0.3 * d, atol=1e-6)
    assert all(torch.allclose(f, t, atol=1e-6) for f, t in zip(found[1], task[1], strict=True))
    assert all(torch.allclose(f, d, atol=1e-6) for f, d in zip(found[2], domains[2], strict=True))


def test_products_of_embedding_and_probability(adversarial):
    z, p = torch.randn(5, 4), torch.randn(5, 3).softmax(1)
    assert torch.equal(multilinear(z, p), torch.einsum("nf,nc->nfc", z, p).reshape(5, 12))
    assert torch.allclose(multilinear(z, p).view(5, 4, 3).sum(2), z), "probabilities sum to 1"


def test_adversarial_losses_are_skadas(adversarial):
    """skada adds the means of both domains where ours is the mean over all rows, here of as many; and reads the joint
    map class by class."""
    pytest.importorskip("skorch", reason="skada's deep methods need skorch: install the extra peers")
    theirs = pytest.importorskip("skada.deep._adversarial", reason=PEERS)
    make, (X, y, T) = adversarial
    X, y = X[:7], y[:7]
    net = make(4)
    s, t = (net.discriminator(net.encode(Z)).sigmoid()[:, 0] for Z in (X, T))
    loss = theirs.DANNLoss()(1 - s, 1 - t)
    assert torch.allclose(dann_step(net, X, y, T), cross_entropy(net(X), y) + loss / 2)

    net = make(12)

    class Softmaxed(EncoderHead):
        def forward(self, X):
            return super().forward(X).softmax(1)

    named = Softmaxed(6, (5, 4), 3)
    named.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("discriminator")})

    class Discriminator(torch.nn.Module):
        def forward(self, joint):
            return 1 - net.discriminator(joint.view(-1, 3, 4).transpose(1, 2).flatten(1)).sigmoid()[:, 0]

    module = theirs.CDANModule(named, "encode", Discriminator()).train()
    (_, s, f_s, *_), (_, t, f_t, *_) = (module(Z) for Z in (X, T))
    loss = theirs.CDANLoss()(s, t, f_s, f_t)
    assert torch.allclose(cdan_step(net, X, y, T), cross_entropy(net(X), y) + loss / 2)


def test_the_reversed_gradient_grows_over_the_training():
    assert ramp(0) == 0 and ramp(0.5) == pytest.approx(0.98661, abs=1e-5) and 0.9999 < ramp(1) < 1
    X, y = np.zeros((20, 3), np.float32), np.arange(20) % 2
    batches = RampedBatches((X, y), (X[:9],), 8, 0, epochs=2, weight=0.5)
    strengths = [[batch[-1] for batch in batches(epoch)] for epoch in (1, 2)]
    assert [len(s) for s in strengths] == [batches.steps] * 2
    n = 2 * batches.steps
    assert strengths[0] + strengths[1] == pytest.approx([0.5 * ramp(i / n) for i in range(n)])
    assert [batch[-1] for batch in batches(2)] == strengths[1], "a resumed training goes on where it was"
    assert all(len(batch) == 4 for batch in batches(1))


def test_one_seed_gives_one_encoder_with_and_without_a_discriminator():
    X, y, domain = shifted()
    models = [kind(epochs=1, device="cpu", random_state=0).fit(X, y, domain) for kind in (DeepCORAL, DANN)]
    nets = [model.new_network(model._read_domains(X, y, domain)[0], seed=3) for model in models]
    for name, value in nets[0].state_dict().items():
        assert torch.equal(value, nets[1].state_dict()[name])


def shifted(n=120, seed=0):
    """Three types in two domains; in the target two genes that matter little in the source vary ten times as much."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    X = np.eye(10)[y] * 3 + rng.normal(size=(n, 10))
    domain = np.where(np.arange(n) < n // 2, 1, -1)
    X[domain < 0, 8:] *= 10
    return X.astype(np.float32), np.array(["a", "b", "c"])[y], domain


@pytest.mark.parametrize(("kind", "distance", "weight"), [(DeepCORAL, coral, 10.0), (DeepMMD, mmd2, 3.0)])
def test_embeddings_are_brought_together(kind, distance, weight):
    X, y, domain = shifted()
    found = []
    for w in (0.0, weight):
        model = kind((16, 8), weight=w, epochs=40, lr=1e-2, device="cpu", random_state=0).fit(X, y, domain)
        found.append(float(distance(*(torch.from_numpy(model.transform(X[domain == d])) for d in (1, -1)))))
    assert found[1] < 0.2 * found[0]


@pytest.mark.parametrize("kind", [DANN, CDAN])
def test_adversaries_bring_embeddings_together(kind):
    """By the discrepancy, which neither of them sees: a discriminator of the method's own may have lost its way."""
    X, y, domain = shifted(300)
    X[domain < 0, 8:] = X[domain < 0, 8:] / 10 + 3
    found = []
    for weight in (0.0, 0.3):
        model = kind((16, 8), weight=weight, epochs=60, device="cpu", random_state=0).fit(X, y, domain)
        found.append(float(mmd2(*(torch.from_numpy(model.transform(X[domain == d])) for d in (1, -1)))))
    assert found[1] < 0.6 * found[0]


@DEEP
def test_deep_methods_gain_what_a_batch_cost(kind):
    """Against the same network, optimiser and number of steps without target cells; the mean of three seeds."""
    gain = []
    for seed in range(3):
        X, y, domain = batches_of_cells(seed)
        model = kind(epochs=30, device="cpu", random_state=seed)
        plain = balanced_accuracy_score(
            y[domain < 0], clone(model).set_params(weight=0.0).fit(X, y, domain).predict(X[domain < 0])
        )
        gain.append(
            on_target(model.set_params(**({"weight": 10.0} if kind is DeepCORAL else {})), X, y, domain) - plain
        )
    assert np.mean(gain) > 0.02


@DEEP
def test_labels_of_target_cells_are_not_looked_at(kind):
    X, y, domain = shifted()
    masked = np.where(domain < 0, "no such type", y)
    one, two = (kind(epochs=3, device="cpu", random_state=0).fit(X, labels, domain) for labels in (y, masked))
    assert np.array_equal(one.predict_proba(X), two.predict_proba(X)) and list(two.classes_) == ["a", "b", "c"]


@DEEP
def test_without_target_cells_it_is_the_network_from_the_source(kind):
    X, y, _ = shifted()
    alone = kind(epochs=3, device="cpu", random_state=0).fit(X, y)
    zero = kind(epochs=3, weight=0, device="cpu", random_state=0).fit(X, y, np.ones(len(y)))
    assert np.array_equal(alone.predict_proba(X), zero.predict_proba(X))


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        (-np.ones(120), "no cell is of the source"),
        (np.zeros(120), "positive for source and negative for target"),
        (np.ones(5), "one whole number for each of the 120 cells"),
        (np.r_[np.ones(119), -1], "one target cell has no covariance"),
        (np.array(["a"] * 120), "positive for source"),
    ],
)
def test_domains_that_cannot_be_used_are_refused(domain, said):
    X, y, _ = shifted()
    with pytest.raises(DataError, match=said):
        DeepCORAL(epochs=1, device="cpu").fit(X, y, domain)


# What a match cannot know.


def halves(prior=0.0, n_cells=300):
    """Two types; source and target are measured by other genes, three components each: cells, types, cells, types."""
    adata = simulate.cells(n_cells, 400, labels=2, effect=2.0, seed=0)
    adata.X = log_normalize(adata.X)
    adata = simulate.domains(adata, prior=prior, seed=1)
    X, y = adata.X.toarray(), adata.obs["cell_type"].astype(str).to_numpy()
    sides = []
    for d, genes in ((1, slice(0, None, 2)), (-1, slice(1, None, 2))):
        mine = (adata.obs["domain"] == d).to_numpy()
        Z = Components(3).fit_transform(X[mine][:, genes])
        sides += [(Z / Z[:, 0].std()).astype(np.float32), y[mine]]
    return sides


def test_a_match_of_distributions_cannot_know_which_cluster_is_which():
    """Twenty initial weights, one set of cells: the clusters are found every time, and their names by chance."""
    S, y, T, truth = halves()
    found = [separate_encoders(S, y, T, epochs=30, device="cpu", seed=seed)[:, 1] for seed in range(20)]
    area = np.array([roc_auc_score(truth == "Beta", p) for p in found])
    assert (area < 0.1).sum() >= 3 and (area > 0.9).sum() >= 3
    assert np.median(np.maximum(area, 1 - area)) > 0.9, "the clusters were not found: the test tests nothing"


def test_one_encoder_for_both_domains_knows():
    adata = simulate.cells(300, 200, labels=2, effect=2.0, seed=0)
    adata.X = log_normalize(adata.X)
    adata = simulate.domains(adata, seed=1)
    X, y, domain = adata.X.toarray(), adata.obs["cell_type"].astype(str).to_numpy(), adata.obs["domain"].to_numpy()
    for seed in range(3):
        proba = DeepMMD((16,), epochs=20, device="cpu", random_state=seed).fit(X, y, domain).predict_proba(X)
        assert roc_auc_score(y[domain < 0] == "Beta", proba[domain < 0, 1]) > 0.9


def test_the_step_of_two_encoders(adversarial):
    _, (X, y, T) = adversarial
    net = SeparateEncoders(6, 4, (5,), 3)
    source, target = net.source.encode(X), net.encode_target(T[:, :4])
    wanted = cross_entropy(net.source(X), y) + 2 * mmd2(source, target)
    assert torch.allclose(separate_step(net, X, y, T[:, :4], 2.0), wanted)
    assert net(T[:, :4]).shape == (7, 3)


# Choosing without target labels.


@pytest.fixture
def choice():
    """A classifier of two features, held-out source cells and target cells under covariate shift."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 2))
    y = (rng.random(4000) < 1 / (1 + np.exp(-3 * X[:, 0] * X[:, 1]))).astype(int)
    domain = np.where(rng.random(4000) < 1 / (1 + np.exp(-1.5 * X[:, 1])), -1, 1)
    fitted = (domain > 0) & (np.arange(4000) % 2 == 0)
    model = LogisticRegression().fit(X[fitted], y[fitted])
    return model, X[~fitted], y[~fitted], domain[~fitted]


def test_under_covariate_shift_the_weighted_risk_is_that_of_the_target(choice):
    model, X, y, domain = choice
    found = target_risks(model, X, np.where(domain > 0, y, -7), domain)
    truth = float((model.predict(X[domain < 0]) != y[domain < 0]).mean())
    assert truth - found["source"] > 0.2, "there is no shift to tell of: the test tests nothing"
    for name in ("importance_weighted", "deep_embedded_validation"):
        assert abs(found[name] - truth) < 0.06


def test_weights_are_the_ratio_of_densities(choice):
    _, X, _, domain = choice
    S, T = X[domain > 0], X[domain < 0]
    truth = np.exp(1.5 * S[:, 1])
    weight = density_ratio(S, T)
    assert np.corrcoef(np.log(weight), np.log(truth))[0, 1] > 0.99 and weight.mean() == pytest.approx(1, abs=0.05)


def test_a_concept_shift_is_seen_by_no_risk(choice):
    """Names exchanged in the target: every cell is named wrongly there that was named rightly, and nothing changes."""
    model, X, y, domain = choice
    same, other = (target_risks(model, X, labels, domain) for labels in (y, np.where(domain > 0, y, 1 - y)))
    assert same == other


def test_risks_are_skadas(choice, skada):
    from skada import metrics

    _, X, y, domain = choice
    masked = np.where(domain > 0, y, -1)
    model = skada.make_da_pipeline(LogisticRegression().set_score_request(sample_weight=True))
    model.fit(X, masked, sample_domain=domain)
    source = domain > 0
    proba = LogisticRegression().fit(X[source], y[source]).predict_proba(X)
    wrong = (proba.argmax(1) != y)[source]

    log_ratio = [KernelDensity().fit(X[m]).score_samples(X[source]) for m in (~source, source)]
    theirs = metrics.ImportanceWeightedScorer()(model, X, y, sample_domain=domain)
    assert 1 - importance_weighted(wrong, np.exp(log_ratio[0] - log_ratio[1])) == pytest.approx(theirs, abs=1e-9)

    theirs = metrics.PredictionEntropyScorer()(model, X, y, sample_domain=domain)
    assert -prediction_entropy(proba[~source]) / 2 == pytest.approx(theirs, abs=1e-9), "a mean over classes, too"


def test_deep_embedded_validation_is_skadas(choice, skada):
    """skada fits its weights on a part of the source cells drawn at random; the same part is drawn here. Its own loss
    is one-dimensional, and its product with the column of weights a square, so it is given the loss as a column."""
    from skada import metrics

    _, X, y, domain = choice
    source, masked = domain > 0, np.where(domain > 0, y, -1)
    known, held, _, y_held = train_test_split(X[source], y[source], test_size=0.33, random_state=check_random_state(0))
    proba = LogisticRegression().fit(X[source], y[source]).predict_proba(held)
    loss = -np.log(proba[np.arange(len(held)), y_held])
    assert loss.mean() == pytest.approx(log_loss(y_held, proba))
    told = LogisticRegression().fit(
        np.vstack([known, X[~source]]), np.r_[np.ones(len(known)), np.zeros((~source).sum())]
    )
    p = told.predict_proba(held)
    weight = len(known) / (~source).sum() * p[:, 0] / p[:, 1]

    model = skada.make_da_pipeline(LogisticRegression()).fit(X, masked, sample_domain=domain)
    column = lambda y, p: -np.log(p[np.arange(len(y)), y])[:, None]  # noqa: E731
    theirs = metrics.DeepEmbeddedValidation(loss_func=column, random_state=0)(model, X, y, sample_domain=domain)
    assert -deep_embedded_validation(loss, weight) == pytest.approx(theirs, rel=1e-6)


def test_the_control_variate_lowers_the_variance():
    rng = np.random.default_rng(0)
    plain, held = [], []
    for _ in range(200):
        weight = rng.exponential(size=50)
        loss = weight / 4 + rng.normal(0, 0.1, 50)
        plain.append((weight * loss).mean())
        held.append(deep_embedded_validation(loss, weight))
    assert np.std(held) < 0.7 * np.std(plain) and np.mean(held) == pytest.approx(0.5, abs=0.05)
    assert deep_embedded_validation([0, 1, 1], [1, 1, 1]) == pytest.approx(2 / 3)


def test_risks_of_every_kind_of_classifier():
    X, y, domain = batches_of_cells()
    seen = np.arange(len(y)) % 2 == 0
    for model in (AdaptedClassifier(CenterDomains()), DeepMMD(epochs=3, device="cpu", random_state=0)):
        model.fit(X[seen], y[seen], domain[seen])
        features = X[~seen][:, :10]
        found = target_risks(model, X[~seen], y[~seen], domain[~seen], features=features)
        assert set(found) == {"source", "importance_weighted", "deep_embedded_validation", "entropy"}
        assert np.isfinite([*found.values()]).all()
    with pytest.raises(DataError, match="risks compare domains"):
        target_risks(model, X, y, np.ones(len(y)))
    with pytest.raises(DataError, match="give one label a cell"):
        target_risks(model, X, y[:5], domain)
    with pytest.raises(DataError, match="give one of each a cell"):
        importance_weighted([1, 0], [1.0])
    with pytest.raises(DataError, match="a weight negative"):
        importance_weighted([1, 0], [1.0, -1.0])
