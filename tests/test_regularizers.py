import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import ElasticNet, Lasso, Ridge, lasso_path
from torch.nn import functional as F

from helpers import data, regularizers
from helpers.regularizers import (
    block_soft_threshold,
    dropout,
    duality_gap,
    elastic_net,
    fista,
    ista,
    l1,
    l2,
    label_smoothing,
    mixup,
    prox_elastic_net,
    prox_l2,
    ridge,
    soft_threshold,
)
from helpers.rng import generator, seeded

NAN, INF = float("nan"), float("inf")


def normal(*shape, stream="regularizers"):
    return torch.randn(*shape, generator=generator(0, stream))


def objective(X, y, w, lam):
    return (y - w @ X.T).square().mean(-1) / 2 + lam * w.abs().sum(-1)


def correlated(n, d, nonzero, seed=0):
    """Columns that share a common part, ten nonzero weights of both signs, noise."""
    w = torch.zeros(d)
    w[:nonzero] = torch.tensor([2.0, -1.0]).repeat(nonzero)[:nonzero]
    X, y = data.linear(n, w, 0.5, seed)
    X = X + normal(n, 1, stream="common")
    return X, X @ w + y - data.linear(n, w, 0.0, seed).y


def standardised_diabetes():
    X, y = data.diabetes()
    return (X - X.mean(0)) / X.std(0, correction=0), y - y.mean()


# --- penalties ---------------------------------------------------------------------------

PENALTIES = [(l1, (0.3,)), (l2, (0.7,)), (elastic_net, (0.3, 0.7))]


def test_penalties_are_what_their_formulas_say():
    w = torch.tensor([[3.0, -4.0], [0.0, 1.0]])
    assert l1(w, 0.5) == 0.5 * 8 and l2(w, 0.5) == 0.25 * 26
    assert elastic_net(w, 0.5, 0.25) == 4 + 0.125 * 26
    assert l1(w, 0) == l2(w, 0) == elastic_net(w, 0, 0) == 0


@pytest.mark.parametrize(("penalty", "lams"), PENALTIES)
def test_gradients_equal_finite_differences(penalty, lams):
    w = normal(3, 4).requires_grad_()
    assert w.abs().min() > 1e-3  # no kink nearby
    assert penalty(w, *lams).shape == () and torch.autograd.gradcheck(penalty, (w, *lams))


def test_the_gradient_of_l2_is_lambda_w():
    w = normal(5).requires_grad_()
    (gradient,) = torch.autograd.grad(l2(w, 0.3), w)
    assert torch.allclose(gradient, 0.3 * w, rtol=1e-15)


# --- proximal maps -----------------------------------------------------------------------

PROXES = [
    (soft_threshold, l1, (0.8,)),
    (prox_l2, l2, (0.8,)),
    (prox_elastic_net, elastic_net, (0.8, 0.5)),
    (block_soft_threshold, lambda w, t: t * w.norm(), (0.8,)),
]


@pytest.mark.parametrize(("prox", "penalty", "t"), PROXES)
def test_proximal_maps_equal_a_grid_search(prox, penalty, t):
    grid = torch.arange(-3000, 3001) / 1000
    costs = torch.stack([penalty(w.view(1), *t) for w in grid])
    for z in torch.linspace(-2.9, 2.9, 47):
        best = grid[((grid - z) ** 2 / 2 + costs).argmin()]
        assert abs(prox(z.view(1), *t) - best) <= 0.5001e-3


@pytest.mark.parametrize("z", [[1.3, -0.4], [-0.5, 0.6], [0.0, 2.0], [0.0, 0.0]])
def test_block_soft_threshold_equals_a_grid_search_in_the_plane(z):
    z, axis = torch.tensor(z), torch.arange(-200, 201) / 100
    grid = torch.cartesian_prod(axis, axis)
    best = grid[((grid - z).square().sum(1) / 2 + 0.8 * grid.norm(dim=1)).argmin()]
    assert (block_soft_threshold(z, 0.8) - best).abs().max() <= 0.01


