"""The base of heads that adapt a dual encoder to a target without labels."""

from __future__ import annotations

from typing import NamedTuple

from mmengine.model import BaseModule
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.retrievers.schedule_settings import read_schedule


class CrossDomainFeats(NamedTuple):
    """The embeddings of one step of the adaptation, of this rank alone.

    Attributes:
        source: ``images`` and ``captions`` -> the student's embeddings of N pairs,
            L2-normalised, shape (N, D), with gradient; row i of both is one pair.
        pids: Person ids of the source pairs, shape (N,).
        target: The same of N images and N captions sampled independently; ``captions``
            may be missing.
        keys: ``images`` and ``captions`` -> which samples of the target these are,
            indexes from 0, shape (N,).
    """

    source: dict[str, Tensor]
    pids: Tensor
    target: dict[str, Tensor]
    keys: dict[str, Tensor]


class AdaptationHead(BaseModule):
    """Turn the embeddings of both domains into losses; subclasses say how.

    Args:
        loss_weight: Of everything that :meth:`terms` calls a loss; a number or a
            schedule. Defaults to 1.
        init_cfg: See :class:`mmengine.model.BaseModule`.
    """

    def __init__(
        self, loss_weight: float | dict = 1.0, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.schedules = {'loss_weight': read_schedule(loss_weight, 'loss_weight')}

    def loss(self, feats: CrossDomainFeats, step: int) -> dict[str, Tensor]:
        """Return :meth:`terms`, its losses weighted.

        Args:
            feats: See :class:`CrossDomainFeats`.
            step: Step of the adaptation, from 0.
        """
        weight = self.schedules['loss_weight'].at(step)
        return {
            name: weight * value if 'loss' in name else value
            for name, value in self.terms(feats, step).items()
        }

    def terms(self, feats: CrossDomainFeats, step: int) -> dict[str, Tensor]:
        """Return ``loss_<term>`` -> scalar, unweighted; and diagnostics.

        As everywhere in mmengine, what has ``loss`` in its name is a loss.
        """
        raise NotImplementedError

    def reset(self) -> None:
        """Forget what an earlier adaptation has left."""

    def need_captions(self, feats: CrossDomainFeats) -> None:
        """Refuse a target without captions.

        Raises:
            InputError: If the target has none.
        """
        if 'captions' not in feats.target:
            raise InputError(
                f'{type(self).__name__} matches target captions with target images, '
                f'but the target has no captions'
            )
