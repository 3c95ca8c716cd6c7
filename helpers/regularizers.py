"""Penalties, proximal maps, linear regressions, dropout, label smoothing and mixup.

The regressions minimise the book's ½ · mean squared error + penalty, without an intercept
(centre X and y first), in float64. A proximal map is a step that pays for moving::

    prox(z) = argmin over w of  ½‖w − z‖² + penalty(w)
"""

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

from helpers.ensemble import cross_entropy

MAX_STEPS = 100_000  # of fista, for each λ; then tol is out of reach

# --- penalties ---------------------------------------------------------------------------


def l1(w: Tensor, lam: float) -> Tensor:
    """λ‖w‖₁ = λ Σ|wᵢ| over all elements of w, a tensor of any shape; a scalar for autograd.

    Raises ValueError if lam is negative or not finite. Source: Tibshirani (1996).
    Taught in: notebooks/05_l1
    """
    return _nonnegative("lam", lam) * w.abs().sum()


def l2(w: Tensor, lam: float) -> Tensor:
    """(λ/2)‖w‖₂² = (λ/2) Σwᵢ² over all elements of w, of any shape; a scalar for autograd.

    Its gradient is λw. Raises ValueError if lam is negative or not finite.
    Source: Hoerl and Kennard (1970). Taught in: notebooks/06_penalties_in_a_network
    """
    return _nonnegative("lam", lam) / 2 * w.square().sum()


def elastic_net(w: Tensor, lam1: float, lam2: float) -> Tensor:
    """λ₁‖w‖₁ + (λ₂/2)‖w‖₂² over all elements of w, of any shape; a scalar for autograd.

    Raises ValueError if lam1 or lam2 is negative or not finite.
    Source: Zou and Hastie (2005). Taught in: notebooks/05_l1
    """
    lam1, lam2 = _nonnegative("lam1", lam1), _nonnegative("lam2", lam2)
    return l1(w, lam1) + l2(w, lam2)


# --- proximal maps -----------------------------------------------------------------------


def soft_threshold(z: Tensor, t: float | Tensor) -> Tensor:
    """Proximal map of t‖·‖₁: sign(z) max(|z| − t, 0), element by element.

    z of any shape; t ≥ 0, a number or a tensor that broadcasts against z. What lies within
    ±t becomes exactly 0. Raises ValueError if t is negative or not finite.
    Source: Parikh and Boyd (2014). Taught in: notebooks/05_l1
    """
    t = _nonnegative("t", t)
    return z - z.clamp(-t, t)  # |z| ≤ t gives +0, where sign(z) · 0 would give −0 for z < 0


def prox_l2(z: Tensor, t: float | Tensor) -> Tensor:
    """Proximal map of (t/2)‖·‖₂²: z / (1 + t). It shrinks, and makes nothing 0.

    z of any shape; t ≥ 0, a number or a tensor that broadcasts against z.
    Raises ValueError if t is negative or not finite.
    Source: Parikh and Boyd (2014). Taught in: notebooks/05_l1
    """
    return z / (1 + _nonnegative("t", t))


def prox_elastic_net(z: Tensor, t1: float | Tensor, t2: float | Tensor) -> Tensor:
    """Proximal map of t1‖·‖₁ + (t2/2)‖·‖₂²: soft_threshold(z, t1) / (1 + t2).

    z of any shape; t1, t2 ≥ 0, numbers or tensors that broadcast against z.
    Raises ValueError if t1 or t2 is negative or not finite.
    Source: Parikh and Boyd (2014). Taught in: notebooks/05_l1
    """
    t1, t2 = _nonnegative("t1", t1), _nonnegative("t2", t2)
    return prox_l2(soft_threshold(z, t1), t2)


