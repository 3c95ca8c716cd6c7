"""Every row of the tables on the page *Conventions*, computed by the expression it prints."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn import linear_model
from sklearn.neural_network import MLPRegressor
from torch import nn
from torch.nn import functional as F

from helpers.d2l_bridge import d2l
from helpers.data import linear
from helpers.rng import generator, seeded

PAGE = Path(__file__).parents[1] / "book" / "conventions.md"
N, D = 30, 4
X, Y = (v.double().numpy() for v in linear(N, torch.tensor([2.0, -1, 0.5, 0]), 0.5, seed=0))
CLASSES = (Y > 0).astype(int)
RNG_W = np.array([0.3, -0.2, 0.1, 0.4])


def table_rows() -> dict[str, str]:
    """First column of each row: the expression in its last column."""
    rows = re.findall(r"^\| (.+?) \|.*\| `(.+)` \|$", PAGE.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"`", "", name): expression for name, expression in rows}


# --- our side ----------------------------------------------------------------------------


def ridge(lam):
    """argmin ½‖y − Xw‖²/n + λ‖w‖²/2, without an intercept."""
    return np.linalg.solve(X.T @ X / N + lam * np.eye(D), X.T @ Y / N)


def l2_gradient(lam, w=RNG_W):
    """Gradient of our objective with an L2 penalty."""
    return -X.T @ (Y - X @ w) / N + lam * w


def elastic_subgradient_violation(w, l1, l2):
    """0 exactly where w minimises ½‖y − Xw‖²/n + l1‖w‖₁ + l2‖w‖²/2."""
    g = -X.T @ (Y - X @ w) / N + l2 * w
    return np.where(w != 0, np.abs(g + l1 * np.sign(w)), np.maximum(np.abs(g) - l1, 0)).max()


def torch_weights(loss, step, steps=4000):
    """The weights that an optimizer reaches on a linear model without bias."""
    model = nn.Linear(D, 1, bias=False)
    optimizer = step(model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(torch.as_tensor(X))[:, 0], torch.as_tensor(Y)).backward()
        optimizer.step()
    return model.weight.detach().numpy()[0]


def half_mse(out, y):
    return F.mse_loss(out, y) / 2


# --- each row ----------------------------------------------------------------------------
# ``lam`` turns the numbers of the other side into ours, by the page's own expression.


def torch_sgd(lam):
    w = torch_weights(half_mse, lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.7))
    return w, ridge(lam(weight_decay=0.7))


def sklearn_ridge(lam):
    w = linear_model.Ridge(alpha=5.0, fit_intercept=False, tol=1e-12).fit(X, Y).coef_
    return w, ridge(lam(alpha=5.0, n=N))


def sklearn_lasso(lam):
    w = linear_model.Lasso(alpha=0.3, fit_intercept=False, tol=1e-14).fit(X, Y).coef_
    assert (w == 0).any()
    return elastic_subgradient_violation(w, lam(alpha=0.3), 0), 0


def elastic_net(l1=None, l2=None):
    w = linear_model.ElasticNet(
        alpha=0.4, l1_ratio=0.3, fit_intercept=False, tol=1e-14, max_iter=10_000
    ).fit(X, Y).coef_
    return elastic_subgradient_violation(w, 0.4 * 0.3 if l1 is None else l1,
                                         0.4 * (1 - 0.3) if l2 is None else l2), 0


def elastic_net_l1(lam):
    return elastic_net(l1=lam(alpha=0.4, l1_ratio=0.3))


def elastic_net_l2(lam):
    return elastic_net(l2=lam(alpha=0.4, l1_ratio=0.3))


def sklearn_logistic(lam):
    C = 0.2
    model = linear_model.LogisticRegression(C=C, fit_intercept=False, tol=1e-10)
    w = model.fit(X, CLASSES).coef_[0]
    penalty = lam(C=C, n=N) / 2

    def objective(v):
        return np.logaddexp(0, -(2 * CLASSES - 1) * (X @ v)).mean() + penalty * v @ v

    return w, minimize(objective, np.zeros(D), tol=1e-12).x


def sklearn_mlp(lam):
    model = MLPRegressor(
        hidden_layer_sizes=(), solver="lbfgs", alpha=6.0, tol=1e-14, max_iter=10_000,
        random_state=0,
    ).fit(X, Y)
    Xc, Yc = X - X.mean(0), Y - Y.mean()  # scikit-learn's network has a bias, not penalised
    lam = lam(alpha=6.0, n=N)
    return model.coefs_[0][:, 0], np.linalg.solve(Xc.T @ Xc / N + lam * np.eye(D), Xc.T @ Yc / N)


def keras_l2(lam):
    return 0.05 * (RNG_W**2).sum(), lam(l2=0.05) / 2 * (RNG_W @ RNG_W)


def keras_l1(lam):
    return 0.05 * np.abs(RNG_W).sum(), lam(l1=0.05) * np.linalg.norm(RNG_W, 1)


def d2l_loss(model, weight, bias):
    """The loss of a real d2l model whose weights are RNG_W."""
    with torch.no_grad():
        weight.copy_(torch.as_tensor(RNG_W).view_as(weight))
        bias.zero_()
    return model.loss(model(torch.as_tensor(X)), torch.as_tensor(Y).reshape(-1, 1))


def d2l_scratch(lam):
    model = d2l.LinearRegressionScratch(D, lr=0.1)
    loss = d2l_loss(model, model.w, model.b)
    loss = loss + 0.7 * (model.w**2).sum() / 2  # lambd · l2_penalty(w), as in its chapter
    (g,) = torch.autograd.grad(loss, model.w)
    return g.numpy()[:, 0], l2_gradient(lam(lambd=0.7))


def d2l_concise(lam):
    model = d2l.LinearRegression(lr=0.1)
    model(torch.as_tensor(X))  # its layer is lazy: the first input decides its width
    d2l_loss(model, model.net.weight, model.net.bias).backward()
    torch.optim.SGD([model.net.weight], lr=1.0, weight_decay=0.7).step()
    step = RNG_W - model.net.weight.detach().numpy()[0]
    return step, 2 * l2_gradient(lam(weight_decay=0.7))  # the same minimum, twice the step


def decoupled_momentum(lam):
    mu, decay, lr, w, v = 0.8, 0.4, 0.1, np.zeros(D), np.zeros(D)
    for _ in range(5000):
        v = mu * v + X.T @ (X @ w - Y) / N
        w = (1 - lr * decay) * w - lr * v
    return w, ridge(lam(mu=mu, decay=decay))


def summed_loss(lam):
    w = np.linalg.solve(X.T @ X + 5.0 * np.eye(D), X.T @ Y)
    return w, ridge(lam(lambda_sum=5.0, n=N))


def normal_prior(lam):
    sigma, tau = 0.5, 0.3
    joint = tau**2 * X @ X.T + sigma**2 * np.eye(N)  # covariance of y; w and y are jointly normal
    return tau**2 * X.T @ np.linalg.solve(joint, Y), ridge(lam(sigma=sigma, tau=tau, n=N))


def one_step(optimizer):
    """The weight 1 after one step without a data gradient."""
    w = torch.ones(1, requires_grad=True)
    w.grad = torch.zeros(1)
    optimizer([w]).step()
    return w.item()


def torch_adamw(decay):
    return one_step(lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=decay(weight_decay=0.5))), (
        1 - 0.1 * 0.5
    )


def adamw_paper(decay):
    lambda_paper, lr = 0.05, 0.1
    weight_decay = decay(lambda_paper=lambda_paper, lr=lr)
    return one_step(lambda p: torch.optim.AdamW(p, lr=lr, weight_decay=weight_decay)), (
        1 - lambda_paper
    )


def torch_adam(decay):
    weight_decay = decay(weight_decay=0.5)
    coupled = one_step(lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=weight_decay))
    w = torch.ones(1, requires_grad=True)
    w.grad = 0.5 * w.detach()
    torch.optim.Adam([w], lr=0.1).step()
    assert abs(coupled - (1 - 0.1 * 0.5)) > 0.01  # it isn't the decoupled step
    return coupled, w.item()


def drop_share(layer):
    return (layer(torch.ones(200_000)) == 0).double().mean().item()


def torch_dropout(p):
    with seeded(0):
        return drop_share(nn.Dropout(0.3)), p(p=0.3)


def d2l_dropout(p):
    with seeded(1):
        return drop_share(d2l.DotProductAttention(dropout=0.3).dropout), p(dropout=0.3)


def keras_dropout(p):
    """Keras keeps where a uniform number is at least ``rate``."""
    noise = torch.rand(200_000, generator=generator(0, "keras"))
    return 1 - (noise >= 0.3).double().mean().item(), p(rate=0.3)


def dropout_paper(p):
    """r ~ Bernoulli(p) multiplies the outputs: p keeps."""
    kept = torch.bernoulli(torch.full((200_000,), 0.8), generator=generator(0, "paper"))
    return 1 - kept.mean().item(), p(p=0.8)


CASES = {  # first column of the row: how it is computed, and how exactly
    "torch SGD(weight_decay)": (torch_sgd, 1e-9),
    "scikit-learn Ridge(alpha)": (sklearn_ridge, 1e-9),
    "scikit-learn Lasso(alpha)": (sklearn_lasso, 1e-7),
    "scikit-learn ElasticNet(alpha, l1_ratio), its L1 part": (elastic_net_l1, 1e-7),
    "scikit-learn ElasticNet(alpha, l1_ratio), its L2 part": (elastic_net_l2, 1e-7),
    "scikit-learn LogisticRegression(C)": (sklearn_logistic, 1e-4),
    "scikit-learn MLPRegressor(alpha)": (sklearn_mlp, 1e-4),
    "Keras regularizers.L2(l2)": (keras_l2, 1e-12),
    "Keras regularizers.L1(l1)": (keras_l1, 1e-12),
    "D2L from scratch, lambd": (d2l_scratch, 1e-12),
    "D2L concise, weight_decay beside nn.MSELoss": (d2l_concise, 1e-12),
    "SGD with momentum mu and decoupled decay": (decoupled_momentum, 1e-12),
    "a loss that is a sum over samples": (summed_loss, 1e-12),
    "a normal prior of variance tau² for each weight, noise of variance sigma²": (
        normal_prior, 1e-10),
    "torch AdamW(lr, weight_decay)": (torch_adamw, 1e-12),
    "the AdamW paper, λ′": (adamw_paper, 1e-12),
    "torch Adam(weight_decay)": (torch_adam, 1e-12),
    "torch nn.Dropout(p)": (torch_dropout, 5e-3),
    "D2L, dropout": (d2l_dropout, 5e-3),
    "Keras Dropout(rate)": (keras_dropout, 5e-3),
    "the dropout paper, p": (dropout_paper, 5e-3),
}


def disagreement(name: str, expression: str) -> float:
    """Largest difference of the two sides of a row, if its last column reads ``expression``."""
    theirs, ours = CASES[name][0](lambda **numbers: eval(expression, {}, numbers))
    return float(np.abs(np.asarray(theirs) - np.asarray(ours)).max())


def test_every_row_has_a_case_and_every_case_a_row():
    assert set(table_rows()) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_row(name):
    assert disagreement(name, table_rows()[name]) < CASES[name][1]


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_row_fails(name):
    assert disagreement(name, f"1.1 * ({table_rows()[name]})") > CASES[name][1]


def test_losses_are_as_the_page_says():
    """½ · mean squared error and mean cross-entropy, the L2 penalty with its ½."""
    from helpers import ensemble

    out, y = torch.as_tensor(X)[:, :1], torch.as_tensor(Y)
    assert torch.isclose(ensemble.half_mse(out, y), ((out[:, 0] - y) ** 2).mean() / 2)
    logits, classes = torch.as_tensor(X), torch.as_tensor(CLASSES)
    expected = -logits.log_softmax(1)[range(N), classes].mean()
    assert torch.isclose(ensemble.cross_entropy(logits, classes), expected)
