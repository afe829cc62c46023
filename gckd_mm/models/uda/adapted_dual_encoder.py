"""A dual encoder that adapts with a single head: the baselines of the field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.heads.contrastive_head import head_losses, person_ids
from gckd_mm.models.retrievers.staged import Schedule, StagedDualEncoder
from gckd_mm.models.uda.adaptation_head import AdaptationHead, CrossDomainFeats
from gckd_mm.registry import MODELS


@MODELS.register_module()
class AdaptedDualEncoder(StagedDualEncoder):
    """Add one loss on the embeddings of both domains to those of the source.

    Neither a teacher nor memories of its own: what a method needs beyond the two
    batches, its head keeps.

    Args:
        adaptation: Config of an :class:`AdaptationHead`, or None: the source's losses
            alone.
        **towers: See :class:`DualEncoder`.
    """

    def __init__(self, *, adaptation: dict | None = None, **towers: Any) -> None:
        super().__init__(**towers)
        self.adaptation: AdaptationHead | None = None
        if adaptation is not None:
            self.adaptation = MODELS.build(adaptation)

    def schedules(self) -> dict[str, Schedule]:
        """Return everything that changes over the adaptation, by name."""
        if self.adaptation is None:
            return {}
        return {
            f'adaptation.{name}': schedule
            for name, schedule in self.adaptation.schedules.items()
        }

    def start_adaptation(self) -> None:
        """Forget what an earlier adaptation has left."""
        if self.adaptation is not None:
            self.adaptation.reset()

    def check_source(self, feats: dict[str, Tensor]) -> None:
        """Refuse embeddings of another size than the head's, where it has one."""
        size = getattr(self.adaptation, 'embedding_size', None)
        for modality, rows in feats.items():
            if size not in (None, rows.shape[1]):
                raise InputError(
                    f'AdaptedDualEncoder: the embeddings of {modality} have '
                    f'{rows.shape[1]} numbers, adaptation.embedding_size is {size}'
                )

    def adapt(
        self,
        inputs: dict[str, Any],
        data_samples: Sequence[BaseDataElement],
        target: dict[str, Any],
        step: int,
    ) -> dict[str, Tensor]:
        """Return the losses of one step of the adaptation: see :meth:`loss`."""
        source = self.extract_feat(inputs)
        self.check_source(source)
        pids = person_ids(data_samples, source['images'])
        terms = head_losses(self.heads, source, pids)
        if self.adaptation is None:
            return terms
        seen = self.extract_feat(target['inputs'])
        keys = {
            modality: torch.tensor(
                target[f'{modality.removesuffix("s")}_index'], device=pids.device
            )
            for modality in seen
        }
        feats = CrossDomainFeats(source, pids, seen, keys)
        return terms | self.adaptation.loss(feats, step)
