"""The learning rate of a stage that follows another one."""

from __future__ import annotations

import math
from typing import Any

from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin

from gckd_mm.errors import InputError
from gckd_mm.registry import PARAM_SCHEDULERS

_WARMUP_START = 0.1


@PARAM_SCHEDULERS.register_module()
class AdaptationLR(LRSchedulerMixin, _ParamScheduler):
    """Warm up, then anneal to 0, whatever the schedulers before it have left.

    The learning rate at each iteration of [``begin``, ``end``) follows from the
    optimiser's initial one alone: ``factor`` × (a line from 0.1 to 1 over ``warmup``
    iterations, then half a cosine period that reaches 0 at ``end``). mmengine's
    schedulers multiply the current value instead, and cannot leave the 0 that the
    source stage's annealing ends near.

    Args:
        optimizer: The optimiser or its wrapper; given by the runner.
        factor: The highest learning rate, as a fraction of the optimiser's initial one.
        warmup: How long the warm-up takes, as a fraction of the iterations, in [0, 1).
        begin: First iteration: that of the adaptation, from
            :class:`gckd_mm.engine.loops.TwoStageTrainLoop`, as ``end`` is.
        end: Iteration before which it stops.
        last_step: See :class:`mmengine.optim._ParamScheduler`.
        by_epoch: Must be False, and be given: the runner reads it, too.
    """

    def __init__(
        self,
        optimizer: Any,
        factor: float = 1.0,
        warmup: float = 0.0,
        *,
        begin: int = 0,
        end: int,
        last_step: int = -1,
        by_epoch: bool = True,
    ) -> None:
        if by_epoch:
            raise InputError('AdaptationLR counts iterations: set by_epoch=False')
        if factor <= 0:
            raise InputError(f'AdaptationLR: factor must be positive, got {factor}')
        if not 0 <= warmup < 1:
            raise InputError(
                f'AdaptationLR: warmup is a fraction of the adaptation, at least 0 and '
                f'below 1; got {warmup}'
            )
        self.factor = factor
        # less than all of them; 0.1 · 30 is a little less than 3
        self.warmup = max(0, min(int(warmup * (end - begin) + 1e-6), end - begin - 1))
        super().__init__(optimizer, begin, end, last_step, by_epoch)

    def _get_value(self) -> list[float]:
        if self.last_step < self.warmup:
            scale = _WARMUP_START + (1 - _WARMUP_START) * self.last_step / self.warmup
        else:
            annealed = self.last_step - self.warmup
            length = self.end - self.begin - self.warmup
            scale = (1 + math.cos(math.pi * annealed / length)) / 2
        return [self.factor * scale * initial for initial in self.base_values]
