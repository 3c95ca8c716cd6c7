"""The contenders: what readers would use instead of ``helpers.ensemble``, and the limit.

A contender ``peer(case, model, h, s)`` trains one model, of setting h and seed s, in place. All
get the same minibatches in the same order.
"""

import contextlib
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import cases
from benchmarks.cases import Case
from helpers import ensemble
from helpers.ensemble import fit, stack

# --- many at once ------------------------------------------------------------------------


def together(case: Case, validate: bool = False, build: Callable | None = None):
    """All models by helpers.ensemble; returns them and, with validate, their history."""
    net = stack(build or case.build, case.settings, case.seeds)
    optimizer = getattr(ensemble, case.rule)(net.parameters(), **case.options(case.settings))
    watch = {"validation": case.validation} if validate else None
    return net, fit(net, optimizer, case.train, seeds=case.seeds, epochs=case.epochs,
                    batch_size=case.batch_size, loss=case.loss, watch=watch)


def bare_products(case: Case) -> Callable[[], None]:
    """The multiplications of all models and steps, and nothing else, as torch.bmm does them.

    For each layer: the outputs, the gradient of the weights and, but for the first, that of the
    inputs. As in helpers.ensemble, the first layer is one tall product per seed.
    """
    S, H, sizes = len(case.seeds), len(case.settings), [len(rows) for rows in case.rows(0, 1)]
    products = {B: [] for B in sizes}
    for (B, found), (i, (d_in, d_out)) in itertools.product(
        products.items(), enumerate(itertools.pairwise(case.widths))
    ):
        K, rows = (S * H, d_out) if i else (S, H * d_out)
        W, x, g = torch.rand(K, rows, d_in), torch.rand(K, d_in, B), torch.rand(K, rows, B)
        pairs = [(W, x), (g, x.mT.contiguous())] + [(W.mT.contiguous(), g)] * (i > 0)
        found += [(left, right, torch.bmm(left, right)) for left, right in pairs]

    def multiply() -> None:
        for B in sizes * case.epochs:
            for left, right, out in products[B]:
                torch.bmm(left, right, out=out)

    return multiply


def operations(case: Case) -> int:
    """Floating-point operations of the products of one model in one training, 2 per term."""
    sizes = [a * b for a, b in itertools.pairwise(case.widths)]
    rows = sum(len(rows) for rows in case.rows(0, 1)) * case.epochs
    return 2 * rows * (3 * sum(sizes) - sizes[0])


# --- one after the other -----------------------------------------------------------------


def plain_loop(case: Case, model: nn.Module, h: int, s: int) -> None:
    """The training loop as anybody writes it."""
    (X, y), criterion, optimizer = case.data(s), case.criterion, case.optimizer(model, h)
    for epoch in range(1, case.epochs + 1):
        for rows in case.rows(s, epoch):
            optimizer.zero_grad()
            criterion(model(X[rows]), y[rows]).backward()
            optimizer.step()


def d2l_trainer(
    case: Case, model: nn.Module, h: int, s: int, display: bool = False, validate: bool = False
):
    """d2l.Trainer, with or without its live plot; returns what its board has noted."""
    from helpers.d2l_bridge import d2l

    class Model(d2l.Module if case.train.y.is_floating_point() else d2l.Classifier):
        def __init__(self):
            super().__init__()
            self.net, self.criterion = model, case.criterion

        def loss(self, outputs, y):
            return self.criterion(outputs, y)

        def configure_optimizers(self):
            return case.optimizer(self.net, h)

    class Loaders(d2l.DataModule):
        def train_dataloader(self):
            return loader(case, s)

        def val_dataloader(self):
            return loader(case, s, validation=True) if validate else None

    trained = Model()
    trained.board.display = display
    d2l.Trainer(max_epochs=case.epochs).fit(trained, Loaders())
    return trained.board.data


