"""What comes back from the sandbox, as plain data: whatever it is, a student may have written it.

``decode`` gives None, bool, int, float, str, list, dict and torch tensors, of limited size, and
raises ValueError for anything else. Nothing is unpickled, nothing is called.
"""

import base64
import binascii

import torch

ITEMS, DEPTH, TEXT, BYTES = 10_000, 10, 20_000, 4_000_000
LARGEST = 2**63
DTYPES = {
    name: getattr(torch, name)
    for name in (
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "float32",
        "float64",
    )
}


def plain(text) -> str:
    """Text that a student may have made, short and with whole characters only."""
    return str(text)[:1000].encode("utf-8", "replace").decode("utf-8")


def decode(raw):
    """The answer that ``inside.encode`` wrote."""
    left = [ITEMS]
    return _decode(raw, left, DEPTH)


def _decode(raw, left: list[int], depth: int):
    left[0] -= 1
    if left[0] < 0 or depth < 0:
        raise ValueError("the answer has too many parts")
    if raw is None or isinstance(raw, bool):
        return raw
    if isinstance(raw, str):
        return _at_most(raw, TEXT)
    if not isinstance(raw, list) or not raw or not isinstance(raw[0], str):
        raise ValueError("the answer is not in the form that the grader reads")
    kind, *rest = raw
    if kind == "tensor" and len(rest) == 3:
        return _tensor(*rest)
    if len(rest) != 1:
        raise ValueError("the answer is not in the form that the grader reads")
    if kind in ("int", "float") and isinstance(rest[0], str):
        return _number(kind, _at_most(rest[0], 40))
    if kind == "list" and isinstance(rest[0], list):
        return [_decode(item, left, depth - 1) for item in rest[0]]
    if kind == "dict" and isinstance(rest[0], list):
        return dict(_pair(pair, left, depth - 1) for pair in rest[0])
    raise ValueError("the answer is not in the form that the grader reads")


def _at_most(text: str, length: int) -> str:
    if len(text) > length:
        raise ValueError("the answer is too long")
    return text.encode("utf-8", "replace").decode("utf-8")


def _number(kind: str, text: str):
    if kind == "float":
        return float(text)
    value = int(text)
    if abs(value) >= LARGEST:
        raise ValueError("the answer has a whole number that is too large")
    return value


def _pair(raw, left, depth):
    if not isinstance(raw, list) or len(raw) != 2 or not isinstance(raw[0], str):
        raise ValueError("the answer is not in the form that the grader reads")
    return _at_most(raw[0], 200), _decode(raw[1], left, depth)


def _tensor(dtype, shape, data):
    known = isinstance(dtype, str) and dtype in DTYPES and isinstance(data, str)
    if not known or not isinstance(shape, list) or len(shape) > 8:
        raise ValueError("the answer has a tensor of an unknown kind")
    if not all(type(n) is int and 0 <= n <= BYTES for n in shape) or len(data) > 2 * BYTES:
        raise ValueError("the answer has a tensor that is too large")
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the answer has a damaged tensor") from error
    empty = torch.empty(0, dtype=DTYPES[dtype])
    number = 1
    for n in shape:
        number *= n
    if number * empty.element_size() != len(content) or len(content) > BYTES:
        raise ValueError("the answer has a damaged tensor")
    if dtype == "bool" and content.strip(b"\0\1"):
        raise ValueError("the answer has a damaged tensor")
    if not number:
        return empty.reshape(shape)
    return torch.frombuffer(bytearray(content), dtype=DTYPES[dtype]).reshape(shape)
