"""Dropout, L2 and L1 on MNIST: ``make mnist DATA=<folder>``.

    python -m studies.mnist <folder>

The folder holds the four files of MNIST: 60,000 images to train on and 10,000 to test. Where it
holds only the pair that begins with t10k, its 10,000 images are split 8,000/2,000; where it holds
neither, the four files are downloaded into it.

Two nets, the same steps for both. A *sweep* trains every strength of every regularizer on seven
eighths of the training images and measures on the last eighth: the validation images. The
strength with the lowest mean validation loss is then trained on all training images: the *test*
measures it, next to the net without a regularizer and to strengths that others have used.

Results go to studies/mnist.json. What is finished is kept in _build/mnist as it comes, so the
program can be stopped by Ctrl-C, and the same command goes on.
"""

import contextlib
import functools
import hashlib
import http.client
import json
import multiprocessing
import os
import platform
import re
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from helpers import data, ensemble, models, rng, setup
from helpers.data import Data, mnist, split
from helpers.ensemble import SGD, accuracy, cross_entropy, stack, train_epoch

ROOT = Path(__file__).parents[1]
RESULTS, KEPT = ROOT / "studies" / "mnist.json", ROOT / "_build" / "mnist"
FILES = [
    f"{part}-{kind}"
    for part in ("train", "t10k")
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
]
BATCH_SIZE, MOMENTUM = 50, 0.9
TEST_SEEDS = range(5)
PROCESSES = 2
SILENCE = 30  # seconds to wait for a mirror that says nothing


class Comparison(NamedTuple):
    """One architecture, trained without a regularizer and with each of several."""

    name: str
    build: Callable[[float, int], nn.Module]  # from drop probability and seed
    shape: tuple[int, ...]  # of an image as the net wants it
    lr: float
    epochs: int
    sweep_seeds: Sequence[int]
    grid: dict[str, tuple[float, ...]]  # the strengths to choose from: p, or λ
    quoted: dict[str, float]  # strengths of published runs, tested beside the chosen ones


def small_cnn(p: float, seed: int) -> nn.Module:
    return models.cnn(1, 8, 20, size=28, p=p, seed=seed)


def one_hidden_layer(_, seed: int) -> nn.Module:
    return models.mlp(784, 200, 10, seed=seed, activation=nn.Sigmoid)


COMPARISONS = (
    Comparison(
        "cnn", small_cnn, (1, 28, 28), lr=0.02, epochs=20, sweep_seeds=range(3),
        grid={
            "dropout": (0.1, 0.25, 0.5),
            "L2": (3e-4, 1e-3, 3e-3),
            "L1": (3e-6, 1e-5, 3e-5, 1e-4),
        },
        quoted={},
    ),
    Comparison(
        "fc", one_hidden_layer, (784,), lr=0.3, epochs=10, sweep_seeds=range(5),
        grid={
            "L2": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 1e-2),
            "L1": (3e-6, 1e-5, 3e-5, 1e-4),
        },
        quoted={"L2": 1e-2, "L1": 1e-4},
    ),
)


# --- data --------------------------------------------------------------------------------


