"""Any text encoder of Hugging Face's transformers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.backbones.hf_backbone import HFBackbone
from gckd_mm.models.hugging_face import import_transformers, make_config
from gckd_mm.registry import MODELS


@MODELS.register_module()
class HFTextBackbone(HFBackbone):
    """BERT, RoBERTa, MiniLM and their kin: tokens in, token features out.

    How they become one embedding is said by the neck: ``TokenProjection`` with
    ``pooling='cls'`` for BERT and RoBERTa, ``'mean'`` for sentence encoders such as
    MiniLM. The model's own pooler is left out.

    Args:
        **backbone: See :class:`HFBackbone`; ``config`` names the ``model_type``, too,
            such as ``'bert'``. One of ``pretrained`` and ``config`` is needed.

    Raises:
        InputError: If neither is given, if there is no such model, or if it is no
            encoder of text alone.
    """

    def __init__(self, pretrained: str | None = None, **backbone: Any) -> None:
        super().__init__(pretrained, **backbone)
        model: Any = self.model
        tokens = int(model.get_input_embeddings().num_embeddings)
        self._take_captions(tokens, _context_length(model), pretrained is not None)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode a batch of captions.

        Args:
            input_ids: Shape (N, L).
            attention_mask: Shape (N, L), bool, False on padding.

        Returns:
            Token features of the last layer, shape (N, L, C); on padding they mean
            nothing.

        Raises:
            InputError: If the captions are longer than the context.
        """
        self._check_length(input_ids)
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask.long(), return_dict=True
        ).last_hidden_state

    def _config(self, config: dict[str, Any] | None) -> Any:
        if not config or 'model_type' not in config:
            raise InputError(
                'HFTextBackbone needs `pretrained`, or a `config` with '
                f"model_type='bert' or another that transformers knows, got {config}"
            )
        where = 'text_backbone.config'
        sizes = dict(config)
        try:
            kind = import_transformers().AutoConfig.for_model(sizes['model_type'])
        except ValueError as error:
            raise InputError(
                f'{where}: transformers knows no model_type={sizes["model_type"]!r}'
            ) from error
        return self._part_of_config(make_config(type(kind), sizes, where), where)

    def _part_of_config(self, config: Any, where: str) -> Any:
        text_alone = hasattr(config, 'vocab_size') and hasattr(config, 'hidden_size')
        if not text_alone or getattr(config, 'is_encoder_decoder', False):
            raise InputError(
                f'{where}: holds a model of type {config.model_type!r}, which is no '
                f'encoder of text alone; a CLIP is a CLIPTextBackbone'
            )
        return config

    def _part_of_model(self, model: nn.Module) -> nn.Module:
        # Weights that no loss reaches would stop DistributedDataParallel.
        if isinstance(getattr(model, 'pooler', None), nn.Module):
            model.register_module('pooler', None)
        return model


def _context_length(model: Any) -> int:
    """Return how many tokens have a position; RoBERTa's begin after the padding's."""
    positions = getattr(model.config, 'max_position_embeddings', None)
    if not isinstance(positions, int) or positions < 1:
        return 1 << 30  # relative positions: no bound
    embeddings = getattr(model, 'embeddings', None)
    table = getattr(embeddings, 'position_embeddings', None)
    padding = getattr(table, 'padding_idx', None)
    return positions if padding is None else positions - padding - 1
