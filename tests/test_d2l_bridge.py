"""d2l on today's torch: its own Module and Trainer on our data, without a screen."""

import pytest
import torch

from helpers.d2l_bridge import DataModule, d2l
from helpers.data import batches, digits, split
from helpers.rng import seeded


@pytest.fixture(scope="module")
def data():
    return split(digits(), (200, 300), seed=0)


def test_a_real_d2l_module_is_trained_by_the_real_trainer(data):
    with seeded(0):
        model = d2l.SoftmaxRegression(num_outputs=10, lr=0.5)
        model.board.display = False
        d2l.Trainer(max_epochs=20).fit(model, DataModule(*data, batch_size=20))
    assert isinstance(model, d2l.Module)
    validation = data[1]
    accuracy = (model(validation.X).argmax(1) == validation.y).double().mean()
    assert accuracy > 0.85
    assert model.board.data["val_acc"][-1].y == pytest.approx(accuracy.item(), abs=0.01)
    assert len(model.board.data["train_loss"]) > 20


def test_the_loader_gives_every_sample_once(data):
    module = DataModule(*data, batch_size=30)
    X, y = (torch.cat(parts) for parts in zip(*module.train_dataloader(), strict=True))
    assert X.shape == (200, 64) and torch.equal(y.sort().values, data[0].y.sort().values)
    assert torch.equal(torch.cat([y for _, y in module.val_dataloader()]), data[1].y)


def test_d2l_agrees_with_a_plain_loop_over_the_same_batches(data, monkeypatch):
    train, rows = data[0], [list(batches(200, 20, 0, epoch)) for epoch in range(3)]
    epochs = iter(rows)
    module = DataModule(*data, batch_size=20)
    loader = lambda: [(train.X[r], train.y[r]) for r in next(epochs)]  # noqa: E731
    monkeypatch.setattr(module, "train_dataloader", lambda: _Loader(loader))
    with seeded(0):
        model = d2l.SoftmaxRegression(10, lr=0.1)
        model.board.display = False
        d2l.Trainer(max_epochs=3).fit(model, module)
    with seeded(0):
        plain = d2l.SoftmaxRegression(10, lr=0.1)
        plain(train.X[:1])
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for r in (r for epoch in rows for r in epoch):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(plain(train.X[r]), train.y[r]).backward()
        optimizer.step()
    assert torch.allclose(model(train.X), plain(train.X), rtol=0, atol=1e-12)


class _Loader:
    def __init__(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(self.epoch())

    def __len__(self):
        return 10


@pytest.mark.parametrize("size", [0, 201])
def test_the_batch_size_is_checked(data, size):
    with pytest.raises(ValueError, match=f"batch_size must be from 1 to 200, got {size}"):
        DataModule(*data, batch_size=size)
