"""The source-only retriever, and the base of those that adapt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.heads.contrastive_head import (
    ContrastiveHead,
    head_losses,
    person_ids,
)
from gckd_mm.models.retrievers.towers import TwoTowers
from gckd_mm.models.tokenizers.hf_tokenizer import SPARE_ROWS
from gckd_mm.registry import MODELS


@MODELS.register_module()
class DualEncoder(TwoTowers, BaseModel):
    """Two encoders that meet in one space: cosine similarity ranks the gallery.

    image → ``image_backbone`` → ``image_neck`` → L2 norm → (N, D), and the same for
    captions. Each head turns the two batches of embeddings into one loss.

    Args:
        image_backbone: Config; gives a tuple of feature maps, as mmpretrain's do.
        image_neck: Config; turns that tuple into shape (N, D), alone or as the last of
            a tuple: ours, or mmpretrain's, such as its ``LinearNeck``.
        text_backbone: Config; gives token features, shape (N, L, C).
        text_neck: Config; turns those into shape (N, D).
        heads: Name -> config of a head. Head ``name`` gives the loss ``loss_<name>``;
            None switches one off. Defaults to no heads: a model for testing alone.
        data_preprocessor: Config, with the tokenizer in it.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If the tokenizer may give ids or lengths that the text backbone
            cannot embed, or is not the one that its pretrained weights know.
    """

    heads: Mapping[str, ContrastiveHead]

    def __init__(
        self,
        image_backbone: dict,
        image_neck: dict,
        text_backbone: dict,
        text_neck: dict,
        heads: dict[str, dict | None] | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.image_backbone = MODELS.build(image_backbone)
        self.image_neck = MODELS.build(image_neck)
        self.text_backbone = MODELS.build(text_backbone)
        self.text_neck = MODELS.build(text_neck)
        self.heads = nn.ModuleDict(  # type: ignore[assignment] # maps as one
            {name: MODELS.build(head) for name, head in (heads or {}).items() if head}
        )
        self._check_tokenizer()

    def loss(
        self,
        inputs: dict[str, Any],
        data_samples: Sequence[BaseDataElement],
        target: dict[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss of every head on a batch of labelled pairs.

        Args:
            inputs: ``images`` and ``captions`` of N pairs.
            data_samples: N samples with ``pid``.
            target: Left alone: nothing is learned from the target.

        Returns:
            ``loss_<name>`` -> scalar.
        """
        feats = self.extract_feat(inputs)
        return head_losses(self.heads, feats, person_ids(data_samples, feats['images']))

    def predict(
        self, inputs: dict[str, Any], data_samples: Sequence[BaseDataElement]
    ) -> list[BaseDataElement]:
        """Embed a batch of one modality.

        Args:
            inputs: Either ``images`` or ``captions``, N of them.
            data_samples: N samples.

        Returns:
            The samples, each with ``feat`` of shape (D,) and ``modality``, one of
            ``'images'`` and ``'captions'``.

        Raises:
            ValueError: If the inputs hold both modalities or none.
        """
        if len(inputs) != 1:
            raise ValueError(
                f'predict embeds one modality at a time, got {sorted(inputs)}: test '
                f"with view='images' and view='captions'"
            )
        ((modality, feats),) = self.extract_feat(inputs).items()
        for sample, feat in zip(data_samples, feats, strict=True):
            sample.set_field(feat, 'feat')
            sample.set_field(modality, 'modality')
        return list(data_samples)

    def forward(
        self,
        inputs: dict[str, Any],
        data_samples: Sequence[BaseDataElement] | None = None,
        target: dict[str, Any] | None = None,
        mode: str = 'tensor',
    ) -> dict[str, Tensor] | list[BaseDataElement]:
        """Run one of the three modes of an mmengine model.

        Args:
            inputs: See :meth:`extract_feat`.
            data_samples: See :meth:`loss`.
            target: The unlabelled half of a cross-domain batch, for models that
                adapt. A source-only model leaves it alone.
            mode: ``'tensor'`` (:meth:`extract_feat`), ``'loss'`` or ``'predict'``.

        Raises:
            ValueError: If the mode is unknown.
        """
        if mode == 'tensor':
            return self.extract_feat(inputs)
        if mode == 'loss':
            return self.loss(inputs, data_samples or [], target)
        if mode == 'predict':
            return self.predict(inputs, data_samples or [])
        raise ValueError(f"mode must be 'tensor', 'loss' or 'predict', got {mode!r}")

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return how deep a weight lies in its encoder.

        For mmpretrain's ``LearningRateDecayOptimWrapperConstructor``. Each encoder has
        depths of its own; what is in none of them, or in one that cannot tell, has the
        whole learning rate.

        Args:
            param_name: The name of the weight.
            prefix: Before the names of this model's weights. Defaults to none.

        Returns:
            The depth, from 0, and the number of depths.
        """
        for tower in ('image_backbone', 'text_backbone'):
            depth = getattr(getattr(self, tower), 'get_layer_depth', None)
            if depth is not None and param_name.startswith(f'{prefix}{tower}.'):
                return depth(param_name, f'{prefix}{tower}.')
        return 0, 1

    def _check_tokenizer(self) -> None:
        tokenizer = getattr(self.data_preprocessor, 'tokenizer', None)
        tokens = getattr(tokenizer, 'vocab_size', 0)
        rows = getattr(self.text_backbone, 'vocab_size', tokens)
        if tokens > rows:
            raise InputError(
                f'the tokenizer may have {tokens} tokens, but the text backbone embeds '
                f"{rows}: set text_backbone.vocab_size to at least the tokenizer's"
            )
        published = getattr(self.text_backbone, 'has_published_vocabulary', False)
        if tokenizer is not None and published and tokens < rows - SPARE_ROWS:
            raise InputError(
                f'the tokenizer has {tokens} tokens, but the pretrained text backbone '
                f'knows {rows}: it is not the one that it was trained with; set '
                f"tokenizer=dict(type='HFTokenizer', pretrained=…) to the same model"
            )
        length = getattr(tokenizer, 'max_length', 0)
        context = getattr(self.text_backbone, 'context_length', length)
        if length > context:
            raise InputError(
                f'the tokenizer cuts captions to {length} tokens, but the text '
                f'backbone has {context} positions: set tokenizer.max_length to at '
                f'most {context}'
            )
