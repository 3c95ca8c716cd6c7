import copy
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from test_data import write_idx
from torch import nn
from torch.nn import functional as F

from helpers import models
from helpers.data import Data, batches
from helpers.rng import generator
from studies import mnist as study

ROOT = Path(__file__).parents[1]


def tiny_net(p, seed):
    return models.mlp(784, 4, 10, p=p, seed=seed)


TINY = study.Comparison(
    "tiny", tiny_net, (784,), lr=0.1, epochs=2, sweep_seeds=(0,),
    grid={"dropout": (0.25, 0.5), "L2": (1e-3,), "L1": (1e-4, 1e-3)}, quoted={"L2": 1e-2},
)


def write_pair(folder, part, n, seed, ending=""):
    """Images that are bright in the row of their class."""
    y = torch.randint(10, (n,), generator=generator(seed, "y"))
    X = torch.randint(100, (n, 28, 28), generator=generator(seed, "X"))
    X[range(n), 2 * y] += 100
    for name, values in {"images-idx3-ubyte": X, "labels-idx1-ubyte": y}.items():
        path = folder / f"{part}-{name}{ending}"
        write_idx(path, values.numpy().astype(np.uint8), compress=bool(ending))


@pytest.fixture
def pair(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_pair(folder, "t10k", 100, seed=0)
    return folder


def run(folder, processes=1):
    return study.run(folder, [TINY], (0, 1), folder.parent / "kept", processes)


def without_times(found):
    found = copy.deepcopy(found)
    for rows in (*found["sweep"].values(), *found["test"].values()):
        for row in rows:
            del row["processor_seconds"]
    return found


# --- data --------------------------------------------------------------------------------


def test_a_test_pair_alone_is_split_four_to_one(pair):
    train, test = study.load(pair)
    assert (len(train.y), len(test.y)) == (80, 20)
    whole, _ = study.mnist(pair, "test")
    rows = torch.cat([train.X, test.X]).unique(dim=0)
    assert torch.equal(rows, whole.unique(dim=0))
    assert study.describe(pair)["validation"] == 10


def test_four_files_are_taken_as_they_are(pair):
    write_pair(pair, "train", 60, seed=1, ending=".gz")
    train, test = study.load(pair)
    assert (len(train.y), len(test.y)) == (60, 100)
    assert len(study.describe(pair)["files"]) == 4
    study.provide(pair)  # doesn't look for a network


@pytest.mark.parametrize("mend, says", [
    (lambda images, labels: images.write_bytes(images.read_bytes()[:-9]), "is damaged"),
    (lambda images, labels: images.write_bytes(labels.read_bytes()), "swapped"),
    (lambda images, labels: labels.write_bytes(images.read_bytes()), "swapped"),
])
def test_bad_files_stop_the_program_and_leave_nothing(pair, mend, says):
    mend(pair / "t10k-images-idx3-ubyte", pair / "t10k-labels-idx1-ubyte")
    with pytest.raises(ValueError, match=says):
        run(pair)
    assert not (pair.parent / "kept").exists()


def test_wrong_arguments_are_named(tmp_path, capsys):
    for arguments in ([], [""], ["a", "b"]):
        assert study.main(arguments) == 2
        assert "make mnist DATA=<folder" in capsys.readouterr().err
    assert study.main([str(tmp_path / "nowhere")]) == 1
    assert "DATA must be a folder that exists" in capsys.readouterr().err


# --- download ----------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A server of four small files, and a list of what it was asked for."""
    from helpers.d2l_bridge import d2l

    source = tmp_path / "mirror"
    source.mkdir()
    write_pair(source, "train", 60, seed=1, ending=".gz")
    write_pair(source, "t10k", 100, seed=0, ending=".gz")
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = (source / self.path[1:]).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: getattr(self.server, "cut", None)])

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sums = [(path.name, study.hashlib.md5(path.read_bytes()).hexdigest())
            for path in (source / f"{name}.gz" for name in study.FILES)]
    MNIST = d2l.torchvision.datasets.MNIST
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(MNIST, "resources", sums)
    server.source, server.asked = source, asked
    yield server
    server.shutdown()
    server.server_close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_empty_folder_gets_the_four_files(mirror, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    study.provide(folder)
    assert names(folder) == sorted(f"{name}.gz" for name in study.FILES)
    assert len(study.load(folder)[0].y) == 60
    mirror.asked.clear()
    study.provide(folder)
    assert mirror.asked == []


@pytest.mark.parametrize("how", ["corrupted", "cut"])
def test_a_broken_download_leaves_nothing_and_goes_on_with_the_rest(mirror, tmp_path, how):
    folder = tmp_path / "data"
    folder.mkdir()
    bad = mirror.source / "t10k-images-idx3-ubyte.gz"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-1] + b"x" if how == "corrupted" else whole)
    if how == "cut":
        mirror.cut = len(whole) // 2  # of every file that is longer
    with pytest.raises(OSError, match="could not be downloaded .*put the four files"):
        study.provide(folder)
    finished = names(folder)
    assert finished == ([] if how == "cut" else names(mirror.source)[2:])
    bad.write_bytes(whole)
    mirror.cut = None
    mirror.asked.clear()
    study.provide(folder)
    assert names(folder) == names(mirror.source)
    assert not {f"/{name}" for name in finished} & set(mirror.asked)


