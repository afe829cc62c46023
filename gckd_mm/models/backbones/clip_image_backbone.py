"""CLIP's vision transformer at any image size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.backbones.hf_backbone import HFBackbone
from gckd_mm.models.functional.position_grid import resize_position_grid
from gckd_mm.models.hugging_face import import_transformers, make_config
from gckd_mm.registry import MODELS

_POSITIONS = 'embeddings.position_embedding.weight'


@MODELS.register_module()
class CLIPImageBackbone(HFBackbone):
    """The image tower of CLIP: a class token and a token for each patch.

    The position embeddings are resized to ``image_size`` once, when the weights are
    read (see :func:`resize_position_grid`), and are saved and trained at that size.

    Args:
        image_size: Height and width in pixels, or one for both. Defaults to (384, 128),
            the field's.
        **backbone: See :class:`HFBackbone`; ``pretrained`` is a whole CLIP, or its
            image tower, and ``config`` names sizes as ``CLIPVisionConfig`` does, its
            ``image_size`` being that of the pretraining, a square; without either they
            are those of ViT-B/16.

    Raises:
        InputError: If the image size is no multiple of the patch, there is no such
            model, or it is no CLIP.

    Source: Radford et al., *Learning Transferable Visual Models From Natural Language
    Supervision*, ICML 2021; 384×128 as in Jiang and Ye, *IRRA*, CVPR 2023.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        config: dict[str, Any] | None = None,
        image_size: int | tuple[int, int] = (384, 128),
        **backbone: Any,
    ) -> None:
        height, width = (
            (image_size, image_size) if isinstance(image_size, int) else image_size
        )
        self.image_size = (height, width)
        backbone = {'attn_implementation': 'sdpa', **backbone}
        super().__init__(pretrained, config, **backbone)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Encode a batch of images.

        Args:
            images: Normalised, shape (N, 3, H, W).

        Returns:
            Tokens after the last normalisation, shape (N, 1 + P, C), the class token
            before the P patches, which go row by row; in a tuple, as all mmpretrain
            backbones give it.

        Raises:
            InputError: If the images are of another size.
        """
        if tuple(images.shape[-2:]) != self.image_size:
            raise InputError(
                f'images of {_text(tuple(images.shape[-2:]))} pixels, but the image '
                f'backbone is built for {_text(self.image_size)} (height × width): '
                f"change the pipeline's Resize or image_backbone.image_size"
            )
        hidden = self.model(images, return_dict=True).last_hidden_state
        return (self.model.post_layernorm(hidden),)  # type: ignore[operator]

    def _config(self, config: dict[str, Any] | None) -> Any:
        sizes = {'patch_size': 16} if config is None else config  # ViT-B/16
        kind = import_transformers().CLIPVisionConfig
        return make_config(kind, sizes, 'image_backbone.config')

    def _part_of_config(self, config: Any, where: str) -> Any:
        if config.model_type == 'clip':
            return config.vision_config
        if config.model_type == 'clip_vision_model':
            return config
        raise InputError(
            f'{where}: holds a model of type {config.model_type!r}, not a CLIP with an '
            f'image tower'
        )

    def _part_of_model(self, model: nn.Module) -> nn.Module:
        # Whether CLIPVisionModel itself holds the layers depends on the version.
        return getattr(model, 'vision_model', model)

    def _fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        resized = resize_position_grid(state[_POSITIONS], self._grid())
        return {**state, _POSITIONS: resized}

    def _build(
        self, config: Any, attn_implementation: str | None, gradient_checkpointing: bool
    ) -> nn.Module:
        self.patch_size = int(config.patch_size)
        height, width = self.image_size
        if (
            min(self.image_size) < 1
            or height % self.patch_size
            or width % self.patch_size
        ):
            raise InputError(
                f'image_size must be a multiple of the patch of {self.patch_size} '
                f'pixels, got {_text(self.image_size)} (height × width)'
            )
        model = super()._build(config, attn_implementation, gradient_checkpointing)
        model.embeddings = _Embeddings(model.embeddings, self._grid())
        return model

    def _grid(self) -> tuple[int, int]:
        height, width = self.image_size
        return height // self.patch_size, width // self.patch_size


class _Embeddings(nn.Module):
    """transformers' embeddings of CLIP on a grid that is no square: the same weights.

    Theirs take a square, or interpolate in every step.
    """

    def __init__(self, square: Any, grid: tuple[int, int]) -> None:
        super().__init__()
        self.class_embedding = square.class_embedding
        self.patch_embedding = square.patch_embedding
        weight = resize_position_grid(square.position_embedding.weight.detach(), grid)
        self.position_embedding = nn.Embedding.from_pretrained(
            weight.clone(), freeze=False
        )

    def forward(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool = False
    ) -> Tensor:
        weight = self.patch_embedding.weight
        patches = self.patch_embedding(pixel_values.to(weight.dtype))
        patches = patches.flatten(2).transpose(1, 2)
        corner = self.class_embedding.expand(len(patches), 1, -1)
        return torch.cat((corner, patches), dim=1) + self.position_embedding.weight


def _text(size: tuple[int, ...]) -> str:
    return '×'.join(map(str, size))