@pytest.mark.parametrize(("prox", "penalty", "t"), PROXES)
def test_no_random_move_is_better_than_the_proximal_map(prox, penalty, t):
    z = 2 * normal(20)
    w = prox(z, *t)
    cost = lambda v: (v - z).square().sum() / 2 + penalty(v, *t)  # noqa: E731
    moves = [w + size * step for step in normal(50, 20) for size in (1e-4, 1e-2, 1)]
    assert all(cost(v) > cost(w) for v in moves)


def test_soft_threshold_equals_torchs_and_its_zeros_are_exact_and_positive():
    z = torch.cat([normal(1000), torch.tensor([0.5, -0.5, 0.0, -0.0, INF, -INF])])
    w = soft_threshold(z, 0.5)
    assert torch.equal(w, F.softshrink(z, 0.5))
    assert torch.equal(w == 0, z.abs() <= 0.5) and not w[w == 0].signbit().any()
    assert torch.equal(w, z.sign() * (z.abs() - 0.5).clamp(min=0))


def test_thresholds_may_differ_by_element_or_row():
    z, t = normal(4, 3), torch.tensor([0.1, 0.5, 2.0])
    assert torch.equal(soft_threshold(z, t)[:, 1], soft_threshold(z[:, 1], 0.5))
    assert torch.equal(prox_l2(z, t)[:, 2], z[:, 2] / 3)
    rows = torch.tensor([0.0, 0.3, 1.0, 9.0])
    each = [block_soft_threshold(row, t.item()) for row, t in zip(z, rows, strict=True)]
    assert torch.equal(block_soft_threshold(z, rows), torch.stack(each))
    assert not each[3].any() and torch.equal(each[0], z[0])


@pytest.mark.parametrize(("prox", "penalty", "t"), PROXES)
def test_proximal_maps_with_t_0_do_nothing_and_let_nan_through(prox, penalty, t):
    z = normal(5)
    assert torch.equal(prox(z, *(0 for _ in t)), z)
    assert prox(torch.tensor([NAN]), *t).isnan().all()


def test_proximal_gradient_with_an_elastic_net_equals_scikit_learns():
    X, y = correlated(40, 12, 4)
    w, step = torch.zeros(12), 40 / torch.linalg.matrix_norm(X, 2) ** 2
    for _ in range(3000):
        gradient = X.T @ (X @ w - y) / 40
        w = prox_elastic_net(w - step * gradient, step * 0.1, step * 0.2)
    model = ElasticNet(alpha=0.3, l1_ratio=1 / 3, fit_intercept=False, tol=1e-14, max_iter=10**6)
    assert np.allclose(w, model.fit(X, y).coef_, atol=1e-8) and (w == 0).any()


# --- ridge -------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(60, 50), (20, 50), (7, 7), (5, 1), (1, 3)])
@pytest.mark.parametrize("lam", [1e-3, 0.5, 30])
def test_ridge_equals_the_normal_equations_and_scikit_learn(n, d, lam):
    X, y = normal(n, d), normal(n, stream="y")
    w = ridge(X, y, lam)
    normal_equations = torch.linalg.solve(X.T @ X + n * lam * torch.eye(d), X.T @ y)
    assert torch.allclose(w, normal_equations, rtol=1e-9, atol=1e-12)
    assert np.allclose(w, Ridge(n * lam, fit_intercept=False).fit(X, y).coef_, atol=1e-9)
    gradient = X.T @ (X @ w - y) / n + lam * w
    assert gradient.abs().max() < 1e-14 * n * d


def test_ridge_of_several_lambdas_and_data_sets():
    X, y = normal(3, 2, 10, 4), normal(3, 2, 10, stream="y")
    lams = [0.0, 0.1, 5.0]
    W = ridge(X, y, lams)
    assert W.shape == (3, 2, 3, 4) and ridge(X, y, 0.1).shape == (3, 2, 4)
    for i, lam in enumerate(lams):
        assert torch.allclose(W[2, 1, i], ridge(X[2, 1], y[2, 1], lam), rtol=1e-12, atol=1e-14)
    assert torch.equal(W, ridge(X, y, torch.tensor(lams)))
    assert ridge(X[0, 0], y[0, 0], [0.1]).shape == (1, 4)


