"""A retriever with two stages: the source alone, then the adaptation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.structures import BaseDataElement
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.retrievers.dual_encoder import DualEncoder
from gckd_mm.models.schedule import Schedule


class StagedDualEncoder(DualEncoder):
    """Base of the models that adapt to an unlabelled target domain.

    The first ``source_iters`` iterations are those of :class:`DualEncoder` on the
    source alone, whatever the subclass is: every method can branch off the same source
    stage. Then :meth:`start_adaptation` is called once, and every later batch is
    :meth:`adapt`'s. :class:`gckd_mm.engine.hooks.AdaptationHook` drives it.

    :class:`gckd_mm.engine.loops.TwoStageTrainLoop` says how long either stage is.

    Args:
        **towers: See :class:`DualEncoder`: the encoders, the source's heads and the
            data preprocessor.

    Attributes:
        source_iters: Iterations on the source alone; 0 until :meth:`set_stages`.
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
        """Return every loss of one step by its name, and what describes the step.

        Args:
            inputs: ``images`` and ``captions`` of N source pairs.
            data_samples: N samples with ``pid`` and ``sample_idx``.
            target: ``inputs`` with N target images and captions, drawn independently,
                and ``image_index`` and ``caption_index``, which say which samples of
                the target these are. None in the source stage. Without captions, what
                needs them is left out.

        Returns:
            ``loss_<term>`` -> scalar, already weighted; and diagnostics.

        Raises:
            InputError: If a source sample has no person id, or if the stage and the
                data contradict each other.
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
            return self.head_losses(feats, self._pids(data_samples))
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
        """Return the step of the adaptation; negative in the source stage.

        Raises:
            InputError: If nobody has said which iteration it is.
        """
        if self._iteration is None:
            raise InputError(
                f'{type(self).__name__}: nobody says which iteration this is; add '
                "default_hooks = dict(adaptation=dict(type='AdaptationHook'))"
            )
        return self._iteration - self.source_iters
