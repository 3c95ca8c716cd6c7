"""The ``d2l`` package on today's torch, and our data as a ``d2l.DataModule``.

Notebooks write ``from helpers.d2l_bridge import d2l``.
"""

import torch

from helpers.data import Data


def _import_torchvision() -> None:
    """Import torchvision, also where its wheel was built for CUDA and torch for the CPU.

    Such a wheel fails with "operator torchvision::nms does not exist": its compiled part isn't
    loaded. Declaring the two operators that Python code registers against is enough; d2l calls
    neither. Does nothing where torchvision imports by itself.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for schema in (
            "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        ):
            name, signature = schema.split("(", 1)
            torch.library.define(f"torchvision::{name}", f"({signature}")
        import torchvision  # noqa: F401


_import_torchvision()
from d2l import torch as d2l  # noqa: E402

__all__ = ["DataModule", "d2l"]


class DataModule(d2l.DataModule):
    """Training and validation data for ``d2l.Trainer``.

    train, validation  X (n, …), y (n,)
    batch_size         from 1 to n

    The loader shuffles training data by torch's global generator: train inside
    ``with seeded(0):`` to make it repeatable. Raises ValueError if batch_size doesn't fit.
    """

    def __init__(self, train: Data, validation: Data, batch_size: int = 32):
        super().__init__()
        if not 1 <= batch_size <= len(train.y):
            raise ValueError(f"batch_size must be from 1 to {len(train.y)}, got {batch_size}")
        self.train, self.validation, self.batch_size = train, validation, batch_size

    def get_dataloader(self, train: bool):
        return self.get_tensorloader(tuple(self.train if train else self.validation), train)
