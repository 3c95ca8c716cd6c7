import numpy as np
import pytest
import torch

from helpers import check, close
from helpers.stats import Estimate, jointly

GAIN, LOSS = Estimate(9.08, 0.612, 10), Estimate(-1.5, 0.25, 10)
GAIN_SAID = "  9.08 ± 0.61, 95 % interval 7.70 to 10.46, n = 10\n"
LOSS_SAID = "  -1.50 ± 0.25, 95 % interval -2.07 to -0.93, n = 10\n"


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


def test_a_claim_needs_something_to_hold():
    with pytest.raises(TypeError, match="give at least one"):
        check("a claim")
    with pytest.raises(TypeError, match="give at least one"):
        check("all of nothing", *(e.low > 0 for e in []))


@pytest.mark.parametrize(
    ("ok", "said"),
    [
        ([GAIN.low > 5], GAIN_SAID),
        ([5 < GAIN.low], GAIN_SAID),
        ([GAIN.low > np.float64(5), GAIN.high < torch.tensor(20.0)], GAIN_SAID),
        ([-3 < LOSS.low and LOSS.high < 0], LOSS_SAID),
        ([GAIN.low > 5, True, LOSS.high < 0], GAIN_SAID + LOSS_SAID),
        ([LOSS.high < GAIN.low], LOSS_SAID + GAIN_SAID),
        ([all(e.low > -3 for e in (GAIN, LOSS))], ""),
        ([GAIN.low - 1 > 5, GAIN.mean > 5], ""),
    ],
)
def test_an_estimate_whose_interval_was_compared_is_printed(ok, said, capsys):
    check("it gains", *ok)
    assert capsys.readouterr().out == "✓ it gains\n" + said


def test_nothing_is_left_over_from_one_check_to_the_next(capsys):
    assert GAIN.low > 5 and GAIN.high - GAIN.mean > 0
    check("one", LOSS.high < 0)
    with pytest.raises(AssertionError):
        check("two", LOSS.high < 0, GAIN.low < 5)
    check("three", True)
    assert capsys.readouterr().out == f"✓ one\n{LOSS_SAID}✓ three\n"


def test_of_many_estimates_the_smallest_and_the_largest_are_printed(capsys):
    two = [Estimate(2.0, 0.5, 10), Estimate(2 + 1e-14, 0.6, 10)]
    check("all above −3", *(e.low > -3 for e in [GAIN, *two, LOSS]))
    end = "of 4: "
    assert capsys.readouterr().out == (
        f"✓ all above −3\n  smallest {end}{LOSS_SAID[2:]}  largest {end}{GAIN_SAID[2:]}"
    )
    # Equal but for rounding: the smaller error comes first, on every machine.
    check("all above 0", *(e.low > 0 for e in [two[1], two[0], *jointly([GAIN] * 2)[:1], GAIN]))
    assert "smallest of 4: 2.00 ± 0.50" in capsys.readouterr().out


def test_a_finding_is_true_or_false():
    yes, no = GAIN.low > 5, GAIN.low > 50
    assert yes and not no and [str(yes), f"{no}"] == ["True", "False"]
    assert sum([yes, yes, no]) == 2 and torch.tensor([yes, yes]).all()
    assert (GAIN.low > np.zeros(2)).tolist() == [True, True]


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