def test_ridge_without_penalty_is_least_squares():
    X, y = normal(30, 6), normal(30, stream="y")
    least_squares = torch.linalg.lstsq(X, y.unsqueeze(1)).solution[:, 0]
    assert torch.allclose(ridge(X, y, 0), least_squares, rtol=1e-12)
    assert torch.allclose(ridge(X, y, 1e-12), least_squares, rtol=1e-10)


@pytest.mark.parametrize("lam", [0, 1e-9])
def test_ridge_without_enough_data_is_the_smallest_interpolation(lam):
    X, y = normal(6, 30), normal(6, stream="y")
    assert torch.allclose(ridge(X, y, lam), torch.linalg.pinv(X) @ y, atol=1e-7)
    twice = torch.cat([X, X], 1)  # equal columns share
    assert torch.allclose(ridge(twice, y, lam), (torch.linalg.pinv(X) @ y / 2).repeat(2), atol=1e-7)
    X = normal(30, 6) @ normal(6, 6).index_fill(1, torch.tensor([2]), 0)
    y = normal(30, stream="y")
    w = ridge(X, y, lam)  # a constant feature, after centring
    assert abs(w[2]) < 1e-15 and torch.allclose(w, torch.linalg.pinv(X) @ y, atol=1e-6)


def test_ridge_with_a_huge_penalty_goes_to_zero():
    X, y = normal(20, 3), normal(20, stream="y")
    assert torch.allclose(ridge(X, y, 1e12) * 1e12, X.T @ y / 20, rtol=1e-9)
    assert ridge(X, y, 1e300).abs().max() < 1e-299
    assert torch.equal(ridge(torch.zeros(4, 2), torch.ones(4), [0, 1]), torch.zeros(2, 2))


# --- lasso -------------------------------------------------------------------------------


def require_optimal(X, y, w, lam, atol):
    """|Xᵀr|/n ≤ λ, with equality and the weight's sign where the weight isn't 0."""
    slope = X.T @ (y - X @ w) / len(y)
    assert slope.abs().max() <= lam + atol
    assert torch.allclose(slope[w != 0], lam * w[w != 0].sign(), atol=atol, rtol=0)


@pytest.mark.parametrize(("n", "d"), [(100, 50), (30, 60)])
def test_ista_equals_scikit_learn(n, d):
    X, y = correlated(n, d, 5)
    w = ista(X, y, 0.2, 15_000)
    model = Lasso(0.2, fit_intercept=False, tol=1e-14, max_iter=10**6).fit(X, y)
    assert np.allclose(w, model.coef_, atol=1e-9)
    assert torch.equal(w == 0, torch.tensor(model.coef_ == 0)) and 0 < (w == 0).sum() < d
    require_optimal(X, y, w, 0.2, 1e-9)
    assert torch.allclose(ista(X, y, 0.2, 17_000), w, atol=1e-10)  # more steps than needed


def test_ista_starts_at_zero_and_goes_downhill():
    X, y = correlated(50, 20, 5)
    costs = [objective(X, y, ista(X, y, 0.1, steps), 0.1) for steps in (0, 1, 2, 5, 20, 100)]
    assert costs[0] == y.square().mean() / 2 and costs == sorted(costs, reverse=True)
    step = 50 / torch.linalg.matrix_norm(X, 2) ** 2
    assert torch.allclose(ista(X, y, 0.1, 1), soft_threshold(step * X.T @ y / 50, step * 0.1))


def test_ista_without_penalty_is_gradient_descent_on_least_squares():
    X, y = normal(30, 4), normal(30, stream="y")
    assert torch.allclose(ista(X, y, 0, 2000), ridge(X, y, 0), atol=1e-12)


def test_step_sizes_up_to_twice_the_usual_converge_and_larger_ones_are_refused():
    X, y = correlated(50, 8, 3)
    limit = (2 * 50 / torch.linalg.matrix_norm(X, 2) ** 2).item()
    expected = ista(X, y, 0.1, 5000)
    assert torch.allclose(ista(X, y, 0.1, 5000, step_size=0.99 * limit), expected, atol=1e-9)
    for bad in (1.001 * limit, 0, -1, NAN, INF):
        with pytest.raises(ValueError, match=f"step_size must be .*below .* = {limit:.4g}, where"):
            ista(X, y, 0.1, 5, step_size=bad)
    w = torch.zeros(8)  # it would indeed diverge
    for _ in range(2000):
        w = soft_threshold(w + 1.1 * limit * X.T @ (y - X @ w) / 50, 1.1 * limit * 0.1)
    assert w.abs().max() > 1e6


