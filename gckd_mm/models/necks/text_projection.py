"""Token features to caption embeddings."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.registry import MODELS

POOLINGS = ('max', 'mean', 'first')


@MODELS.register_module()
class TextProjection(BaseModule):
    """Pool the tokens of a caption, padding left out, and project.

    Args:
        in_channels: Channels C of the token features.
        out_channels: Size D of the embedding.
        pooling: ``'max'``, ``'mean'`` or ``'first'`` (the start token). Defaults to
            ``'max'``.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If the pooling is unknown.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        pooling: str = 'max',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if pooling not in POOLINGS:
            raise InputError(f'pooling must be one of {POOLINGS}, got {pooling!r}')
        self.pooling = pooling
        self.projection = nn.Linear(in_channels, out_channels)

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Project token features to embeddings.

        Args:
            tokens: Shape (N, L, C).
            attention_mask: Shape (N, L), bool, False on padding; True somewhere in each
                row.

        Returns:
            Shape (N, D).
        """
        return self.projection(self._pool(tokens, attention_mask[..., None]))

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        if self.pooling == 'first':
            return tokens[:, 0]
        if self.pooling == 'max':
            return tokens.masked_fill(~mask, float('-inf')).amax(dim=1)
        return tokens.masked_fill(~mask, 0).sum(dim=1) / mask.sum(dim=1)