def lightning(case: Case, model: nn.Module, h: int, s: int) -> None:
    """Lightning without logger, checkpoints, progress bar and summary."""
    import lightning

    with quiet("lightning"):
        class Module(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.net, self.criterion = model, case.criterion

            def training_step(self, batch, _):
                X, y = batch
                return self.criterion(self.net(X), y)

            def configure_optimizers(self):
                return case.optimizer(self.net, h)

        lightning.Trainer(
            max_epochs=case.epochs, accelerator="cpu", devices=1, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        ).fit(Module(), loader(case, s))


def skorch(case: Case, model: nn.Module, h: int, s: int) -> None:
    """skorch's NeuralNet without validation split; silent."""
    from skorch import NeuralNet

    options = case.options(case.settings[h])
    NeuralNet(
        model, criterion=case.criterion, optimizer=getattr(torch.optim, case.rule),
        lr=options["lr"], optimizer__weight_decay=options["weight_decay"],
        max_epochs=case.epochs, train_split=None, verbose=0,
        iterator_train=lambda dataset, batch_size: DataLoader(
            dataset, batch_sampler=Batches(case, s)
        ),
    ).fit(*case.data(s))


def scikit_learn(case: Case, model: nn.Module, h: int, s: int) -> None:
    """MLPRegressor or MLPClassifier under SGD; linear regression has no hidden layer.

    It draws orders and weights of its own, so it is given ours: an epoch is a partial_fit on
    rows in our order. Its alpha is weight decay times the size of a minibatch, and leaves out
    the biases.
    """
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    (X, y), options = (v.numpy() for v in case.data(s)), case.options(case.settings[h])
    classes = None if y.dtype == np.float64 else np.unique(y)
    net = (MLPRegressor if classes is None else MLPClassifier)(
        hidden_layer_sizes=case.widths[1:-1], solver="sgd", learning_rate_init=options["lr"],
        momentum=0.0, alpha=options["weight_decay"] * case.batch_size,
        batch_size=case.batch_size, shuffle=False,
    )
    more = {} if classes is None else {"classes": classes}
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.partial_fit(X[: case.batch_size], y[: case.batch_size], **more)  # makes the layers
        for layer, W, b in zip(layers, net.coefs_, net.intercepts_, strict=True):
            W[...], b[...] = layer.weight.detach().numpy().T, layer.bias.detach().numpy()
        for epoch in range(1, case.epochs + 1):
            rows = torch.cat(case.rows(s, epoch)).numpy()
            net.partial_fit(X[rows], y[rows])
    with torch.no_grad():
        for layer, W, b in zip(layers, net.coefs_, net.intercepts_, strict=True):
            layer.weight.copy_(torch.from_numpy(W.T))
            layer.bias.copy_(torch.from_numpy(b))


def in_two_processes(case: Case, quick: bool, members) -> list[dict[str, Tensor]]:
    """The plain loop in two processes of joblib, one thread each."""
    from joblib import Parallel, delayed

    work = delayed(_in_worker)
    return Parallel(n_jobs=2)(work(case.name, quick, h, s) for h, s in members)


def _in_worker(name: str, quick: bool, h: int, s: int) -> dict[str, Tensor]:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    case = cases.named(name, quick)
    model = case.build(case.settings[h], case.seeds[s])
    plain_loop(case, model, h, s)
    return {key: value.detach() for key, value in model.state_dict().items()}


# --- what they need ----------------------------------------------------------------------


class Batches(torch.utils.data.Sampler):
    """The case's minibatches, one epoch after the other, for a DataLoader."""

    def __init__(self, case: Case, s: int):
        self.case, self.s, self.epoch = case, s, 0

    def __iter__(self) -> Iterator[list[int]]:
        self.epoch += 1
        return iter([rows.tolist() for rows in self.case.rows(self.s, self.epoch)])

    def __len__(self) -> int:
        return len(self.case.rows(self.s, 1))


def loader(case: Case, s: int, validation: bool = False) -> DataLoader:
    if not validation:
        return DataLoader(TensorDataset(*case.data(s)), batch_sampler=Batches(case, s))
    X, y = case.validation
    return DataLoader(TensorDataset(X[s], y[s]), batch_size=case.batch_size or len(y[s]))


@contextlib.contextmanager
def quiet(name: str) -> Iterator[None]:
    """Without the advice of a package: about workers, say, that would only slow it here."""
    loggers = [logging.getLogger(n) for n in (name, f"{name}.pytorch", f"{name}.fabric")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