def test_without_a_network_the_message_says_what_to_put_where(mirror, tmp_path, capsys):
    mirror.shutdown()
    mirror.server_close()
    assert study.main([str(tmp_path / "mirror" / "..")]) == 1
    said = capsys.readouterr().err
    assert "could not be downloaded" in said and "t10k-labels-idx1-ubyte" in said


def test_a_stopped_download_leaves_nothing(mirror, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()

    def stop(name, unfinished):
        unfinished.mkdir()
        (unfinished / name).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "_fetch", stop)
    with pytest.raises(KeyboardInterrupt):
        study.provide(folder)
    assert names(folder) == []


# --- training ----------------------------------------------------------------------------


@pytest.mark.parametrize("arm, value", [("none", 0.0), ("L2", 0.03), ("L1", 0.003)])
def test_a_part_trains_as_plain_torch_does(pair, arm, value):
    train, test = study.load(pair)
    part = study.Part(TINY, "test", arm, (value / 3, value), seed=4)
    row = study.train_part(part, train, test)[1]
    model, lam = models.mlp(784, 4, 10, seed=4), {arm: value}
    weights = [model[0].weight, model[2].weight]
    optimizer = torch.optim.SGD(
        [{"params": weights, "weight_decay": lam.get("L2", 0)},
         {"params": [model[0].bias, model[2].bias]}], lr=TINY.lr, momentum=study.MOMENTUM)
    for epoch in (1, 2):
        for rows in batches(len(train.y), study.BATCH_SIZE, 4, epoch):
            loss = F.cross_entropy(model(train.X[rows]), train.y[rows])
            optimizer.zero_grad()
            (loss + lam.get("L1", 0) * sum(w.abs().sum() for w in weights)).backward()
            optimizer.step()
    outputs = model(test.X)
    assert abs(F.cross_entropy(outputs, test.y).item() - row["test_loss"]) < 1e-10
    assert row["wrong"] == (outputs.argmax(1) != test.y).nonzero().flatten().tolist()
    assert row["test_accuracy"] == pytest.approx(1 - len(row["wrong"]) / 20)


def test_a_sweep_does_not_look_at_the_test_images(pair):
    train, test = study.load(pair)
    part = study.Part(TINY, "sweep", "dropout", (0.25, 0.5), seed=0)
    nonsense = Data(torch.full_like(test.X, torch.nan), test.y)
    rows = study.train_part(part, train, nonsense)
    assert rows == study.train_part(part, train, test)
    assert {key for row in rows for key in row} == {
        "train_accuracy", "train_loss", "validation_accuracy", "validation_loss"
    }


def test_the_lowest_mean_validation_loss_is_chosen():
    rows = [{"arm": arm, "value": value, "validation_loss": losses}
            for arm, value, losses in [("none", 0.0, [0, 0]), ("L1", 1, [1, 5]), ("L1", 2, [2, 3]),
                                       ("L2", 1, [1, 2]), ("L2", 2, [9, 0])]]
    assert study.choose(rows) == {"L1": 2, "L2": 1}


def test_quoted_strengths_are_tested_beside_the_chosen(pair):
    found = run(pair)
    rows = [(row["arm"], row["value"]) for row in found["test"]["tiny"]]
    chosen = found["chosen"]["tiny"]
    assert rows == [("none", 0.0), ("dropout", chosen["dropout"]), ("L2", 1e-3), ("L2", 1e-2),
                    ("L1", chosen["L1"])]
    for row in found["test"]["tiny"]:
        assert len(row["test_loss"]) == 2 and sum(row["wrong"].values()) == pytest.approx(
            20 * sum(1 - accuracy for accuracy in row["test_accuracy"]))


# --- stopping and going on -----------------------------------------------------------------


def test_stopped_and_continued_gives_the_same_and_trains_nothing_twice(pair, monkeypatch):
    train_part, trained = study.train_part, []

    def until(stop):
        def train_or_stop(part, *images):
            if len(trained) == stop:
                raise KeyboardInterrupt
            trained.append((part.stage, part.arm, part.seed))
            return train_part(part, *images)

        monkeypatch.setattr(study, "train_part", train_or_stop)

    for stop in (3, 7):  # in the sweep, in the test
        until(stop)
        with pytest.raises(KeyboardInterrupt):
            run(pair)
        assert len(names(pair.parent / "kept")) == stop
    until(None)
    continued = run(pair)
    assert len(trained) == len(set(trained)) == 4 + 8
    again = run(pair)
    assert len(trained) == 12 and again == continued
    for path in (pair.parent / "kept").iterdir():
        path.unlink()
    assert without_times(run(pair)) == without_times(continued)