@pytest.mark.parametrize("factor", [1, 1.5, 1e6])
def test_a_large_lambda_makes_every_weight_exactly_zero(factor):
    X, y = correlated(30, 60, 5)
    lam = factor * (X.T @ y).abs().max().item() / 30
    assert not ista(X, y, lam * (1 + 1e-12), 50).any()
    assert not fista(X, y, [lam]).any()
    assert fista(X, y, [0.99 * lam / factor]).count_nonzero() == 1
    assert not ridge(X, y, 1e30).gt(1e-25).any()


def test_constant_features_and_targets_get_no_weight():
    X, y = correlated(40, 10, 4)
    X[:, 3] = 0  # a constant feature, after centring
    for w in (ista(X, y, 0.1, 5000), fista(X, y, [0.1])[0]):
        assert w[3] == 0 and w.any()
    for w in (ista(X, 0 * y, 0.1, 5), fista(X, 0 * y, [0.1]), fista(0 * X, y, [0.1, 1e-9])):
        assert not w.any()
    assert not ista(0 * X, y, 0.1, 5).any()


PROBLEMS = {
    "n > d": lambda: correlated(100, 50, 5),
    "n < d": lambda: correlated(40, 120, 10),
    "dense": lambda: data.linear(50, torch.ones(100), 1.0, 0),
    "diabetes": standardised_diabetes,
    "one feature": lambda: data.linear(10, torch.ones(1), 1.0, 0),
    "one sample": lambda: data.linear(1, torch.ones(5), 1.0, 0),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_fista_equals_scikit_learns_path(name):
    X, y = PROBLEMS[name]()
    lams = (X.T @ y).abs().max() / len(y) * torch.logspace(0, -2, 20)
    W = fista(X, y, lams, tol=1e-13)
    _, oracle, _ = lasso_path(X.numpy(), y.numpy(), alphas=lams.numpy(), tol=1e-14, max_iter=10**6)
    assert np.allclose(W, oracle.T, atol=2e-6 * np.abs(oracle).max(), rtol=0)
    assert torch.equal(W[0], torch.zeros(X.shape[1]))
    require_optimal(X, y, W[-1], lams[-1], 1e-6 * lams[0])


@pytest.mark.parametrize("name", PROBLEMS)
def test_fista_reaches_the_gap_it_promises(name):
    X, y = PROBLEMS[name]()
    lams = (X.T @ y).abs().max() / len(y) * torch.logspace(0.1, -3, 12)
    best = objective(X, y, fista(X, y, lams, 1e-9), lams)
    for tol in (1e-2, 1e-4, 1e-6):
        W, target = fista(X, y, lams, tol), tol * y.square().mean() / 2
        assert (duality_gap(X, y, W, lams) <= target * (1 + 1e-9)).all()
        assert (objective(X, y, W, lams) <= best + target).all()


def test_fista_takes_lambdas_in_any_order():
    X, y = correlated(40, 60, 5)
    lams = [0.01, 1.0, 0.1, 0.1]
    W = fista(X, y, lams, 1e-10)
    assert torch.equal(W, fista(X, y, sorted(lams), 1e-10)[[0, 3, 1, 1]])
    assert torch.equal(W[2], W[3]) and W[0].count_nonzero() > W[1].count_nonzero()
    assert torch.allclose(fista(X, y, [0.01], 1e-12), W[:1], atol=1e-3)  # without the warm start


def test_fista_finds_a_column_that_the_targets_do_not_point_to():
    """Column 1 is orthogonal to y, and enters only once column 0 has a weight."""
    u, v = torch.linalg.qr(normal(50, 2)).Q.T * math.sqrt(50)
    X = torch.stack([u, 0.8 * u + 0.6 * v], 1)
    y = u - 0.8 / 0.6 * v
    assert abs(X[:, 1] @ y) / 50 < 1e-12
    (w,) = fista(X, y, [0.01], 1e-12)
    assert torch.allclose(w, ista(X, y, 0.01, 5000), atol=1e-5) and w.abs().min() > 0.5


def test_fista_says_when_tol_is_out_of_reach(monkeypatch):
    X, y = correlated(40, 60, 5)
    monkeypatch.setattr(regularizers, "MAX_STEPS", 20)
    with pytest.raises(RuntimeError, match="after 20 steps at λ = 0.001 the duality gap is .*tol"):
        fista(X, y, [1e-3], 1e-12)


def test_fista_leaves_its_arguments_alone_and_its_weights_are_ordinary_tensors():
    X, y = correlated(20, 5, 2)
    before = X.clone(), y.clone()
    W = fista(X.float(), y.numpy(), [0.1]).requires_grad_()
    assert torch.equal(X, before[0]) and torch.equal(y, before[1]) and W.dtype == torch.float64
    l1(W, 1.0).backward()


def test_the_duality_gap_bounds_what_is_left_to_gain():
    X, y = correlated(40, 20, 5)
    lams = torch.tensor([0.5, 0.1, 0.01])
    best = fista(X, y, lams, 1e-13)
    assert duality_gap(X, y, best, lams).abs().max() < 1e-12
    for size in (1e-3, 0.1, 1):
        W = best + size * normal(3, 20)
        gaps = duality_gap(X, y, W, lams)
        assert (gaps >= objective(X, y, W, lams) - objective(X, y, best, lams)).all()
        assert torch.allclose(gaps[1], duality_gap(X, y, W[1], 0.1), rtol=1e-12)
    assert duality_gap(X, y, torch.zeros(20), 1e9) == 0 and duality_gap(0 * X, y, best[0], 0) >= 0
    assert duality_gap(0 * X, y, 0 * best[0], 0) == 0


def test_the_duality_gap_equals_scikit_learns_and_its_definition():
    X, y = correlated(40, 20, 5)
    lams, n = torch.tensor([0.5, 0.1, 0.01]), 40
    _, weights, gaps = lasso_path(X.numpy(), y.numpy(), alphas=lams.numpy(), tol=1e-2)
    W = torch.tensor(weights.T)
    assert np.allclose(duality_gap(X, y, W, lams), gaps, rtol=1e-9) and (gaps > 1e-6).all()
    residual = y - X @ W[2]
    theta = residual * min(1, n * 0.01 / (X.T @ residual).abs().max())
    lower = (y.square().sum() - (y - theta).square().sum()) / (2 * n)
    assert math.isclose(duality_gap(X, y, W[2], 0.01), objective(X, y, W[2], 0.01) - lower,
                        rel_tol=1e-9)


# --- dropout -----------------------------------------------------------------------------


def test_dropout_has_two_values_and_the_mean_and_variance_of_theory():
    x, n = torch.tensor([-2.0, 0.5, 3.0]), 200_000
    for p in (0.1, 0.5, 0.8):
        draws = dropout(x.expand(n, 3), p, generator(0, f"dropout/{p}"))
        assert all(set(draws[:, i].unique().tolist()) == {0, x[i].item() / (1 - p)} for i in (0, 1))
        variance = x**2 * p / (1 - p)
        assert ((draws.mean(0) - x).abs() < 4 * (variance / n).sqrt()).all()
        # (draw − x)² has the variance  x⁴ p(1 − 2p)² / (1 − p)³
        se = (x**4 * p * (1 - 2 * p) ** 2 / (1 - p) ** 3 / n).sqrt() + 1e-9
        assert (((draws - x) ** 2).mean(0) - variance).abs().le(4 * se).all()


def test_the_gradient_of_dropout_goes_through_the_same_mask():
    x = normal(5, 4).requires_grad_()
    out = dropout(x, 0.5, generator(0, "mask"))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient, (out != 0) * 2.0) and 0 < (gradient == 0).sum() < 20
    assert torch.autograd.gradcheck(lambda x: dropout(x, 0.3, generator(0, "mask")), (x,))


