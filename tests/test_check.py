import numpy as np
import pytest
import torch

from helpers import check, close


def test_a_claim_that_holds_is_printed(capsys):
    for ok in (True, np.bool_(True), torch.tensor(True)):
        check("two is more than one", ok)
    assert capsys.readouterr().out == "✓ two is more than one\n" * 3


@pytest.mark.parametrize("ok", [False, np.bool_(False), torch.tensor(False)])
def test_a_claim_that_fails_raises_and_prints_nothing(ok, capsys):
    with pytest.raises(AssertionError, match="does not hold: two is less than one"):
        check("two is less than one", ok)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("ok", [1, 0.5, "yes", None, [True], torch.tensor([True, False])])
def test_a_claim_needs_one_truth_value(ok):
    with pytest.raises(TypeError, match="one True or False"):
        check("a claim", ok)


def test_close_is_absolute():
    assert close(1.0, 1.01, atol=0.0101) and not close(1.0, 1.01, atol=0.0099)
    assert close(torch.tensor([1.0, 2.0]), np.array([1.0, 2.1]), atol=0.11)
    assert not close([1.0, 2.0], [1.0, 2.1], atol=0.05)
    assert close(torch.ones(3, requires_grad=True), 1.0, atol=0)


@pytest.mark.parametrize("a", [float("nan"), [1.0, float("nan")]])
def test_nan_is_close_to_nothing(a):
    assert not close(a, a, atol=1.0) and not close(a, 1.0, atol=float("inf"))


def test_close_checks_its_arguments():
    with pytest.raises(ValueError, match=r"a has shape \(2,\) and b \(3,\)"):
        close(np.ones(2), np.ones(3), atol=1)
    for atol in (-1, float("nan")):
        with pytest.raises(ValueError, match="atol must be at least 0"):
            close(1, 1, atol=atol)