def block_soft_threshold(z: Tensor, t: float | Tensor) -> Tensor:
    """Proximal map of t‖·‖₂ along the last axis: max(1 − t/‖z‖₂, 0) z (group lasso).

    z (…, d); t ≥ 0, a number or (…). A row of norm at most t becomes exactly 0, whole.
    Raises ValueError if t is negative or not finite.
    Source: Parikh and Boyd (2014). Taught in: notebooks/05_l1
    """
    t = torch.as_tensor(_nonnegative("t", t)).unsqueeze(-1)
    norm = z.norm(dim=-1, keepdim=True)
    return torch.where(norm <= t, 0.0, z * (1 - t / norm))


# --- linear regression with an L2 penalty ------------------------------------------------


def ridge(X: Tensor, y: Tensor, lam: float | Sequence[float]) -> Tensor:
    """argmin ½‖y − Xw‖²/n + (λ/2)‖w‖² = (XᵀX + nλI)⁻¹Xᵀy, for one λ or several at once.

    X (…, n, d), y (…, n);  returns (…, d) for a number λ, (…, L, d) for a sequence of L

    With X = U diag(s) Vᵀ it is V diag(s / (s² + nλ)) Uᵀy: one decomposition serves all λ.
    λ = 0 is least squares, the solution of smallest norm where there are many. Raises
    ValueError if λ is negative, shapes don't fit, or a value isn't finite.
    Source: Hoerl and Kennard (1970). Taught in: notebooks/04_l2
    """
    X, y = _regression(X, y)
    lams = _nonnegative("lam", torch.as_tensor(lam, dtype=torch.float64))
    if lams.dim() > 1:
        raise ValueError(f"lam must be a number or a sequence, got shape {tuple(lams.shape)}")
    n, d = X.shape[-2:]
    U, s, Vh = torch.linalg.svd(X, full_matrices=False)
    noise = s[..., :1] * max(n, d) * torch.finfo(s.dtype).eps  # s below this is rounding of 0
    s = s.where(s > noise, 0).unsqueeze(-2)
    shrunk = torch.where(s > 0, s / (s**2 + n * lams.view(-1, 1)), 0)
    w = (shrunk * (y.unsqueeze(-2) @ U)) @ Vh
    return w if lams.dim() else w.squeeze(-2)


# --- linear regression with an L1 penalty ------------------------------------------------


def ista(
    X: Tensor, y: Tensor, lam: float, steps: int, step_size: float | None = None
) -> Tensor:
    """argmin ½‖y − Xw‖²/n + λ‖w‖₁ by proximal gradient from w = 0: gradient step, threshold.

    X (n, d), y (n,), steps ≥ 0;  returns w (d,) after that many steps
    step_size  n/‖X‖₂² unless given; from 2n/‖X‖₂² on it would diverge

    Raises ValueError if λ is negative, step_size too large, shapes don't fit, or a value
    isn't finite. Source: Daubechies, Defrise and De Mol (2004). Taught in: notebooks/05_l1
    """
    X, y = _regression(X, y, dim=2)
    lam = _nonnegative("lam", lam)
    step_size = _step_size(X, step_size)
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}")
    w = X.new_zeros(X.shape[1])
    for _ in range(steps):
        gradient = X.T @ (X @ w - y) / len(y)
        w = soft_threshold(w - step_size * gradient, step_size * lam)
    return w


