"""Typical wrong answers: what is wrong, the change to the reference solution, the checks lost."""

WRONG = [
    ("the ½ of the penalty is forgotten", {"q1-answer": ("data + lam / 2 *", "data + lam *")},
     ["q1-check-penalty"]),
    ("the sum over the samples instead of the mean", {"q1-answer": (" / len(y) + lam * (w - w_old), residual.mean()",
      " + lam * (w - w_old), residual.sum()")}, ["q1-check-data"]),
    ("the ½ stays in the derivative", {"q1-answer": ("lam * (w - w_old), residual", "lam / 2 * (w - w_old), residual")},
     ["q1-check-slope"]),
    ("the bias is penalised", {"q1-answer": ("(w - w_old).square().sum()", "((w - w_old).square().sum() + b**2)")},
     ["q1-check-free"]),
    ("pulled towards 0", {"q1-answer": """def objective(w, b, X, y, w_old, lam):
    return (X @ w + b - y).square().mean() / 2 + lam / 2 * w.square().sum()


def gradient(w, b, X, y, w_old, lam):
    residual = X @ w + b - y
    return X.T @ residual / len(y) + lam * w, residual.mean()"""}, ["q1-check-penalty", "q1-check-slope"]),
    ("λ for a sum over the samples", {"q2-answer": ("Z.T @ Z / n + lam * torch.eye(d), Z.T @ moved / n",
      "Z.T @ Z + lam * torch.eye(d), Z.T @ moved")}, ["q2-check-minimum"]),
    ("fitted towards 0", {"q2-answer": ("v_old = w_old * sd", "v_old = 0 * w_old")}, ["q2-check-towards"]),
    ("the intercept is penalised", {"q2-answer": ("return w, y.mean() - mean @ w", "return w, y.mean() / (1 + lam) - mean @ w")},
     ["q2-check-intercept"]),
    ("features not standardised", {"q2-answer": ("X.mean(0), X.std(0, correction=0)", "X.mean(0), torch.ones(d)")},
     ["q2-check-units"]),
    ("the old weights left in their units", {"q2-answer": ("v_old = w_old * sd", "v_old = w_old")},
     ["q2-check-units"]),
    ("the sign of the subgradient", {"q3-answer": ("(g + lam *", "(g - lam *")}, ["q3-check-sign"]),
    ("soft threshold at λ instead of ηλ", {"q3-answer": ("- lr * lam)", "- lam)")}, ["q3-check-threshold"]),
    ("soft threshold around 0", {"q3-answer": ("""    change = w - lr * g - w_old
    return w_old + change""", """    change = w - lr * g
    return change""")}, ["q3-check-threshold"]),
    ("the mean over each matrix", {"q4-answer": (".square().sum()", ".square().mean()")}, ["q4-check-sum"]),
    ("biases are penalised", {"q4-answer": (' if name.endswith("weight")', "")}, ["q4-check-bias"]),
    ("remembers the weights, not their values", {"q4-answer": ("p.detach().clone()", "p.detach()")},
     ["q4-check-copy"]),
    ("the penalty has no gradient", {"q4-answer": ("p - old[name]", "p.detach() - old[name]")},
     ["q4-check-flow"]),
    ("λ chosen on the test set", {"q5-answer": ("error(model, *validation)", "error(model, *test)")},
     ["q5-check-choice"]),
    ("the λ of one arm used for all", {"q5-answer": """def single_gains(train, validation, test, old, lams):
    zero = torch.zeros_like(old)
    lam = min(lams, key=lambda lam: error(fit_towards(*train, zero, lam), *validation))
    nothing = error(fit_towards(*train, zero, lam), *test)
    models = [fit_towards(*train, centre, lam) for centre in torch.diag(old)]
    return torch.stack([nothing - error(model, *test) for model in models])"""}, ["q5-check-choice"]),
    ("the sign of the gain", {"q5-answer": ("nothing - test_error(centre)", "test_error(centre) - nothing")},
     ["q5-check-pieces"]),
    # One mistake in each question: none of them costs points elsewhere
    ("a mean over weights, n − 1, pulled towards 0, no ½, and λ chosen on the training set", {
        "q1-answer": ("(w - w_old).square().sum()", "(w - w_old).square().mean()"),
        "q2-answer": (", correction=0", ""),
        "q3-answer": ("(w - w_old).sign()", "w.sign()"),
        "q4-answer": ("lam / 2 *", "lam *"),
        "q5-answer": ("error(model, *validation)", "error(model, *train)")},
     ["q1-check-penalty", "q2-check-minimum", "q3-check-sign", "q4-check-sum", "q5-check-choice"]),
    ("no ½ in the loss, standardised weights, threshold before the step, no square, a piece left out", {
        "q1-answer": (".square().mean() / 2", ".square().mean()"),
        "q2-answer": ("w = v / sd", "w = v"),
        "q3-answer": ("""    change = w - lr * g - w_old
    return w_old +""", """    change = w - w_old
    return w_old - lr * g +"""),
        "q4-answer": (".square().sum()", ".norm()"),
        "q5-answer": ("for centre in torch.diag(old)", "for centre in old - torch.diag(old)")},
     ["q1-check-data", "q2-check-units", "q3-check-threshold", "q4-check-sum", "q4-check-flow",
      "q5-check-pieces", "q5-check-choice"]),
    ("the penalty in the loss only, a centred intercept, a subgradient of 1 at the old weight", {
        "q1-answer": (" + lam * (w - w_old), residual", ", residual"),
        "q2-answer": ("y.mean() - mean @ w", "y.mean()"),
        "q3-answer": ("(w - w_old).sign()", "torch.where(w >= w_old, 1.0, -1.0)")},
     ["q1-check-slope", "q2-check-intercept", "q3-check-sign"]),
]  # fmt: skip
