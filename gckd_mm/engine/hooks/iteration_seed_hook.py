"""Random numbers that depend on the iteration alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from gckd_mm.registry import HOOKS


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed all generators before each iteration with (seed, iteration, rank).

    Checkpoints hold no generator states. With this, dropout draws the same numbers in
    iteration n whether the run was interrupted before it or not, and whatever a probe,
    a validation or a logger has drawn in between.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Seed ``random``, NumPy and torch, on all devices."""
        entropy = [runner.seed, runner.iter, get_rank()]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the generator that others draw from
        torch.manual_seed(seed)