def test_dropout_equals_torchs_under_its_mask():
    x = normal(6, 5)
    torchs = torch.nn.Dropout(0.25)
    with seeded(0):
        mask = torchs(torch.ones(6, 5)) * 0.75
    with seeded(0):
        theirs = torchs(x)
    assert torch.allclose(theirs, x * mask / 0.75, rtol=1e-15)
    # ours, by a mask of its own
    ours = dropout(x, 0.25, generator(1, "mask"))
    mask = torch.rand(6, 5, generator=generator(1, "mask")) >= 0.25
    assert torch.allclose(ours, x * mask / 0.75, rtol=1e-15)


def test_dropout_of_nothing_is_the_identity_and_draws_nothing():
    x, g = normal(3), generator(0, "mask")
    before = g.get_state()
    assert dropout(x, 0, g) is x and dropout(x, 0.5, g, training=False) is x
    assert torch.equal(g.get_state(), before)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("x", "p", "error", "says"), [
    (torch.ones(2), 1.0, ValueError, r"p, the probability to drop, must be in \[0, 1\), got 1.0"),
    (torch.ones(2), -0.1, ValueError, "got -0.1"),
    (torch.ones(2), NAN, ValueError, "got nan"),
    (torch.ones(2), "half", ValueError, "got 'half'"),
    (torch.ones(2, dtype=torch.long), 0.5, TypeError, "x must be floating point, got torch.int64"),
    (torch.ones(0, 3), 0.5, ValueError, r"at least one element, got shape \(0, 3\)"),
])
def test_dropout_names_bad_input(x, p, error, says, training):
    with pytest.raises(error, match=says):
        dropout(x, p, generator(0, "mask"), training)


