"""Typical wrong answers: what is wrong, the change to the reference solution, the checks lost."""

WRONG = [
    ("coupled written as decoupled", {"q1-answer": ("g = g + lam * w", "w = w - lr * lam * w")},
     ["q1-check-coupled"]),
    ("the decay after the step", {"q1-answer": ("step = step + lr * lam * w", "w = w - lr * lam * (w - step)")},
     ["q1-check-decoupled"]),
    ("the decay without η", {"q1-answer": ("step + lr * lam * w", "step + lam * w")},
     ["q1-check-decoupled"]),
    ("the average moves before the step", {"q1-answer": ("""        step = lr * torch.sign(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g
""", """        m = beta2 * m + (1 - beta2) * g
        step = lr * torch.sign(beta1 * m + (1 - beta1) * g)
""")}, ["q1-check-average", "q1-check-coupled"]),
    ("the missing ½ of the losses is forgotten", {"q2-answer": ('"mean": 2, "sum": 2 * n', '"mean": 1, "sum": n')},
     ["q2-check-loss"]),
    ("coupled and decoupled swapped", {"q2-answer": ('"coupled": 1, "decoupled": 1 - mu', '"decoupled": 1, "coupled": 1 - mu')},
     ["q2-check-coupled", "q2-check-decoupled"]),
    ("momentum forgotten", {"q2-answer": ('"decoupled": 1 - mu', '"decoupled": 1')}, ["q2-check-decoupled"]),
    ("the paper's decay taken for PyTorch's", {"q2-answer": ('(1 - mu) / lr', '1 - mu')}, ["q2-check-paper"]),
    ("biases decayed", {"q3-answer": ("decayed -=",
      "decayed |= {m.bias for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv1d))}\n    decayed -=")},
     ["q3-check-spared"]),
    ("norm gains decayed", {"q3-answer": ("(nn.Linear, nn.Conv1d)", "(nn.Linear, nn.Conv1d, nn.LayerNorm, nn.BatchNorm1d)")},
     ["q3-check-spared"]),
    ("a filter that matches nothing", {"q3-answer": ("{m.weight for m in net.modules() if isinstance(m, multiply)}",
      '{p for name, p in net.named_parameters() if "fc" in name}')}, ["q3-check-decayed"]),
    ("one learning rate", {"q3-answer": ("lr if p in head else lr / 10", "lr")}, ["q3-check-rates"]),
    ("what belongs to no layer is in no group", {"q3-answer": ("        if p.requires_grad",
      "        if p.requires_grad and any(p is q for m in net.modules() if not list(m.children())\n"
      "                                   for q in m.parameters())")}, ["q3-check-once"]),
    ("tied weights in two groups", {"q3-answer": """def fine_tuning_groups(net, lr, lam):
    groups = []
    for path, module in net.named_modules():
        for name, p in module.named_parameters(recurse=False):
            if p.requires_grad:
                decay = name == "weight" and isinstance(module, (nn.Linear, nn.Conv1d))
                groups.append({"params": p, "lr": lr if path.startswith("head") else lr / 10,
                               "weight_decay": lam if decay else 0})
    return groups"""}, ["q3-check-once"]),
    ("the product for λ", {"q4-answer": ("return lr, product / lr", "return lr, product")}, ["q4-check-decay"]),
    ("the decay is part of the gradient", {"q4-answer": ("lr, product = torch.linalg.lstsq(columns, moved).solution[:, 0].tolist()",
      "lr = float(torch.linalg.lstsq(columns[:, :1], moved).solution)\n"
      "    product = float(columns[:, 1] @ (moved[:, 0] - lr * columns[:, 0]) / columns[:, 1].square().sum())")},
     ["q4-check-rate", "q4-check-decay"]),
    ("0 divided by 0", {"q4-answer": ("        return 0.0, 0.0", "        return 0.0, math.nan")}, ["q4-check-decay"]),
    ("both at one setting", {"q5-answer": ("return [divmod(int(grid.argmin()), grid.shape[1]) for grid in mean]",
      "return [divmod(int(mean.sum(0).argmin()), mean.shape[2])] * 2")}, ["q5-check-choice"]),
    ("the sign", {"q5-answer": ("test[0, r0, k0] - test[1, r1, k1]", "test[1, r1, k1] - test[0, r0, k0]")}, ["q5-check-effect"]),
    ("not run by run", {"q5-answer": ("difference.std() /", "(test[0, r0, k0].var() + test[1, r1, k1].var()).sqrt() /")},
     ["q5-check-effect"]),
]  # fmt: skip
