"""Feature maps to image embeddings."""

from __future__ import annotations

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.necks.features import (
    Features,
    check_dimensions,
    last_of,
    with_last,
)
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

    def forward(self, feature_maps: Features) -> Tensor | tuple[Tensor, ...]:
        """Pool and project a feature map.

        Args:
            feature_maps: Shape (N, C, H, W), or (N, C) if it is pooled already; or a
                tuple of which the last is meant, as backbones give it.

        Returns:
            Shape (N, D), or the tuple with that in the place of the last.

        Raises:
            InputError: If the features have another number of dimensions, or are
                pooled and ``stripes`` is more than 1.
        """
        feats = last_of(feature_maps)
        return with_last(feature_maps, self.projection(self._pool(feats)))

    def _pool(self, feats: Tensor) -> Tensor:
        expected = {2: 'pooled features (N, C)', 4: 'a feature map (N, C, H, W)'}
        check_dimensions(
            'ImageProjection', feats, expected, 'tokens need a TokenProjection'
        )
        if feats.ndim == 4:
            return F.adaptive_avg_pool2d(feats, (self.stripes, 1)).flatten(1)
        if self.stripes > 1:
            raise InputError(
                f'ImageProjection: stripes={self.stripes} need a feature map (N, C, H, '
                f'W), got pooled features of shape {tuple(feats.shape)}: set '
                f'stripes=1, or let the backbone not pool'
            )
        return feats
