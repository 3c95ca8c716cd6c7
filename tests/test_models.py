import pytest
import torch
from torch import nn

from helpers.models import cnn, mlp
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
