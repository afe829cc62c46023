"""The base of heads that remember the whole target."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from gckd_mm.models.gckd.memory import EmbeddingMemory
from gckd_mm.models.gckd.relations import MODALITIES
from gckd_mm.models.uda.adaptation_head import AdaptationHead


class TargetMemoryHead(AdaptationHead):
    """Keep the target's images and captions as the student last embedded them.

    Args:
        embedding_size: D.
        memory_size: Rows of each of the two memories; best what the target's train
            set has of the larger modality.
        loss_weight: See :class:`AdaptationHead`.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If ``embedding_size`` or ``memory_size`` is less than 1.
    """

    memories: Mapping[str, EmbeddingMemory]

    def __init__(
        self,
        embedding_size: int,
        memory_size: int,
        loss_weight: float | dict = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_weight, init_cfg)
        self.embedding_size = embedding_size
        self.memories = nn.ModuleDict(  # type: ignore[assignment] # maps as one
            {
                modality: EmbeddingMemory(memory_size, embedding_size)
                for modality in MODALITIES
            }
        )

    def reset(self) -> None:
        """Empty the memories."""
        for modality in MODALITIES:
            self.memory(modality).reset()

    def memory(self, modality: str) -> EmbeddingMemory:
        """Return the memory of ``'images'`` or ``'captions'``."""
        return self.memories[modality]
