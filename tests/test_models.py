import pytest
import torch
from torch import nn

from helpers import ensemble
from helpers.models import audit, cnn, decay_groups, mlp
from helpers.rng import seeded


def kinds(model):
    return [type(layer) for layer in model]


def test_mlp_has_the_layers_it_says():
    assert kinds(mlp(4, 3, 2, seed=0)) == [nn.Linear, nn.ReLU, nn.Linear]
    model = mlp(4, 3, 5, 2, p=[0.2, 0.0], batch_norm=True, activation=nn.Tanh, seed=0)
    block = [nn.Linear, nn.BatchNorm1d, nn.Tanh, nn.Dropout]
    assert kinds(model) == [*block, *block, nn.Linear]
    assert [layer.p for layer in model if isinstance(layer, nn.Dropout)] == [0.2, 0.0]
    assert model[0].bias is None and model[-1].bias is not None
    assert kinds(mlp(4, 1, seed=0)) == [nn.Linear]


def test_mlp_has_pytorchs_initial_weights_and_leaves_the_generator_alone():
    state = torch.get_rng_state()
    model = mlp(4, 3, 2, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    with seeded(5):
        first, second = nn.Linear(4, 3), nn.Linear(3, 2)
    assert torch.equal(model[0].weight, first.weight)
    assert torch.equal(model[2].bias, second.bias)
    assert not torch.equal(model[0].weight, mlp(4, 3, 2, seed=6)[0].weight)


def test_dropout_and_batch_norm_keep_the_initial_weights():
    plain, dropped = mlp(4, 3, 2, seed=5), mlp(4, 3, 2, p=0.5, seed=5)
    assert torch.equal(plain[-1].weight, dropped[-1].weight)


@pytest.mark.parametrize("size", [8, 7, 28])
def test_cnn_maps_images_to_classes(size):
    model = cnn(1, 3, 4, size=size, classes=5, p=0.2, batch_norm=True, seed=0)
    assert model(torch.zeros(2, 1, size, size)).shape == (2, 5)
    assert nn.Dropout in kinds(model) and nn.BatchNorm2d in kinds(model)
    assert nn.Dropout not in kinds(cnn(1, 3, size=size, seed=0))


def test_a_rate_of_nought_is_a_layer_so_that_rates_stack():
    assert kinds(mlp(4, 3, 2, p=0.0, seed=0)) == kinds(mlp(4, 3, 2, p=0.5, seed=0))
    assert kinds(cnn(1, 3, p=0.0, seed=0)) == kinds(cnn(1, 3, p=0.5, seed=0))


@pytest.mark.parametrize("p", [-0.1, 1.0, [0.1], [0.1, 0.2, 0.3], float("nan")])
def test_p_is_a_drop_probability(p):
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\): one number, or 2"):
        mlp(4, 3, 3, 2, p=p, seed=0)


def test_widths_and_channels_are_checked():
    for widths in ((4,), (4, 0, 2)):
        with pytest.raises(ValueError, match="widths must be"):
            mlp(*widths, seed=0)
    with pytest.raises(ValueError, match="channels must be"):
        cnn(1, seed=0)
    with pytest.raises(ValueError, match="p must be"):
        cnn(1, 2, p=1.0, seed=0)


# --- parameter groups --------------------------------------------------------------------