# --- targets -----------------------------------------------------------------------------


def classes(*shape, stream="classes"):
    return torch.randint(0, 5, shape, generator=generator(0, stream))


def smooth(z, y, epsilon):
    return F.cross_entropy(z, y, label_smoothing=epsilon)


@pytest.mark.parametrize("epsilon", [0, 0.1, 0.9])
def test_label_smoothing_equals_torchs(epsilon):
    z, y = 3 * normal(7, 5).requires_grad_(), classes(7)
    (ours,), (theirs,) = (
        torch.autograd.grad(loss(z, y, epsilon), z) for loss in (label_smoothing, smooth)
    )
    assert torch.allclose(label_smoothing(z, y, epsilon), smooth(z, y, epsilon), rtol=1e-13)
    assert torch.allclose(ours, theirs, atol=1e-15)
    assert torch.isclose(label_smoothing(z + 1e3, y, epsilon), smooth(z, y, epsilon), rtol=1e-9)


def test_label_smoothing_of_many_models_has_an_epsilon_for_each_setting():
    z, y, epsilons = normal(2, 3, 7, 5), classes(2, 1, 7), torch.tensor([0.0, 0.1, 0.5])
    losses = label_smoothing(z, y, epsilons)
    for s in range(2):
        expected = [smooth(z[s, h], y[s, 0], e.item()) for h, e in enumerate(epsilons)]
        assert torch.allclose(losses[s], torch.stack(expected), rtol=1e-13)


def test_the_floor_of_label_smoothing_is_the_entropy_of_its_labels():
    target = torch.full((1, 10), 0.01).index_fill(1, torch.tensor([3]), 0.91)
    floor = label_smoothing(target.log(), torch.tensor([3]), 0.1)
    assert math.isclose(floor, -(target * target.log()).sum(), rel_tol=1e-13)
    for size in (1e-3, 0.1, 3):
        away = target.log() + size * normal(1, 10)
        assert label_smoothing(away, torch.tensor([3]), 0.1) > floor


def test_mixup_mixes_each_sample_with_its_partner():
    X, rows = normal(50, 3, 2), torch.arange(50)
    mixed, partner, c = mixup(X, rows, 0.7, generator(0, "mixup"))
    assert partner.sort().values.equal(rows) and not partner.equal(rows)
    for i in rows:
        expected = c[i] * X[i] + (1 - c[i]) * X[partner[i]]
        assert torch.allclose(mixed[i], expected, atol=1e-15)
    y = classes(50)
    assert torch.equal(mixup(X, y, 0.7, generator(0, "mixup"))[1], y[partner])


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 4.0, 50.0])
def test_the_coefficients_of_mixup_follow_a_beta_distribution(alpha):
    X = torch.zeros(20_000, 1)
    _, _, c = mixup(X, X[:, 0], alpha, generator(0, f"mixup/{alpha}"))
    assert c.min() >= 0 and c.max() <= 1
    assert furthest(c, alpha) < 4 < furthest(c, 1.2 * alpha)