@torch.no_grad()
def fista(X: Tensor, y: Tensor, lams: Sequence[float], tol: float = 1e-6) -> Tensor:
    """argmin ½‖y − Xw‖²/n + λ‖w‖₁ for several λ, by accelerated proximal gradient.

    X (n, d), y (n,), lams L numbers > 0 in any order;  returns (L, d)
    tol  each solution's duality gap is at most tol · ‖y‖²/(2n), the objective at w = 0

    A usual path is ``lams = lam_max * torch.logspace(0, -3, 50)``: from lam_max = max|Xᵀy|/n,
    where all weights become 0, geometrically down to a thousandth.

    From the largest λ down, each solution is the start for the next λ, and steps are taken on
    the columns that may have a weight only; the gap over all columns then tells whether one
    was missed. Raises ValueError if a λ isn't positive, shapes don't fit, or a value isn't
    finite, RuntimeError if rounding or very many steps stand before tol. Sources: Beck and
    Teboulle (2009); restart: O'Donoghue and Candès (2015). Taught in: notebooks/05_l1
    """
    X, y = _regression(X, y, dim=2)
    lams = torch.as_tensor(lams, dtype=torch.float64)
    if lams.dim() != 1 or not len(lams) or not (lams > 0).all() or not lams.isfinite().all():
        raise ValueError(f"lams must be a sequence of finite numbers above 0, got {lams}")
    if not tol > 0:
        raise ValueError(f"tol must be above 0, got {tol}")
    step_size, target = _step_size(X, None), tol * y.square().mean().item() / 2
    w, W = X.new_zeros(X.shape[1]), X.new_zeros(len(lams), X.shape[1])
    for i in lams.argsort(descending=True).tolist():
        w = W[i] = _on_columns(X, y, lams[i].item(), w, step_size, target)
    return W


def _on_columns(X, y, lam: float, w: Tensor, step_size: float, target: float) -> Tensor:
    """One λ: accelerate on few columns, add those that the gap over all columns asks for."""
    columns, w = w != 0, w.clone()
    gap, slope = _gap(X, y, w, lam)
    while not gap <= target:
        columns |= slope > 0.9 * lam  # exceeding λ outside is what would keep the gap open
        w[columns] = _accelerated(X[:, columns], y, lam, w[columns], step_size, target)
        gap, slope = _gap(X, y, w, lam)
    return w


def _accelerated(X, y, lam: float, w: Tensor, step_size: float, target: float) -> Tensor:
    """FISTA: proximal steps from a point beyond w; momentum restarts where it leads uphill."""
    ahead, t = w, 1.0
    for k in range(1, MAX_STEPS + 1):
        residual = y.addmv(X, ahead, alpha=-1)  # y − X ahead; fused, since this is the hot loop
        new = ahead.addmv(X.T, residual, alpha=step_size / len(y))
        new = soft_threshold(new, step_size * lam)
        moved = new - w
        t_old = 1.0 if (ahead - new).dot(moved).item() > 0 else t
        t = (1 + math.sqrt(1 + 4 * t_old**2)) / 2
        ahead, w = new.add(moved, alpha=(t_old - 1) / t), new
        if k % 10 == 0 and (gap := _gap(X, y, w, lam)[0].item()) <= target:
            return w
    raise RuntimeError(
        f"fista: after {MAX_STEPS} steps at λ = {lam:.3g} the duality gap is {gap:.2g}, and tol "
        f"asks for {target:.2g}; raise tol, or bring the columns of X to similar scales"
    )


def duality_gap(X: Tensor, y: Tensor, w: Tensor, lam: float | Sequence[float]) -> Tensor:
    """By how much ½‖y − Xw‖²/n + λ‖w‖₁ lies above its minimum, at most.

    X (n, d), y (n,); w (d,) with a number λ gives (), w (L, d) with a sequence of L gives (L,)

    The minimum is at least (½‖y‖² − ½‖y − θ‖²)/n for every θ with all |Xᵀθ| ≤ nλ; we take
    the residual y − Xw, shrunk until it is one. Raises ValueError if λ is negative, shapes
    don't fit, or a value isn't finite. Source: Kim, Koh, Lustig, Boyd and Gorinevsky (2007).
    Taught in: notebooks/05_l1
    """
    X, y = _regression(X, y, dim=2)
    w, lam = (torch.as_tensor(v, dtype=torch.float64) for v in (w, lam))
    if w.shape != (*lam.shape, X.shape[1]):
        raise ValueError(
            f"w must have shape {(*lam.shape, X.shape[1])} for this X and lam, "
            f"got {tuple(w.shape)}"
        )
    return _gap(X, y, _finite("w", w), _nonnegative("lam", lam))[0]