class Tied(nn.Module):
    """A language model in small: attention, a position embedding, one matrix used twice."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.pos = nn.Parameter(torch.zeros(3, 4))
        self.block = nn.TransformerEncoderLayer(4, nhead=2, dim_feedforward=6)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight


def frozen():
    model = mlp(4, 3, 2, seed=0)
    model[0].requires_grad_(False)
    return model


def twice():
    """One layer in two places: its weight has two names and one role."""
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer)


ATTENTION = nn.TransformerEncoderLayer(4, nhead=2, dim_feedforward=6)
NETWORKS = {  # model, what is decayed, what isn't
    "plain": (mlp(4, 3, 2, seed=0), {"0.weight", "2.weight"}, {"0.bias", "2.bias"}),
    "convolutional": (cnn(1, 2, seed=0), {"0.weight", "3.weight"}, {"0.bias", "3.bias"}),
    "normalised": (
        cnn(1, 2, batch_norm=True, seed=0),
        {"0.weight", "4.weight"}, {"1.weight", "1.bias", "4.bias"},
    ),
    "layer norm": (
        nn.Sequential(nn.Linear(2, 2, bias=False), nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.PReLU()),
        {"0.weight"}, {"1.weight", "1.bias", "2.weight", "2.bias", "3.weight"},
    ),
    "without biases": (nn.Linear(3, 2, bias=False), {"weight"}, set()),
    "norm alone": (nn.BatchNorm1d(3), set(), {"weight", "bias"}),
    "used twice": (twice(), {"0.weight"}, {"0.bias"}),
    "frozen": (frozen(), {"2.weight"}, {"2.bias"}),
    "embedding": (
        nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 2)),
        {"2.weight"}, {"0.weight", "2.bias"},
    ),
    "recurrent": (
        nn.LSTM(3, 2),
        {"weight_ih_l0", "weight_hh_l0"}, {"bias_ih_l0", "bias_hh_l0"},
    ),
    "attention": (
        ATTENTION,
        {"self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight",
         "linear2.weight"},
        {"self_attn.in_proj_bias", "self_attn.out_proj.bias", "linear1.bias", "linear2.bias",
         "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"},
    ),
}


def by_decay(model, groups) -> dict[float, set[str]]:
    """The names of the parameters at each weight decay."""
    names = {p: name for name, p in model.named_parameters()}
    return {group["weight_decay"]: {names[p] for p in group["params"]} for group in groups}


@pytest.mark.parametrize(("model", "decayed", "others"), NETWORKS.values(), ids=NETWORKS)
def test_weights_are_decayed_and_the_rest_is_not(model, decayed, others):
    groups = decay_groups(model, 0.1)
    expected = {0.1: decayed, 0.0: others}
    assert by_decay(model, groups) == {value: names for value, names in expected.items() if names}
    assert audit(model, groups).startswith(f"{len(groups)} group")


def test_the_optimizer_shrinks_what_the_first_group_holds_and_nothing_else():
    """Without a gradient from data a step is w ← (1 − ηλ)w, or nothing."""
    model = cnn(1, 2, batch_norm=True, seed=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    torch.optim.AdamW(decay_groups(model, 0.5), lr=0.1).step()
    for name, p in model.named_parameters():
        factor = 0.95 if name in NETWORKS["normalised"][1] else 1
        assert torch.allclose(p, factor * before[name], rtol=1e-14, atol=0)


def test_a_tied_weight_and_a_parameter_without_a_layer_must_be_named():
    model = Tied()
    with pytest.raises(ValueError, match=r"^pos \(Tied\): the rule doesn't know .* name it in"):
        decay_groups(model, 0.1)
    with pytest.raises(ValueError, match=r"embed.weight \(Embedding\) = head.weight \(Linear\)"):
        decay_groups(model, 0.1, no_decay=["pos"])
    groups = decay_groups(model, 0.1, decay=["head.*"], no_decay=["p?s"])
    attention = {f"block.{name}" for name in NETWORKS["attention"][1]}
    assert by_decay(model, groups)[0.1] == attention | {"embed.weight"}
    groups = decay_groups(model, 0.1, no_decay=["pos", "embed.weight"])
    assert by_decay(model, groups)[0.1] == attention


def test_patterns_overrule_the_types():
    model = mlp(4, 3, 2, seed=0)
    groups = decay_groups(model, 0.1, decay=["0.bias"], no_decay=["2.*"])
    assert by_decay(model, groups) == {0.1: {"0.weight", "0.bias"}, 0: {"2.weight", "2.bias"}}


@pytest.mark.parametrize(("values", "error", "says"), [
    ({"weight_decay": -0.1}, ValueError, "weight_decay must be at least 0 and finite, got -0.1"),
    ({"weight_decay": float("nan")}, ValueError, "weight_decay must .* got nan"),
    ({"weight_decay": [0.1, -1]}, ValueError, r"weight_decay must .* got \[0.1, -1\]"),
    ({"weight_decay": "1"}, TypeError, "weight_decay must be numbers, got '1'"),
    ({"no_decay": ["gain"]}, ValueError, "no_decay: the pattern 'gain' matches no parameter; "
                                         "there are 0.weight, 0.bias, 2.weight, 2.bias"),
    ({"decay": ["2.*", "norm*"]}, ValueError, r"decay: the pattern 'norm\*' matches no"),
    ({"decay": ["2.*"], "no_decay": ["*.bias"]}, ValueError, "both name 2.bias"),
    ({"no_decay": "bias"}, TypeError, "no_decay must be a sequence of patterns, got 'bias' alone"),
])
def test_decay_groups_names_bad_input(values, error, says):
    with pytest.raises(error, match=says):
        decay_groups(mlp(4, 3, 2, seed=0), **{"weight_decay": 0.1} | values)


def test_a_model_with_nothing_to_train_is_refused():
    for model in (nn.ReLU(), nn.Linear(2, 2).requires_grad_(False)):
        with pytest.raises(ValueError, match="model: it has no parameter to train"):
            decay_groups(model, 0.1)


def test_the_audit_line_counts():
    model = cnn(1, 2, batch_norm=True, seed=0)
    model[4].bias.requires_grad_(False)
    groups = decay_groups(model, 0.1)
    line = "2 groups: 2 tensors (338 numbers), weight_decay 0.1; 2 tensors (4 numbers), "
    assert audit(model, groups) == line + "weight_decay 0; 1 frozen"
    optimizer = torch.optim.SGD(groups, lr=0.5)
    assert "2 tensors (338 numbers), lr 0.5, weight_decay 0.1; " in audit(
        model, optimizer.param_groups
    )


def test_an_ensemble_takes_groups_with_a_decay_for_each_setting():
    model = ensemble.stack(lambda _, seed: cnn(1, 2, batch_norm=True, seed=seed), [0, 1], [0, 1])
    groups = decay_groups(model, [0.0, 1.0])
    names = {p: name for name, p in model.named_parameters()}
    decayed, others = ({names[p] for p in group["params"]} for group in groups)
    assert (decayed, others) == NETWORKS["normalised"][1:]
    line = audit(model, ensemble.AdamW(groups, lr=0.1).param_groups)
    assert line.startswith("2 groups: 2 tensors (1,352 numbers), lr 0.1, weight_decay 0 to 1; ")


MODEL = mlp(4, 3, 2, seed=0)
PARAMS = list(MODEL.parameters())


@pytest.mark.parametrize(("groups", "error", "says"), [
    ([{"params": PARAMS[1:]}], ValueError, "in no group are: 0.weight$"),
    ([{"params": PARAMS}, {"params": PARAMS[:1]}], ValueError, "two groups, .* are: 0.weight$"),
    ([{"params": PARAMS[:1] + PARAMS}], ValueError, "or twice in one, are: 0.weight$"),
    ([{"params": PARAMS}, {"params": []}], ValueError, "group 1 is empty"),
    ([], ValueError, "in no group are: 0.weight, 0.bias"),
    ([{"params": PARAMS}, {"params": torch.zeros(5)}], ValueError, r"model's own .* \(5,\)$"),
    ([{"params": MODEL.parameters()}], TypeError, "group 0 must be a list, got a generator"),
])
def test_the_audit_finds_what_breaks_the_rule_of_exactly_once(groups, error, says):
    with pytest.raises(error, match=says):
        audit(MODEL, groups)


def test_a_frozen_parameter_may_be_in_a_group_or_not():
    model = frozen()
    assert audit(model, decay_groups(model, 0.1)).endswith("; 2 frozen")
    assert audit(model, [{"params": list(model.parameters())}]).endswith("; 2 frozen")
