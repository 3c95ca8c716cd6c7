import math

import pytest
import torch
from scipy import stats as oracle
from torch import nn

from helpers.rng import generator
from helpers.stats import Estimate, amplification, estimate, jointly, paired, standard_error


def test_estimate_equals_scipys():
    values = torch.randn(12, generator=generator(0, "stats"))
    e = estimate(values)
    assert math.isclose(e.mean, values.mean()) and e.n == 12
    assert math.isclose(e.se, oracle.sem(values.numpy()), rel_tol=1e-12)
    low, high = oracle.t.interval(0.95, 11, e.mean, e.se)
    assert math.isclose(e.low, low, rel_tol=1e-9) and math.isclose(e.high, high, rel_tol=1e-9)


def test_the_interval_covers_in_95_of_100_cases():
    draws = torch.randn(4000, 5, generator=generator(1, "stats"))
    covered = sum(e.low < 0 < e.high for e in map(estimate, draws)) / 4000
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


def test_joint_intervals_have_bonferronis_level():
    values = torch.randn(4, 12, generator=generator(4, "stats"))
    for e, row in zip(jointly(map(estimate, values)), values, strict=True):
        low, high = oracle.t.interval(1 - 0.05 / 4, 11, e.mean, e.se)
        assert math.isclose(e.low, low, rel_tol=1e-9) and math.isclose(e.high, high, rel_tol=1e-9)
        assert e == estimate(row, of=4) and (e.mean, e.se, e.n) == estimate(row)[:3]
    assert jointly([estimate(values[0])]) == [estimate(values[0])]


def test_joint_intervals_all_cover_in_95_of_100_cases():
    """Bonferroni's promise; separate means are independent, so it is nearly exact."""
    draws = torch.randn(4000, 8, 5, generator=generator(5, "stats"))
    covered = {
        name: sum(all(e.low < 0 < e.high for e in read(map(estimate, rows))) for rows in draws)
        for name, read in {"jointly": jointly, "one by one": list}.items()
    }
    slack = 4 * math.sqrt(0.95 * 0.05 / 4000)
    assert abs(covered["jointly"] / 4000 - (1 - 0.05 / 8) ** 8) < slack
    assert covered["one by one"] / 4000 < 0.95 - slack


def test_paired_removes_what_the_seeds_share():
    g = generator(2, "stats")
    hard, small = 10 * torch.randn(10, generator=g), 0.1 * torch.randn(10, generator=g)
    difference = paired(hard + 1 + small, hard)
    assert math.isclose(difference.mean, 1 + small.mean()) and difference.se < 0.1
    assert math.isclose(difference.se, oracle.sem(small.numpy()), rel_tol=1e-6)


def test_estimates_print_mean_and_error():
    e = estimate(torch.tensor([1.0, 2.0, 3.0]))
    assert f"{e:.2f}" == "2.00 ± 0.58" and f"{e:+.1f}" == "+2.0 ± 0.6"


@pytest.mark.parametrize(
    ("e", "said"),
    [
        (Estimate(9.08, 0.612, 10), "9.08 ± 0.61, 95 % interval 7.70 to 10.46, n = 10"),
        (Estimate(9.08, 0.0612, 3), "9.080 ± 0.061, 95 % interval 8.817 to 9.343, n = 3"),
        (Estimate(912.3, 61.2, 10), "912.3 ± 61.2, 95 % interval 773.9 to 1050.7, n = 10"),
        (
            Estimate(9.08, 0.612, 10, of=4),
            "9.08 ± 0.61, joint 95 % interval 7.18 to 10.98 (one of 4), n = 10",
        ),
        (Estimate(100.0, 0.0, 10), "100, the same in all 10"),
        (Estimate(100.0, 3e-14, 10), "100, the same in all 10"),
        (Estimate(-3e-17, 1e-17, 10), "0, the same in all 10"),
    ],
)
def test_two_digits_of_the_error_decide(e, said):
    assert str(e) == f"{e}" == said


def test_standard_error_works_along_an_axis():
    values = torch.randn(3, 7, generator=generator(3, "stats"))
    assert torch.allclose(standard_error(values), torch.tensor(oracle.sem(values.numpy(), axis=1)))
    assert standard_error(values, 0).shape == (7,)
    assert torch.equal(standard_error(values.numpy()), standard_error(values))


@pytest.mark.parametrize("values", [torch.zeros(1), torch.zeros(2, 2), torch.tensor(1.0)])
def test_estimate_needs_at_least_two_values(values):
    with pytest.raises(ValueError, match="values must have shape"):
        estimate(values)


def test_paired_needs_pairs():
    with pytest.raises(ValueError, match="must pair up"):
        paired(torch.zeros(3), torch.zeros(4))


def test_amplification_of_a_power_is_its_exponent():
    def build():
        layer = nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            layer.weight.fill_(2.0)
        return layer

    def power(k):
        return lambda net: net.weight**k

    one = amplification(power(1), build)
    assert 0.01 < one < 5
    assert math.isclose(amplification(power(8), build), 8 * one, rel_tol=1e-3)


def test_amplification_tells_chaos_from_stability():
    """The logistic map x ← rx(1 − x) forgets its start at r = 2, and doubles errors at r = 4."""

    def build():
        layer = nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            layer.weight.fill_(0.3)
        return layer

    def iterate(r):
        def run(net):
            x = net.weight
            for _ in range(25):
                x = r * x * (1 - x)
            return x

        return run

    assert amplification(iterate(2), build) < 1
    assert 2**15 < amplification(iterate(4), build) < 2**30