def provide(folder: Path) -> None:
    """See to it that the folder holds the four files, or else the test pair.

    Raises FileNotFoundError if there is no such folder, OSError if a download fails.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"DATA must be a folder that exists, got {folder}. It may be empty: "
            "MNIST is then downloaded into it"
        )
    missing = [name for name in FILES if not _path(folder, name)]
    # A download gets the test pair last: so a pair alone is no download that was stopped.
    if missing and missing != FILES[:2]:
        download(folder, missing)


def _path(folder: Path, name: str) -> Path | None:
    paths = (folder / name, folder / f"{name}.gz")
    return next((path for path in paths if path.is_file()), None)


def download(folder: Path, names: Sequence[str]) -> None:
    """Fetch files of MNIST from where torchvision gets them; each appears whole or not at all.

    Raises OSError if a file can't be fetched, or its checksum is wrong.
    """
    unfinished, patience = folder / ".download", socket.getdefaulttimeout()
    shutil.rmtree(unfinished, ignore_errors=True)
    socket.setdefaulttimeout(SILENCE)
    try:
        for name in (f"{name}.gz" for name in names):
            _fetch(name, unfinished)
            os.replace(unfinished / name, folder / name)
    finally:
        socket.setdefaulttimeout(patience)
        shutil.rmtree(unfinished, ignore_errors=True)


def _fetch(name: str, folder: Path) -> None:
    """Try torchvision's mirrors one after the other."""
    from helpers.d2l_bridge import d2l  # which imports torchvision, however it was built

    datasets, errors = d2l.torchvision.datasets, []
    for mirror in datasets.MNIST.mirrors:
        try:
            md5 = dict(datasets.MNIST.resources)[name]
            return datasets.utils.download_url(mirror + name, folder, name, md5)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            errors.append(str(error))
    raise OSError(
        f"{name} could not be downloaded ({'; '.join(errors)}). Without a network, put the four "
        f"files of MNIST, or the two that begin with t10k, into {folder.parent}: {', '.join(FILES)}"
    )


@functools.lru_cache(maxsize=1)
def load(folder: Path) -> tuple[Data, Data]:
    """Training and test images, X (n, 784): the two parts of MNIST, or of its test pair."""
    test = mnist(folder, "test")
    if _path(folder, FILES[0]):
        return mnist(folder, "train"), test
    n = len(test.y) * 4 // 5
    return split(test, (n, len(test.y) - n), seed=0)


def describe(folder: Path) -> dict:
    """What the results are results of."""
    train, test = load(folder)
    paths = [path for name in FILES if (path := _path(folder, name))]
    return {
        "files": {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in paths},
        "training": len(train.y),
        "validation": len(train.y) // 8,
        "test": len(test.y),
    }


# --- training ----------------------------------------------------------------------------


class Part(NamedTuple):
    """The nets of one regularizer and one seed, trained side by side."""

    comparison: Comparison
    stage: str  # "sweep" or "test"
    arm: str  # "none", "dropout", "L2" or "L1"
    values: tuple[float, ...]  # its strengths, one net for each
    seed: int  # of initial weights, minibatches, dropout and, in a sweep, validation images