def furthest(c, alpha):
    """Shares below points of [0, 1] against the distribution function, in standard errors."""
    points = torch.tensor([1e-6, 1e-3, 0.05, 0.3, 0.45, 0.55, 0.7, 0.95, 1 - 1e-3, 1 - 1e-6])
    below = stats.beta(alpha, alpha).cdf(points)
    shares = (c.unsqueeze(1) <= points).double().mean(0).numpy()
    return np.max(np.abs(shares - below) / np.sqrt((below * (1 - below) + 1e-12) / len(c)))


def test_mixup_of_many_data_sets_and_alphas_is_independent_along_the_data_sets_only():
    X, y = normal(2, 1, 30, 4), torch.arange(30).expand(2, 1, 30)
    alphas = torch.tensor([[0.2], [1.0], [1e9]])
    mixed, partner, c = mixup(X, y, alphas, generator(0, "mixup"))
    assert mixed.shape == (2, 3, 30, 4) and partner.shape == (2, 1, 30) and c.shape == (2, 3, 30)
    assert not partner[0].equal(partner[1]) and not torch.allclose(c[0], c[1])
    assert torch.allclose(c[:, 2], torch.tensor(0.5), atol=1e-3)
    alone = mixup(X, y, 1.0, generator(0, "mixup"))
    assert torch.equal(alone[0], mixed[:, 1:2]) and torch.equal(alone[2], c[:, 1:2])
    assert torch.equal((c[:, 0] > 0.5), (c[:, 1] > 0.5))  # one noise for all alphas
    for s, h in ((0, 0), (1, 2)):
        share = c[s, h].unsqueeze(1)
        expected = share * X[s, 0] + (1 - share) * X[s, 0, partner[s, 0]]
        assert torch.allclose(mixed[s, h], expected, atol=1e-15)


def test_mixup_draws_from_its_generator_alone_and_keeps_the_dtype():
    X, y, state = normal(9, 2), classes(9), torch.get_rng_state()
    first = mixup(X, y, 1.0, generator(0, "mixup"))
    assert all(map(torch.equal, first, mixup(X, y, 1.0, generator(0, "mixup"))))
    assert not torch.equal(first[2], mixup(X, y, 1.0, generator(1, "mixup"))[2])
    assert torch.equal(torch.get_rng_state(), state)
    mixed, _, c = mixup(X.float(), y, 1.0, generator(0, "mixup"))
    assert mixed.dtype == c.dtype == torch.float32


# --- bad input ---------------------------------------------------------------------------

X, Y, W = torch.ones(4, 2), torch.ones(4), torch.ones(2)


@pytest.mark.parametrize("bad", [-0.1, -INF, INF, NAN])
@pytest.mark.parametrize(("call", "name"), [
    (lambda bad: l1(W, bad), "lam"),
    (lambda bad: l2(W, bad), "lam"),
    (lambda bad: elastic_net(W, bad, 1), "lam1"),
    (lambda bad: elastic_net(W, 1, bad), "lam2"),
    (lambda bad: soft_threshold(W, bad), "t"),
    (lambda bad: soft_threshold(W, torch.tensor([1.0, bad])), "t"),
    (lambda bad: prox_l2(W, bad), "t"),
    (lambda bad: prox_elastic_net(W, bad, 1), "t1"),
    (lambda bad: prox_elastic_net(W, 1, bad), "t2"),
    (lambda bad: block_soft_threshold(W, bad), "t"),
    (lambda bad: ridge(X, Y, bad), "lam"),
    (lambda bad: ridge(X, Y, [1.0, bad]), "lam"),
    (lambda bad: ista(X, Y, bad, 5), "lam"),
    (lambda bad: duality_gap(X, Y, W, bad), "lam"),
])
def test_a_lambda_below_0_or_not_finite_is_refused(call, name, bad):
    with pytest.raises(ValueError, match=f"^{name} must be at least 0 and finite, got .*{bad}"):
        call(bad)