def test_other_data_or_settings_do_not_take_what_is_kept(pair):
    part = study.Part(TINY, "test", "L2", (1e-3,), 0)
    source = study.describe(pair)
    others = [
        (part._replace(values=(1e-2,)), source),
        (part._replace(comparison=TINY._replace(epochs=3)), source),
        (part, source | {"files": {}}),
    ]
    assert len({study._file_name(*one) for one in [(part, source), *others]}) == 4


def test_two_processes_give_the_same(pair):
    alone = run(pair)
    for path in (pair.parent / "kept").iterdir():
        path.unlink()
    assert without_times(run(pair, processes=2)) == without_times(alone)


PROGRAM = """
import functools, pathlib, signal, sys
from studies import mnist
if __name__ == "__main__":
    # as in a terminal; a program that was started in the background ignores Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    mnist.KEPT = pathlib.Path(sys.argv[2])
    mnist.RESULTS = mnist.KEPT / "results"
    cnn, fc = mnist.COMPARISONS
    short, endless = fc._replace(epochs=1), cnn._replace(epochs=10**9)
    mnist.run = functools.partial(mnist.run, comparisons=(short, endless), kept=mnist.KEPT)
    sys.exit(mnist.main(sys.argv[1:2]))
"""


def test_ctrl_c_ends_the_program_at_once_with_a_message(pair, tmp_path):
    kept, script = tmp_path / "kept", tmp_path / "program.py"
    script.write_text(PROGRAM)
    program = subprocess.Popen(
        [sys.executable, script, pair, kept], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
    )
    try:
        until = time.monotonic() + 120
        while not list(kept.glob("*.json")) and time.monotonic() < until:
            time.sleep(0.05)
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to all its processes
        _, said = program.communicate(timeout=20)
    finally:
        program.kill()
    assert program.returncode == 130 and "Stopped. What is finished is kept in" in said
    assert "Traceback" not in said
    assert names(kept) and "results" not in names(kept)
    assert all(json.loads(path.read_text()) for path in kept.iterdir())


# --- what is committed -------------------------------------------------------------------


def test_the_committed_results_are_complete():
    found = study.results()
    assert found["settings"] == json.loads(json.dumps(study.settings()))
    assert len(found["settings"]["test_seeds"]) >= 5
    assert list(found["versions"]) == ["python", "torch", "numpy"]
    assert all(found["versions"].values())
    assert found["machine"]["processors"] >= 1
    sizes = tuple(found["data"][part] for part in ("training", "validation", "test"))
    assert sizes in [(8000, 1000, 2000), (60000, 7500, 10000)]
    for comparison in study.COMPARISONS:
        name, chosen = comparison.name, found["chosen"][comparison.name]
        assert chosen == study.choose(found["sweep"][name])
        tested = study._to_test(chosen, comparison.quoted)
        seeds = {"sweep": comparison.sweep_seeds, "test": study.TEST_SEEDS}
        for stage, strengths in [("sweep", comparison.grid), ("test", tested)]:
            rows = found[stage][name]
            expected = [("none", 0.0)] + [(arm, v) for arm in strengths for v in strengths[arm]]
            assert [(row["arm"], row["value"]) for row in rows] == expected
            assert all(row["processor_seconds"] > 0 for row in rows)
            for row in rows:
                lengths = {len(values) for values in row.values() if isinstance(values, list)}
                assert lengths == {len(seeds[stage])}
        for row in found["test"][name]:
            errors = sizes[2] * sum(1 - accuracy for accuracy in row["test_accuracy"])
            assert sum(row["wrong"].values()) == pytest.approx(errors)


def test_the_committed_results_come_from_mnist():
    from helpers.d2l_bridge import d2l

    files = study.results()["data"]["files"]
    known = dict(d2l.torchvision.datasets.MNIST.resources)
    assert len(files) in (2, 4) and all(known[name] == md5 for name, md5 in files.items())


def test_the_committed_file_is_what_the_program_writes():
    text = study.RESULTS.read_text()
    assert study.as_text(json.loads(text)) == text


def test_missing_results_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="make mnist"):
        study.results(tmp_path / "mnist.json")


def test_the_small_cnn_has_about_eleven_thousand_parameters():
    net = study.small_cnn(0.5, 0)
    assert 11_000 <= sum(p.numel() for p in net.parameters()) < 12_000
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert [type(layer) for layer in study.one_hidden_layer(0.0, 0)] == [
        nn.Linear, nn.Sigmoid, nn.Linear]
