"""Token features to caption embeddings."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.necks.features import Features, last_of, pool_tokens, with_last
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

    def forward(
        self, tokens: Features, attention_mask: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Project token features to embeddings.

        Args:
            tokens: Shape (N, L, C), or (N, C) if they are pooled already; or a tuple of
                which the last is meant.
            attention_mask: Shape (N, L), bool, False on padding; True somewhere in each
                row. None, the default, where there is no padding.

        Returns:
            Shape (N, D), or the tuple with that in the place of the last.

        Raises:
            InputError: If the features have another number of dimensions.
        """
        pooled = pool_tokens(last_of(tokens), attention_mask, self.pooling)
        return with_last(tokens, self.projection(pooled))