def train_part(part: Part, train: Data, test: Data) -> list[dict]:
    """What was measured on each net. The test images have no part in a sweep."""
    name, held_out = "test", test
    if part.stage == "sweep":
        n = len(train.y) // 8
        train, validation = split(train, (len(train.y) - n, n), seed=part.seed)
        name, held_out = "validation", validation
    net, optimizer, loss = _prepare(part)
    X, y = _images(part, train), train.y[None, None]
    for epoch in range(1, part.comparison.epochs + 1):
        train_epoch(net, optimizer, X, y, [part.seed], epoch, BATCH_SIZE, loss)
    columns = {}
    for where, images in {"train": train, name: held_out}.items():
        outputs = _outputs(net, _images(part, images))
        columns[f"{where}_accuracy"] = accuracy(outputs, images.y).tolist()
        columns[f"{where}_loss"] = cross_entropy(outputs, images.y).tolist()
    if part.stage == "test":
        wrong = outputs.argmax(-1) != test.y
        columns["wrong"] = [row.nonzero().flatten().tolist() for row in wrong]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _prepare(part: Part) -> tuple[nn.Module, SGD, Callable[[Tensor, Tensor], Tensor]]:
    """Nets, optimizer and loss: the part's values go to its own arm, the other arms get 0."""
    dropout, l2, l1 = (
        list(part.values) if part.arm == arm else [0.0] * len(part.values)
        for arm in ("dropout", "L2", "L1")
    )
    net = stack(part.comparison.build, dropout, [part.seed])
    groups = models.decay_groups(net, l2)  # weight decay and L1 leave out the biases
    optimizer = SGD(groups, lr=part.comparison.lr, momentum=MOMENTUM)
    weights, lam = groups[0]["params"], torch.tensor(l1)

    def penalised(outputs: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(outputs, y) + lam * sum(w.abs().flatten(2).sum(2) for w in weights)

    return net, optimizer, penalised if part.arm == "L1" else cross_entropy


def _images(part: Part, images: Data) -> Tensor:
    return images.X.unflatten(1, part.comparison.shape)[None, None]


@torch.no_grad()
def _outputs(net: nn.Module, X: Tensor) -> Tensor:
    """Outputs (H, n, 10) without dropout; a thousand images at a time save memory."""
    net.eval()
    return torch.cat([net(some)[0] for some in X.split(1000, dim=2)], dim=1)


# --- all parts ---------------------------------------------------------------------------


def run(
    folder: Path,
    comparisons: Sequence[Comparison] = COMPARISONS,
    test_seeds: Sequence[int] = TEST_SEEDS,
    kept: Path = KEPT,
    processes: int = PROCESSES,
) -> dict:
    """The results of the study; parts that are kept from before aren't trained again."""
    provide(folder)
    source = describe(folder)
    with _workers(processes) as each:
        finish = functools.partial(_finish, each=each, folder=folder, source=source, kept=kept)
        swept = finish([
            Part(c, "sweep", arm, values, seed)
            for c in comparisons for arm, values in _with_none(c.grid) for seed in c.sweep_seeds
        ])
        chosen = {c.name: choose(swept[c.name]) for c in comparisons}
        tested = finish([
            Part(c, "test", arm, values, seed)
            for c in comparisons for arm, values in _with_none(_to_test(chosen[c.name], c.quoted))
            for seed in test_seeds
        ])
    return {
        "data": source,
        "versions": versions(),
        "machine": {"kind": platform.machine(), "processors": os.cpu_count()},
        "settings": settings(comparisons, test_seeds),
        "chosen": chosen,
        "sweep": swept,
        "test": tested,
    }


def _with_none(strengths: Mapping[str, tuple]) -> list[tuple[str, tuple]]:
    return [("none", (0.0,)), *strengths.items()]


def _to_test(chosen: Mapping[str, float], quoted: Mapping[str, float]) -> dict[str, tuple]:
    """The chosen strength of each arm and, if it is another one, the quoted."""
    return {arm: tuple({best: None, quoted.get(arm, best): None}) for arm, best in chosen.items()}


def choose(rows: Sequence[dict]) -> dict[str, float]:
    """For each arm the strength of lowest mean validation loss, which has no ties."""
    means = {(row["arm"], row["value"]): np.mean(row["validation_loss"]) for row in rows}
    arms = dict.fromkeys(arm for arm, _ in means if arm != "none")
    values = {arm: [value for other, value in means if other == arm] for arm in arms}
    return {arm: min(values[arm], key=lambda value: means[arm, value]) for arm in arms}


def _finish(parts, each: Callable, folder: Path, source: dict, kept: Path) -> dict:
    """Rows of each comparison, after training the parts that aren't kept."""
    from tools.notebooks import write_whole  # here, since workers and pages need not wait for it

    paths = [kept / _file_name(part, source) for part in parts]
    todo = [(part, path) for part, path in zip(parts, paths, strict=True) if not path.is_file()]
    kept.mkdir(parents=True, exist_ok=True)
    nets, left = (sum(len(part.values) for part in some) for some in (parts, [p for p, _ in todo]))
    bar = tqdm(total=nets, initial=nets - left, desc=parts[0].stage, unit="net")
    with bar:
        results = each(functools.partial(_timed, folder), [part for part, _ in todo])
        for (part, path), result in zip(todo, results, strict=True):
            write_whole(path, json.dumps(result))
            bar.update(len(part.values))
    return collect(parts, [json.loads(path.read_text()) for path in paths])


def _timed(folder: Path, part: Part) -> dict:
    start = time.process_time()
    rows = train_part(part, *load(folder))
    return {"rows": rows, "processor_seconds": time.process_time() - start}


@contextlib.contextmanager
def _workers(processes: int) -> Iterator[Callable]:
    """A ``map`` that works in several processes, or in this one."""
    if processes < 2:
        yield map
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=setup) as pool:
        before = multiprocessing.active_children()
        try:
            yield functools.partial(_map, pool)
        except BaseException:
            for process in set(multiprocessing.active_children()) - set(before):
                process.terminate()  # instead of waiting for the parts under way
            raise


