import pytest
import torch

from helpers.rng import generator, seeded


def draw(*args):
    return torch.randn(5, generator=generator(*args))


def test_a_stream_is_repeatable_and_differs_from_others():
    assert torch.equal(draw(3, "init"), draw(3, "init"))
    assert not torch.equal(draw(3, "init"), draw(4, "init"))
    assert not torch.equal(draw(3, "init"), draw(3, "noise"))


def test_streams_are_independent():
    both = torch.stack([torch.randn(4000, generator=generator(s, "a")) for s in range(20)])
    correlations = torch.corrcoef(both)[~torch.eye(20, dtype=torch.bool)]
    assert correlations.abs().max() < 5 / 4000**0.5


def test_seeded_restores_the_global_generator():
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    with seeded(7):
        inside = torch.randn(3)
    assert torch.equal(torch.randn(3), expected)
    with seeded(7):
        assert torch.equal(torch.randn(3), inside)


def test_seeded_restores_after_an_error():
    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded(7):
        torch.randn(1)
        1 / 0  # noqa: B018
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("seed", [1.5, "3", None, True])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(TypeError, match="seed must be a whole number"):
        generator(seed, "init")
