"""Tokens of a transformer to embeddings."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.hugging_face import read_model
from gckd_mm.models.necks.features import Features, last_of, pool_tokens, with_last
from gckd_mm.registry import MODELS

#: pooling -> the projection of a transformers CLIP that follows it
_OF_CLIP = {'cls': 'visual_projection', 'eos': 'text_projection'}
POOLINGS = ('cls', 'eos', 'mean')


@MODELS.register_module()
class TokenProjection(BaseModule):
    """Pool the tokens of an image or a caption, and project.

    Args:
        in_channels: Channels C of the tokens.
        out_channels: Size D of the embedding.
        pooling: ``'cls'`` (the first token: CLIP's for images, BERT's for captions),
            ``'eos'`` (the last that is no padding: CLIP's for captions) or ``'mean'``
            (of all that are no padding: MiniLM's). Defaults to ``'cls'``.
        bias: Whether the projection has a bias; CLIP's have none. Defaults to False.
        pretrained: A CLIP, as a folder that transformers' ``save_pretrained`` wrote or
            as a name on the hub: the weights of its projection, of images with
            ``'cls'`` and of captions with ``'eos'``. ``init_weights`` reads it, which
            mmengine calls before training and not before testing. None, the default,
            leaves them random.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If the pooling is unknown, or one that no CLIP projects.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        pooling: str = 'cls',
        bias: bool = False,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if pooling not in POOLINGS:
            raise InputError(f'pooling must be one of {POOLINGS}, got {pooling!r}')
        if pretrained is not None and (bias or pooling not in _OF_CLIP):
            raise InputError(
                f'pretrained is of a CLIP, whose projections have no bias and follow '
                f"pooling='cls' (images) or 'eos' (captions), got bias={bias} and "
                f'pooling={pooling!r}'
            )
        self.pooling = pooling
        self.projection = nn.Linear(in_channels, out_channels, bias=bias)
        self._pretrained = pretrained

    def init_weights(self) -> None:
        """Read the pretrained weights, once."""
        super().init_weights()
        if self._pretrained is not None:
            where, self._pretrained = self._pretrained, None
            self._read(where)

    def forward(
        self, tokens: Features, attention_mask: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Project tokens to embeddings.

        Args:
            tokens: Shape (N, L, C), or (N, C) if they are pooled already; or a tuple of
                which the last is meant, as backbones for images give it.
            attention_mask: Shape (N, L), bool, False on padding; True somewhere in each
                row. None, the default, where there is no padding.

        Returns:
            Shape (N, D), or the tuple with that in the place of the last.

        Raises:
            InputError: If the features have another number of dimensions.
        """
        pooled = pool_tokens(last_of(tokens), attention_mask, self.pooling)
        return with_last(tokens, self.projection(pooled))

    def _read(self, where: str) -> None:
        name = _OF_CLIP[self.pooling]
        model, missing = read_model(where)
        source = getattr(model, name, None)
        if not isinstance(source, nn.Linear) or f'{name}.weight' in missing:
            raise InputError(f'{where}: has no {name}, name the folder of a whole CLIP')
        own, given = self.projection.weight, source.weight
        if own.shape != given.shape:
            raise InputError(
                f'{where}: its {name} is from {given.shape[1]} to {given.shape[0]} '
                f'channels, but in_channels={own.shape[1]} and '
                f'out_channels={own.shape[0]}'
            )
        with torch.no_grad():
            own.copy_(given)
