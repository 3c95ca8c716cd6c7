"""Runs a student's cells inside the sandbox, where this is the grader's only file.

One JSON object per line comes in and one goes out. Nothing here is trusted by the grader:
student code runs in this same process and can do with it what it likes.
"""

import base64
import json
import os
import resource
import sys

TEXT, PICTURE, PICTURES, ANSWER = (
    20_000,
    1_000_000,
    8,
    4_000_000,
)  # characters, bytes, number, bytes
DEPTH = 8


def confine(limits: dict) -> None:
    """Give up root for good, and set limits that can't be raised again."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(limits["uid"], limits["uid"], limits["uid"])
        os.setresuid(limits["uid"], limits["uid"], limits["uid"])
    for name in ("NPROC", "DATA", "FSIZE", "NOFILE", "CORE"):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limits[name],) * 2)


def channel():
    """The two ends of the grader's pipes; 0, 1 and 2 lead nowhere from now on."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    return requests, replies


class Screen:
    """Standard output of a cell: keeps the beginning, drops the rest."""

    encoding, errors = "utf-8", "replace"

    def __init__(self):
        self.parts, self.left = [], TEXT

    def write(self, text):
        if self.left > 0:
            self.parts.append(text[: self.left])
            self.left -= len(text)
            if self.left <= 0:
                self.parts.append("\n… and more, not shown\n")
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        pass

    def isatty(self):
        return False

    def fileno(self):
        raise OSError("the output of a cell is not a file")

    def text(self):
        return "".join(self.parts)


def make_shell():
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    return InteractiveShell.instance(config=config)


def run_cell(shell, source: str) -> dict:
    """Run a cell as a notebook does. Returns its outputs and, where it failed, the error."""
    from IPython.core.displayhook import CapturingDisplayHook
    from IPython.core.displaypub import CapturingDisplayPublisher

    screen, old = Screen(), (sys.stdout, sys.stderr, shell.display_pub, sys.displayhook)
    shell.display_pub = CapturingDisplayPublisher()
    shown = shell.display_pub.outputs
    sys.displayhook = CapturingDisplayHook(shell=shell, outputs=shown)
    sys.stdout = sys.stderr = screen
    try:
        result = shell.run_cell(source, store_history=False)
    finally:
        sys.stdout, sys.stderr, shell.display_pub, sys.displayhook = old
    error = result.error_before_exec or result.error_in_exec
    outputs = [{"stream": screen.text()}] if screen.parts else []
    outputs += [picture(o.get("data", {})) for o in shown[:PICTURES]]
    return {"outputs": outputs, "error": describe(error) if error else None}


def picture(data: dict) -> dict:
    kept = {"text/plain": str(data.get("text/plain", ""))[:TEXT]}
    png = data.get("image/png")
    if png:
        png = png if isinstance(png, str) else base64.b64encode(png).decode()
        if len(png) <= PICTURE:
            kept["image/png"] = png
    return {"data": kept}


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]


def probe(shell, name: str, seed: int) -> dict:
    """Call the probe and encode what it returns."""
    screen, old = Screen(), (sys.stdout, sys.stderr)
    sys.stdout = sys.stderr = screen
    try:
        return {"value": encode(shell.user_ns[name](seed=seed))}
    except BaseException as error:  # whatever it is, it is this answer's
        return {"error": describe(error)}
    finally:
        sys.stdout, sys.stderr = old


def encode(value, depth: int = 0):
    """Plain data as JSON: [kind, …] for what JSON has not; raises TypeError for the rest."""
    import numpy as np
    import torch

    if depth > DEPTH:
        raise ValueError("the answer is nested too deeply")
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int):
        return ["int", str(int(value))]
    if isinstance(value, float):
        return ["float", repr(float(value))]
    if isinstance(value, (list, tuple)):
        return ["list", [encode(item, depth + 1) for item in value]]
    if isinstance(value, dict):
        return ["dict", [[str(key), encode(item, depth + 1)] for key, item in value.items()]]
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, torch.Tensor):
        return encode_tensor(value.detach().cpu().contiguous())
    raise TypeError(f"an answer can't hold a {type(value).__name__}")


def encode_tensor(tensor):
    size = tensor.numel() * tensor.element_size()
    if size > ANSWER:
        raise ValueError(f"the answer is too large: a tensor of {size} bytes")
    data = base64.b64encode(tensor.numpy().tobytes()).decode()
    return ["tensor", str(tensor.dtype).removeprefix("torch."), list(tensor.shape), data]


def main() -> None:
    limits = json.loads(sys.argv[1])
    confine(limits)
    sys.argv = [""]
    sys.path.insert(0, "")
    shell = make_shell()
    requests, replies = channel()

    def send(reply: dict) -> None:
        data = json.dumps(reply).encode() + b"\n"
        while data:
            data = data[os.write(replies, data) :]

    send({"ready": os.getpid()})
    for line in requests:
        request = json.loads(line)
        if "probe" in request:
            reply = probe(shell, request["probe"], request["seed"])
        else:
            reply = run_cell(shell, request["source"])
        send({**reply, "nonce": request["nonce"]})


if __name__ == "__main__":
    main()
