"""Two stages, the source alone and the adaptation, and numbers that change in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.structures import BaseDataElement
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.heads.contrastive_head import head_losses, person_ids
from gckd_mm.models.retrievers.dual_encoder import DualEncoder


@dataclass
class Schedule:
    """A number as a pure function of the adaptation step: nothing of it is resumed.

    Attributes:
        start: Value up to ``begin``.
        end: Value from ``begin + length`` on.
        length: How long the ramp takes, as a fraction of the adaptation; 0 jumps.
        begin: Where the ramp begins, as a fraction of the adaptation.
        shape: ``'linear'``, or ``'cosine'``: half a period, level at both ends.
        num_steps: Steps of the adaptation; None as long as nobody has said.
        name: The config key, for messages.
    """

    start: float
    end: float
    length: float
    begin: float = 0.0
    shape: str = 'linear'
    num_steps: int | None = None
    name: str = ''

    @property
    def is_constant(self) -> bool:
        """Whether the value never changes."""
        return self.start == self.end

    def at(self, step: int) -> float:
        """Return the value at an adaptation step, which may lie before the first."""
        if self.is_constant:
            return self.end
        if self.num_steps is None:
            raise InputError(
                f'{self.name} is a ramp over the adaptation, and nobody says how many '
                f"steps that has: train with train_cfg=dict(type='TwoStageTrainLoop', "
                f'source_iters=…, adapt_iters=…), or call model.set_stages'
            )
        # In steps, so that 35 / 300 of 300 steps are 35, with no rounding.
        first = round(self.begin * self.num_steps, 6)
        last = round((self.begin + self.length) * self.num_steps, 6)
        if step >= last:
            return self.end
        if step <= first:
            return self.start
        covered = (step - first) / (last - first)
        if self.shape == 'cosine':
            covered = (1 - math.cos(math.pi * covered)) / 2
        return self.start + (self.end - self.start) * covered


class StagedDualEncoder(DualEncoder):
    """Base of the models that adapt to an unlabelled target domain.

    The first ``source_iters`` iterations are those of :class:`DualEncoder` on the
    source alone: every method can branch off the same source stage. Then
    :meth:`start_adaptation` is called once, and every later batch is :meth:`adapt`'s.
    :class:`~gckd_mm.engine.loops.TwoStageTrainLoop` says how long the stages are,
    :class:`~gckd_mm.engine.hooks.AdaptationHook` which iteration it is. Arguments are
    those of :class:`DualEncoder`.
    """

    def __init__(self, **towers: Any) -> None:
        super().__init__(**towers)
        self.source_iters = 0
        self._iteration: int | None = None

    def set_stages(self, source_iters: int, adapt_iters: int) -> None:
        """Say how many iterations the source stage and the adaptation have."""
        self.source_iters = source_iters
        for schedule in self.schedules().values():
            schedule.num_steps = adapt_iters

    def schedules(self) -> dict[str, Schedule]:
        """Return everything that changes over the adaptation, by name."""
        return {}

    def set_iteration(self, iteration: int) -> None:
        """Say which iteration comes next, counted from the start of the run."""
        self._iteration = iteration

    def start_adaptation(self) -> None:
        """Forget what an earlier adaptation has left."""

    def update_teacher(self) -> None:
        """Move a teacher, if there is one, after each step of the optimiser."""

    def loss(
        self,
        inputs: dict[str, Any],
        data_samples: Sequence[BaseDataElement],
        target: dict[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Return ``loss_<term>`` -> scalar, already weighted; and diagnostics.

        Args:
            inputs: ``images`` and ``captions`` of N source pairs.
            data_samples: N samples with ``pid`` and ``sample_idx``.
            target: ``inputs`` with N images and, if any, N captions, sampled apart, and
                their ``image_index`` and ``caption_index``. None in the source stage.

        Raises:
            InputError: If a source sample has no person id, or the target is missing.
        """
        name = type(self).__name__
        if any('pid' not in sample for sample in data_samples):
            raise InputError(
                f'{name}: the source has no person ids; they are its labels'
            )
        step = self.step()
        if step < 0:
            feats = self.extract_feat(inputs)
            self.check_source(feats)
            pids = person_ids(data_samples, feats['images'])
            return head_losses(self.heads, feats, pids)
        if target is None:
            raise InputError(
                f'{name}: the adaptation has begun, but the batch has no target: '
                "train_dataloader needs a CrossDomainDataset, train_cfg type='Two"
                "StageTrainLoop'"
            )
        return self.adapt(inputs, data_samples, target, step)

    def adapt(
        self,
        inputs: dict[str, Any],
        data_samples: Sequence[BaseDataElement],
        target: dict[str, Any],
        step: int,
    ) -> dict[str, Tensor]:
        """Return the losses of one step of the adaptation: see :meth:`loss`."""
        raise NotImplementedError

    def check_source(self, feats: dict[str, Tensor]) -> None:
        """Refuse, already in the source stage, what the adaptation cannot use."""

    def step(self) -> int:
        """Return the step of the adaptation; negative in the source stage."""
        if self._iteration is None:
            raise InputError(
                f'{type(self).__name__}: nobody says which iteration this is; add '
                "default_hooks = dict(adaptation=dict(type='AdaptationHook'))"
            )
        return self._iteration - self.source_iters