def _map(pool: ProcessPoolExecutor, function: Callable, items: Sequence) -> Iterator:
    """Ctrl-C reaches all processes; those that are started while it is ignored ignore it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        futures = [pool.submit(function, item) for item in items]
    finally:
        signal.signal(signal.SIGINT, before)
    return (future.result() for future in futures)


def _file_name(part: Part, source: dict) -> str:
    """Names everything that decides a result, so that no part of another study is taken."""
    code = [Path(module.__file__).read_bytes() for module in (data, ensemble, models, rng)]
    decides = [
        source, versions(), _net(part.comparison), part.stage, part.arm, part.values, part.seed,
        [hashlib.md5(text).hexdigest() for text in (*code, Path(__file__).read_bytes())],
    ]
    digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
    return f"{part.comparison.name}-{part.stage}-{part.arm}-{part.seed}-{digest[:12]}.json"


def collect(parts: Sequence[Part], results: Sequence[dict]) -> dict[str, list[dict]]:
    """For each comparison a row per arm and strength, with a value per seed."""
    found: dict = {}
    for part, result in zip(parts, results, strict=True):
        for value, row in zip(part.values, result["rows"], strict=True):
            row["processor_seconds"] = result["processor_seconds"] / len(part.values)
            rows = found.setdefault(part.comparison.name, {})
            rows.setdefault((part.arm, value), []).append(row)
    return {
        name: [{"arm": arm, "value": value} | _columns(of) for (arm, value), of in rows.items()]
        for name, rows in found.items()
    }


def _columns(rows: list[dict]) -> dict:
    """Lists over seeds; of the test images how many of the nets were wrong, where any was."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns["processor_seconds"] = round(sum(columns["processor_seconds"]), 1)
    if "wrong" in columns:
        counts = Counter(image for images in columns["wrong"] for image in images)
        columns["wrong"] = {str(image): counts[image] for image in sorted(counts)}
    return columns


# --- the results file --------------------------------------------------------------------


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__
    }


def settings(comparisons=COMPARISONS, test_seeds=TEST_SEEDS) -> dict:
    return {
        "batch_size": BATCH_SIZE,
        "momentum": MOMENTUM,
        "test_seeds": list(test_seeds),
        "nets": {
            c.name: _net(c)
            | {"sweep_seeds": list(c.sweep_seeds), "grid": c.grid, "quoted": c.quoted}
            for c in comparisons
        },
    }


def _net(comparison: Comparison) -> dict:
    net = comparison.build(0.0, 0)
    return {
        "layers": [str(layer) for layer in net],
        "parameters": sum(p.numel() for p in net.parameters()),
        "lr": comparison.lr,
        "epochs": comparison.epochs,
    }


def results(path: Path = RESULTS) -> dict:
    """What the study wrote.  Raises FileNotFoundError if it hasn't."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; `make mnist DATA=<folder>` writes it")
    return json.loads(path.read_text())


def as_text(found: dict) -> str:
    """JSON with the innermost lists and objects on one line each."""
    text = json.dumps(found, indent=1)
    return re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda m: " ".join(m.group().split()), text) + "\n"


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or not arguments[0]:
        print("usage: make mnist DATA=<folder with the files of MNIST, or an empty one>",
              file=sys.stderr)
        return 2
    from tools.notebooks import write_whole

    setup()
    try:
        found = run(Path(arguments[0]))
    except KeyboardInterrupt:
        print(f"\nStopped. What is finished is kept in {os.path.relpath(KEPT)}; the same command "
              "goes on from there.", file=sys.stderr)
        return 130
    except (OSError, ValueError, RuntimeError) as error:
        print(f"make mnist: {error}", file=sys.stderr)
        return 1
    write_whole(RESULTS, as_text(found))
    print(f"wrote {os.path.relpath(RESULTS)}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill ends it as Ctrl-C does
    sys.exit(main(sys.argv[1:]))