def _gap(X: Tensor, y: Tensor, w: Tensor, lam) -> tuple[Tensor, Tensor]:
    """The duality gap, and the |Xᵀr|/n (…, d), which are at most λ in the minimum."""
    residual = y - w @ X.T
    slope = (residual @ X).abs() / len(y)
    shrink = torch.fmin(lam / slope.amax(-1), y.new_ones(()))  # fmin: 0/0 counts as 1
    square = torch.linalg.vecdot(residual, residual)
    primal = square / 2 + len(y) * lam * torch.linalg.vector_norm(w, 1, dim=-1)
    dual = shrink * torch.linalg.vecdot(residual, y) - shrink**2 * square / 2
    return (primal - dual) / len(y), slope


# --- dropout -----------------------------------------------------------------------------


def dropout(
    x: Tensor, p: float, generator: torch.Generator, training: bool = True
) -> Tensor:
    """Inverted dropout: x·m / (1 − p), each element of m being 0 with probability p, else 1.

    x          of any shape, floating point
    p          the probability to drop, in [0, 1)
    generator  where the mask comes from: m = 1 where a uniform number on [0, 1) is at least p
    training   False returns x itself, and so does p = 0, without drawing

    Mean x and variance x² p/(1 − p), element by element; the gradient goes through the same
    mask. Raises TypeError if x holds whole numbers, ValueError if p is out of range or x is
    empty. Source: Srivastava et al. (2014). Taught in: notebooks/10_dropout_by_hand
    """
    if not isinstance(p, Real) or not 0 <= p < 1:
        raise ValueError(f"p, the probability to drop, must be in [0, 1), got {p!r}")
    if not x.is_floating_point():
        raise TypeError(f"x must be floating point, got {x.dtype}; x.double() converts")
    if not x.numel():
        raise ValueError(f"x must have at least one element, got shape {tuple(x.shape)}")
    if not training or p == 0:
        return x
    keep = torch.rand(x.shape, generator=generator, dtype=x.dtype) >= p
    return x * keep / (1 - p)


# --- targets -----------------------------------------------------------------------------


def label_smoothing(outputs: Tensor, y: Tensor, epsilon: float | Tensor) -> Tensor:
    """Mean cross-entropy in nats against (1 − ε) · one-hot(y) + ε/C.

    outputs (…, B, C), logits, and y (…, B), whole numbers, give (…)
    epsilon  in [0, 1), a number or a tensor that broadcasts against (…)

    That is the cross-entropy plus ε times the lead of the right logit over the mean logit.
    Its minimum is not 0 but the entropy of the smoothed labels. Raises ValueError if epsilon
    is out of range, or outputs and y don't agree in B; TypeError if y isn't whole numbers.
    Source: Szegedy et al. (2016). Taught in: notebooks/14_other_regularizers
    """
    if not (_nonnegative("epsilon", torch.as_tensor(epsilon)) < 1).all():
        raise ValueError(f"epsilon must be in [0, 1), got {epsilon}")
    loss = cross_entropy(outputs, y)
    right = outputs.take_along_dim(y.unsqueeze(-1), -1).squeeze(-1)
    return loss + epsilon * (right - outputs.mean(-1)).mean(-1)


