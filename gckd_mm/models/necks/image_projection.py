"""Feature maps to image embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from gckd_mm.registry import MODELS


@MODELS.register_module()
class ImageProjection(BaseModule):
    """Average-pool a feature map, whole or in horizontal stripes, and project it.

    Stripes keep what is worn above apart from what is worn below: a red coat over blue
    trousers is not a blue coat over red trousers.

    Args:
        in_channels: Channels of the last feature map.
        out_channels: Size D of the embedding.
        stripes: Number of stripes, top to bottom; 1 pools globally. Defaults to 1.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Source: the stripes of Sun et al., *Beyond Part Models* (PCB), ECCV 2018; joining
    them into one embedding is ours.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stripes: int = 1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.stripes = stripes
        self.projection = nn.Linear(in_channels * stripes, out_channels)

    def forward(self, feature_maps: Sequence[Tensor]) -> Tensor:
        """Project the last of the maps, shape (N, C, H, W), to shape (N, D)."""
        pooled = F.adaptive_avg_pool2d(feature_maps[-1], (self.stripes, 1))
        return self.projection(pooled.flatten(1))