@pytest.mark.parametrize("call", [
    lambda X, y: ridge(X, y, 1.0),
    lambda X, y: ista(X, y, 1.0, 5),
    lambda X, y: fista(X, y, [1.0]),
    lambda X, y: duality_gap(X, y, W, 1.0),
])
def test_data_that_do_not_fit_are_refused(call):
    for bad in (NAN, INF):
        with pytest.raises(ValueError, match="X must be finite everywhere, got 2 values nan or"):
            call(X.index_fill(0, torch.tensor([1]), bad), Y)
        with pytest.raises(ValueError, match="y must be finite everywhere, got 4 values nan or"):
            call(X, Y * bad)
    with pytest.raises(ValueError, match=r"y must have shape \(4,\), .* got \(4, 1\)"):
        call(X, Y.unsqueeze(1))
    with pytest.raises(ValueError, match=r"X must have shape .*n, d\).*got \(4,\)"):
        call(Y, Y)
    with pytest.raises(ValueError, match=r"n and d at least 1, got \(0, 2\)"):
        call(X[:0], Y[:0])


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda: l1(W, [0.1]), TypeError, r"lam must be a number or a tensor, got \[0.1\]"),
    (lambda: soft_threshold(W, "1"), TypeError, "t must be a number or a tensor, got '1'"),
    (lambda: ridge(X, Y, [[1.0]]), ValueError, r"lam must be a number or .*shape \(1, 1\)"),
    (lambda: ista(X.expand(3, 4, 2), Y.expand(3, 4), 1, 5), ValueError, r"X must .*\(n, d\)"),
    (lambda: ista(X, Y, 1.0, -1), ValueError, "steps must be at least 0, got -1"),
    (lambda: fista(X, Y, 0.1), ValueError, "lams must be a sequence"),
    (lambda: fista(X, Y, []), ValueError, "lams must be a sequence"),
    (lambda: fista(X, Y, [0.1, 0.0]), ValueError, "lams must be .* above 0"),
    (lambda: fista(X, Y, [0.1, -1.0]), ValueError, "lams must be .* above 0"),
    (lambda: fista(X, Y, [NAN]), ValueError, "lams must be .* finite"),
    (lambda: fista(X, Y, [INF]), ValueError, "lams must be .* finite"),
    (lambda: fista(X, Y, [0.1], 0), ValueError, "tol must be above 0, got 0"),
    (lambda: fista(X, Y, [0.1], NAN), ValueError, "tol must be above 0, got nan"),
    (lambda: duality_gap(X, Y, Y, 0.1), ValueError, r"w must have shape \(2,\) .*got \(4,\)"),
    (lambda: duality_gap(X, Y, W, [0.1]), ValueError, r"w must have shape \(1, 2\)"),
    (lambda: label_smoothing(X, torch.zeros(4), 0.1), TypeError, "y must hold whole numbers"),
    (lambda: label_smoothing(X, torch.zeros(3).long(), 0.1), ValueError, "must agree in B"),
    (lambda: label_smoothing(X, Y.long(), 1.0), ValueError, r"epsilon must be in \[0, 1\), got 1"),
    (lambda: label_smoothing(X, Y.long(), -0.1), ValueError, "epsilon must be at least 0"),
    (lambda: mixup(X, Y, 0.0, None), ValueError, "alpha must be above 0, got 0"),
    (lambda: mixup(X, Y, NAN, None), ValueError, "alpha must be at least 0 and finite, got nan"),
    (lambda: mixup(X.long(), Y, 1.0, None), TypeError, "X must be floating point, got torch.int64"),
    (lambda: mixup(X, Y[:3], 1.0, None), ValueError, r"must agree, got \(4, 2\) and \(3,\)"),
    (lambda: mixup(X, torch.tensor(1), 1.0, None), ValueError, "must agree"),
    (lambda: duality_gap(X, Y, W * NAN, 0.1), ValueError, "w must be finite everywhere, got 2"),
])
def test_other_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
