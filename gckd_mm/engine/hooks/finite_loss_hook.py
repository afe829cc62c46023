"""Stop a training that has diverged."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from gckd_mm.checkpoint import (
    find_last_checkpoint,
    first_non_finite,
    read_checkpoint,
)
from gckd_mm.errors import CheckpointError, DivergedError
from gckd_mm.registry import HOOKS


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop at the first loss that is NaN or infinite, before anything is saved.

    Looks at every logged term whose name contains ``loss``, as mmengine does to sum
    them up. Costs one synchronisation with the device an iteration.
    """

    priority = 'VERY_HIGH'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Check the losses of this iteration."""
        losses = {name: v for name, v in (outputs or {}).items() if 'loss' in name}
        if not losses:
            return
        values = torch.stack([value.detach() for value in losses.values()]).tolist()
        bad = [
            f'{name} is {value}'
            for name, value in zip(losses, values, strict=True)
            if not math.isfinite(value)
        ]
        if bad:
            last_good = _last_good_checkpoint(runner)
            raise DivergedError(
                f'iteration {runner.iter + 1}: {", ".join(bad)}: the training has '
                f'diverged. Last good checkpoint: {last_good}. '
                f'Resuming it unchanged ends here again: lower '
                f'optim_wrapper.optimizer.lr, or clip the gradients with '
                f'optim_wrapper.clip_grad=dict(max_norm=1.0)'
            )


def _last_good_checkpoint(runner: Runner) -> str:
    path = find_last_checkpoint(runner.work_dir)
    if path is None:
        return 'none yet'
    # A step can spoil the weights one iteration before a loss shows it. Buffers
    # may be infinite: the similarity of a neighbour that there is none of.
    try:
        state_dict = read_checkpoint(path)['state_dict']
    except CheckpointError as error:
        return f'none that can be read ({error})'
    if first_non_finite(state_dict, runner.model) is not None:
        return f'none; {path} has weights that are not finite'
    return path
