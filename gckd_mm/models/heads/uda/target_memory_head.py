"""The base of heads that remember the whole target."""

from __future__ import annotations

from typing import cast

from torch import nn

from gckd_mm.models.heads.uda.adaptation_head import MODALITIES, AdaptationHead
from gckd_mm.models.memory import EmbeddingMemory


class TargetMemoryHead(AdaptationHead):
    """Keep the target's images and captions as the student last embedded them.

    Args:
        size: Embeddings that each of the two memories holds at most.
        dim: Numbers an embedding.
        loss_weight: See :class:`AdaptationHead`.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If ``size`` or ``dim`` is less than 1.
    """

    def __init__(
        self,
        size: int,
        dim: int,
        loss_weight: float | dict = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_weight, init_cfg)
        self.memories = nn.ModuleDict(
            {modality: EmbeddingMemory(size, dim) for modality in MODALITIES}
        )

    def reset(self) -> None:
        """Empty the memories."""
        for modality in MODALITIES:
            self.memory(modality).reset()

    def memory(self, modality: str) -> EmbeddingMemory:
        """Return the memory of ``'images'`` or ``'captions'``."""
        return cast(EmbeddingMemory, self.memories[modality])
