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
        pretrained: A folder that transformers' ``save_pretrained`` wrote, or a name on
            the hub such as ``'openai/clip-vit-base-patch16'``; of a whole CLIP, or of
            its text tower. None, the default, leaves the weights random. With
            ``pretrained`` alone, sizes and weights are read at once. With ``config``
            too, only ``init_weights`` reads it, which mmengine calls before training
            and not before testing: a checkpoint is then tested where the pretrained
            weights are not.
        config: Sizes, as transformers' ``CLIPTextConfig`` names them. Defaults to those
            of ``pretrained``, or of ViT-B/16.
        attn_implementation: ``'sdpa'`` or ``'eager'``, or another that transformers
            knows. Defaults to ``'sdpa'``.
        gradient_checkpointing: Whether to compute each layer again in the backward
            pass instead of keeping it in memory. Defaults to False.
        frozen_stages: What is not trained, as in mmpretrain: -1 nothing, 0 the
            embeddings, n the embeddings and the first n layers. Defaults to -1.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If there is no such model, or it is no CLIP.

    Source: Radford et al., *Learning Transferable Visual Models From Natural Language
    Supervision*, ICML 2021.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        config: dict[str, Any] | None = None,
        attn_implementation: str = 'sdpa',
        gradient_checkpointing: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            pretrained,
            config,
            attn_implementation,
            gradient_checkpointing,
            frozen_stages,
            init_cfg,
        )
        sizes: Any = self.model.config
        self.vocab_size = int(sizes.vocab_size)
        self.context_length = int(sizes.max_position_embeddings)
        self.has_published_vocabulary = pretrained is not None

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
        if input_ids.shape[1] > self.context_length:
            raise InputError(
                f'captions of {input_ids.shape[1]} tokens, but the text backbone has '
                f'{self.context_length} positions: set tokenizer.max_length to at most '
                f'{self.context_length}'
            )
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
