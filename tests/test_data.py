import gzip
import math
import struct

import numpy as np
import pytest
import torch

from helpers import data
from helpers.data import Data, batches, corrupt_labels, split


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    X, y = data.digits()
    assert X.shape == (1797, 64) and X.dtype == torch.float64 and y.dtype == torch.int64
    assert np.array_equal(X.numpy() * 16, load_digits().data)
    assert X.min() == 0 and X.max() == 1 and y.unique().tolist() == list(range(10))


def test_diabetes_is_scikit_learns_in_its_own_units():
    from sklearn.datasets import load_diabetes

    X, y = data.diabetes()
    assert X.shape == (442, 10) and y.shape == (442,) and X.dtype == y.dtype == torch.float64
    assert (y.min(), y.max()) == (25, 346) and X[:, 1].unique().tolist() == [1, 2]
    standard = (X - X.mean(0)) / X.std(0, correction=0) / math.sqrt(442)
    assert np.allclose(standard, load_diabetes().data, atol=1e-12)


def test_breast_cancer_is_scikit_learns():
    from sklearn.datasets import load_breast_cancer

    X, y = data.breast_cancer()
    bunch = load_breast_cancer()
    assert X.shape == (569, 30) and X.dtype == torch.float64 and y.dtype == torch.int64
    assert np.array_equal(X, bunch.data) and np.array_equal(y, bunch.target)
    assert list(bunch.target_names) == ["malignant", "benign"]
    assert y.bincount().tolist() == [212, 357]


def test_sine_has_the_noise_it_says():
    x, y = data.sine(100_000, sigma=0.3, seed=0)
    residual = y - torch.sin(math.pi * x)
    assert abs(residual.std() - 0.3) < 0.005 and abs(residual.mean()) < 0.005
    assert x.min() >= -1 and x.max() <= 1 and abs(x.var() - 1 / 3) < 0.01


def test_linear_is_linear_with_noise_of_variance_sigma_squared():
    w = torch.tensor([3.0, -2.0])
    X, y = data.linear(100_000, w, sigma=0.5, seed=1)
    assert torch.allclose(torch.linalg.lstsq(X, y.unsqueeze(1)).solution[:, 0], w, atol=0.01)
    assert abs((y - X @ w).std() - 0.5) < 0.005
    assert torch.allclose(X.T @ X / len(X), torch.eye(2), atol=0.02)


def test_split_is_disjoint_and_covers():
    everything = Data(torch.arange(50).unsqueeze(1), torch.arange(50))
    parts = split(everything, (20, 20, 10), seed=3)
    assert [len(part.y) for part in parts] == [20, 20, 10]
    assert sorted(torch.cat([part.y for part in parts]).tolist()) == list(range(50))
    assert all(torch.equal(part.X[:, 0], part.y) for part in parts)


def test_a_sequence_of_seeds_stacks():
    train, test = split(data.digits(), (30, 20), seed=[4, 9])
    assert train.X.shape == (2, 30, 64) and test.y.shape == (2, 20)
    assert torch.equal(train.X[1], split(data.digits(), (30, 20), seed=9)[0].X)
    assert torch.equal(data.sine(5, 0.1, range(3)).y[2], data.sine(5, 0.1, 2).y)
    with pytest.raises(ValueError, match="seed must be"):
        data.sine(5, 0.1, [])


@pytest.mark.parametrize("sizes", [(40, 11), (0, 5), (-1,)])
def test_split_says_what_there_is(sizes):
    with pytest.raises(ValueError, match="sizes must .* 50 samples"):
        split(Data(torch.zeros(50, 1), torch.zeros(50)), sizes, seed=0)


def test_split_needs_equal_lengths():
    with pytest.raises(ValueError, match="equally many samples, got 3 and 4"):
        split(Data(torch.zeros(3, 1), torch.zeros(4)), (1,), seed=0)


@pytest.mark.parametrize("fraction", [0, 0.2, 0.5, 1])
def test_corrupt_labels_changes_exactly_the_fraction(fraction):
    y = torch.arange(10).repeat(20)
    changed = corrupt_labels(y, fraction, seed=0) != y
    assert changed.sum() == round(200 * fraction)


def test_wrong_labels_are_even_over_the_other_classes():
    y = torch.full((90_000,), 3)
    counts = corrupt_labels(y, 1, seed=0).bincount(minlength=10)
    assert counts[3] == 0
    assert (counts[counts > 0] - 10_000).abs().max() < 5 * 10_000**0.5


def test_fractions_are_nested_and_seeds_differ():
    y = torch.arange(10).repeat(20)
    few, many = (corrupt_labels(y, f, seed=0) for f in (0.2, 0.6))
    assert torch.equal(few[few != y], many[few != y])
    rows = corrupt_labels(torch.stack([y, y]), 0.2, seed=[0, 1])
    assert torch.equal(rows[0], few) and not torch.equal(rows[1], few)


