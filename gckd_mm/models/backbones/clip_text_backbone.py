"""CLIP's text transformer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.backbones.hf_backbone import HFBackbone
from gckd_mm.models.hugging_face import import_transformers, make_config
from gckd_mm.registry import MODELS


@MODELS.register_module()
class CLIPTextBackbone(HFBackbone):
    """The text tower of CLIP: causal, so that the last token has seen the caption.

    Args:
        **backbone: See :class:`HFBackbone`; ``pretrained`` is a whole CLIP, or its text
            tower, and ``config`` names sizes as ``CLIPTextConfig`` does; without
            either they are those of ViT-B/16.

    Raises:
        InputError: If there is no such model, or it is no CLIP.

    Source: Radford et al., *Learning Transferable Visual Models From Natural Language
    Supervision*, ICML 2021.
    """

    def __init__(self, pretrained: str | None = None, **backbone: Any) -> None:
        super().__init__(pretrained, **{'attn_implementation': 'sdpa', **backbone})
        sizes: Any = self.model.config
        self._take_captions(
            int(sizes.vocab_size),
            int(sizes.max_position_embeddings),
            pretrained is not None,
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode a batch of captions.

        Args:
            input_ids: Shape (N, L), each caption from the left, padding after it.
            attention_mask: Shape (N, L), bool, False on padding. Not looked at: a
                causal tower never sees the padding that comes later, and attends
                faster without a mask.

        Returns:
            Token features after the last normalisation, shape (N, L, C); on padding
            they mean nothing.

        Raises:
            InputError: If the captions are longer than the context.
        """
        self._check_length(input_ids)
        return self.model(input_ids=input_ids, return_dict=True).last_hidden_state

    def _config(self, config: dict[str, Any] | None) -> Any:
        kind = import_transformers().CLIPTextConfig
        return make_config(kind, config or {}, 'text_backbone.config')

    def _part_of_config(self, config: Any, where: str) -> Any:
        if config.model_type == 'clip':
            return config.text_config
        if config.model_type == 'clip_text_model':
            return config
        raise InputError(
            f'{where}: holds a model of type {config.model_type!r}, not a CLIP with a '
            f'text tower; another text encoder is a HFTextBackbone'
        )

    def _part_of_model(self, model: nn.Module) -> nn.Module:
        # Whether CLIPTextModel itself holds the layers depends on the version.
        return getattr(model, 'text_model', model)
