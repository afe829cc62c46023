"""Evaluate a model in the middle of its training, without a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from gckd_mm.datasets.draw import seeded_augmentation


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, and seed what is random inside.

    Afterwards the mode of each of its modules, and all random generators, those of the
    model's device included, are what they were.
    """
    training = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    devices = [device] if device.type == 'cuda' else []
    with seeded_augmentation(0), torch.random.fork_rng(devices):
        try:
            model.eval()
            yield
        finally:
            for module, mode in training.items():
                module.training = mode