def mixup(
    X: Tensor, y: Tensor, alpha: float | Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Mix each sample with a partner: c·X + (1 − c)·X[partner], c ~ Beta(α, α) for each sample.

    X (…, n, features…), y (…, n): samples, and their targets; along the leading axes data
    sets side by side, whose partners and c are independent
    alpha      above 0, a number or a tensor that broadcasts against y, such as (H, 1)
    generator  gives the partners, a random permutation, and the noise in c; all α share both

    Returns the mixed X, the partners' targets (…, n), and c (…, n). The loss is
    c · loss(output, y) + (1 − c) · loss(output, y of the partner), sample by sample.
    Raises TypeError if X isn't floating point, ValueError if alpha is out of range or X and
    y don't fit. Source: Zhang et al. (2018). Taught in: notebooks/14_other_regularizers
    """
    alpha = _positive("alpha", torch.as_tensor(alpha, dtype=torch.float64))
    _samples(X, y)
    partner = torch.rand(y.shape, generator=generator).argsort(-1)
    c = _symmetric_beta(alpha, *torch.rand(2, *y.shape, generator=generator)).to(X.dtype)
    rest = [1] * (X.dim() - y.dim())
    other = X.take_along_dim(partner.view(*y.shape, *rest), y.dim() - 1)
    share = c.view(*c.shape, *rest)
    return share * X + (1 - share) * other, y.gather(-1, partner), c


def _symmetric_beta(alpha: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Beta(α, α) from two uniform numbers: Bailey's (1994) T of Student's t with n = 2α
    degrees of freedom, as ½ + ½ T / √(n + T²)."""
    q, cosine = u ** (1 / alpha), torch.cos(2 * math.pi * v)
    c = 0.5 + 0.5 * cosine / (q / (1 - q) + cosine**2).sqrt()
    return c.clamp(0, 1)  # rounding may leave it by 1e-16


# --- checks ------------------------------------------------------------------------------


def _nonnegative(name: str, value):
    """The value, a number or a tensor, if it is at least 0 and finite everywhere."""
    if not isinstance(value, Tensor | Real):
        raise TypeError(f"{name} must be a number or a tensor, got {value!r}")
    ok = (value >= 0) & (value < math.inf)
    if not (ok.all() if isinstance(value, Tensor) else ok):
        raise ValueError(f"{name} must be at least 0 and finite, got {value}")
    return value


def _positive(name: str, value: Tensor) -> Tensor:
    if not (_nonnegative(name, value) > 0).all():
        raise ValueError(f"{name} must be above 0, got {value}")
    return value


def _samples(X: Tensor, y: Tensor) -> None:
    if not X.is_floating_point():
        raise TypeError(f"X must be floating point, got {X.dtype}; X.double() converts")
    if not y.dim() or X.shape[: y.dim()] != y.shape:
        raise ValueError(
            f"X (…, n, features…) and y (…, n) must agree, "
            f"got {tuple(X.shape)} and {tuple(y.shape)}"
        )


def _regression(X, y, dim: int | None = None) -> tuple[Tensor, Tensor]:
    """X and y in float64, if they fit together and are finite."""
    X, y = (torch.as_tensor(v, dtype=torch.float64) for v in (X, y))
    if X.dim() < 2 or dim and X.dim() != dim or 0 in X.shape:
        raise ValueError(
            f"X must have shape {'(n, d)' if dim else '(…, n, d)'}, n and d at least 1, "
            f"got {tuple(X.shape)}"
        )
    if y.shape != X.shape[:-1]:
        raise ValueError(
            f"y must have shape {tuple(X.shape[:-1])}, one value per row of X, "
            f"got {tuple(y.shape)}"
        )
    return _finite("X", X), _finite("y", y)


def _finite(name: str, values: Tensor) -> Tensor:
    if not values.isfinite().all():
        count = int((~values.isfinite()).sum())
        raise ValueError(f"{name} must be finite everywhere, got {count} values nan or inf")
    return values


def _step_size(X: Tensor, given: float | None) -> float:
    """The given step size if it is safe; n/‖X‖₂² for None."""
    curvature = torch.linalg.matrix_norm(X, 2).item() ** 2 / len(X)
    safe = 1 / max(curvature, torch.finfo(X.dtype).tiny)  # X = 0 is fine with every step
    if given is not None and not 0 < given < 2 * safe:
        raise ValueError(
            f"step_size must be above 0 and below 2n/‖X‖² = {2 * safe:.4g}, where it would "
            f"diverge; n/‖X‖² = {safe:.4g} is the usual one; got {given}"
        )
    return safe if given is None else given