@pytest.mark.parametrize(("y", "fraction", "seed", "error", "says"), [
    (torch.ones(3), 0.1, 0, TypeError, "whole numbers, got torch.float"),
    (torch.tensor([0, 10]), 0.1, 0, ValueError, "from 0 to 9 .*got 0 to 10"),
    (torch.tensor([-1, 0]), 0.1, 0, ValueError, "from 0 to 9"),
    (torch.tensor([0, 1]), 1.1, 0, ValueError, "fraction must be from 0 to 1, got 1.1"),
    (torch.tensor([0, 1]), 0.5, [0, 1], ValueError, r"or \(S, n\) for S seeds, got \(2,\)"),
    (torch.tensor([[0, 1]]), 0.5, 0, ValueError, r"y must be \(n,\)"),
])
def test_corrupt_labels_checks(y, fraction, seed, error, says):
    with pytest.raises(error, match=says):
        corrupt_labels(y, fraction, seed)


def test_batches_are_an_epoch():
    rows = list(batches(10, 4, seed=0, epoch=1))
    assert [len(r) for r in rows] == [4, 4, 2]
    assert sorted(torch.cat(rows).tolist()) == list(range(10))
    assert not torch.equal(torch.cat(rows), torch.cat(list(batches(10, 4, seed=0, epoch=2))))
    stacked = torch.cat(list(batches(10, 4, seed=[5, 0], epoch=1)), -1)
    assert torch.equal(stacked[1], torch.cat(rows)) and stacked.shape == (2, 10)
    assert [r.tolist() for r in batches(3, None, seed=0, epoch=1)] == [[0, 1, 2]]


@pytest.mark.parametrize("size", [0, 11, -1])
def test_batches_check_their_size(size):
    with pytest.raises(ValueError, match="batch_size must be None or from 1 to n = 10"):
        list(batches(10, size, seed=0, epoch=0))


@pytest.mark.parametrize(("call", "says"), [
    (lambda: data.sine(0, 0.1, 0), "n must be at least 1, got 0"),
    (lambda: data.sine(5, -0.1, 0), "sigma must be at least 0, got -0.1"),
    (lambda: data.linear(5, torch.zeros(2, 2), 0.1, 0), "w must have shape"),
])
def test_made_data_checks(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def write_idx(path, array, cut=0, compress=True):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    raw = head + array.tobytes()[: array.size - cut]
    path.write_bytes(gzip.compress(raw) if compress else raw)


@pytest.fixture
def folder(tmp_path):
    images = np.arange(5 * 28 * 28).reshape(5, 28, 28).astype(np.uint8)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([1, 2, 3, 4, 9], np.uint8),
              compress=False)
    return tmp_path


def test_mnist_reads_packed_and_plain_files(folder):
    X, y = data.mnist(folder, "test")
    assert X.shape == (5, 784) and X.dtype == torch.float64 and y.tolist() == [1, 2, 3, 4, 9]
    assert X[0, 255] == 1 and X[0, 51] == 51 / 255


def test_mnist_names_a_missing_folder_file_or_part(folder):
    with pytest.raises(FileNotFoundError, match="folder must be .*nowhere"):
        data.mnist(folder / "nowhere")
    with pytest.raises(FileNotFoundError, match="neither train-images-idx3-ubyte nor"):
        data.mnist(folder, "train")
    with pytest.raises(ValueError, match='part must be "train" or "test"'):
        data.mnist(folder, "validation")


def test_mnist_names_a_damaged_file(folder):
    path = folder / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="images-idx3-ubyte.gz is damaged"):
        data.mnist(folder, "test")
    write_idx(path, np.zeros((5, 28, 28), np.uint8), cut=9)
    with pytest.raises(ValueError, match="3920 bytes of data announced, 3911 there"):
        data.mnist(folder, "test")
    write_idx(path, np.zeros((4, 28, 28), np.uint8))
    with pytest.raises(ValueError, match="equally many samples, got 4 and 5"):
        data.mnist(folder, "test")
    for rubbish in (b"", b"\0\0\x08", b"\x89PNG rubbish", b"\0\0\x08\x03\0\0"):
        path.write_bytes(gzip.compress(rubbish))
        with pytest.raises(ValueError, match="not an IDX file"):
            data.mnist(folder, "test")


def test_mnist_names_a_swapped_pair(folder):
    labels, images = folder / "t10k-labels-idx1-ubyte", folder / "t10k-images-idx3-ubyte.gz"
    write_idx(images, np.array([1, 2, 3], np.uint8))
    with pytest.raises(ValueError, match="must hold n × 28 × 28 bytes .* holds 3; are .* swapped"):
        data.mnist(folder, "test")
    write_idx(images, np.zeros((5, 28, 28), np.uint8))
    write_idx(labels, np.zeros((5, 28, 28), np.uint8), compress=False)
    with pytest.raises(ValueError, match="labels-idx1-ubyte must hold n bytes .* 5 × 28 × 28;"):
        data.mnist(folder, "test")


def test_mnist_refuses_other_images_and_labels(folder):
    labels, images = folder / "t10k-labels-idx1-ubyte", folder / "t10k-images-idx3-ubyte.gz"
    write_idx(labels, np.array([1, 2, 3, 4, 10], np.uint8), compress=False)
    with pytest.raises(ValueError, match="labels-idx1-ubyte must hold 0 to 9, got 10"):
        data.mnist(folder, "test")
    write_idx(images, np.zeros((0, 28, 28), np.uint8))
    with pytest.raises(ValueError, match="n ≥ 1, and it holds 0 × 28 × 28"):
        data.mnist(folder, "test")
