"""Image-text matching: does this caption describe this image?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.functional.hard_negatives import hard_negatives
from gckd_mm.registry import MODELS

_EPSILON = 1e-8


@MODELS.register_module()
class ImageTextMatchingHead(BaseModule):
    """Cross-attention from caption tokens to image tokens, and one logit a pair.

    It looks at both modalities together, which a dual encoder never does, and so sees
    finer differences; but it must be run on every pair. In training it teaches the
    backbones, in testing it can re-rank the top of a ranking
    (:func:`gckd_mm.evaluation.reranking.rerank`).

    Args:
        image_channels: Channels of the last feature map.
        caption_channels: Channels of the token features.
        channels: Width C of the head. Defaults to 128.
        num_heads: Attention heads; must divide ``channels``. Defaults to 4.
        num_layers: Cross-attention layers. Defaults to 1.
        grid: Rows and columns of the image tokens: the feature map is average-pooled to
            this size, whatever its own. Defaults to (8, 4).
        dropout: Dropout on the attention and in the MLPs. Defaults to 0.
        patch_grid: Rows and columns of the patches, where the image backbone gives
            tokens instead of a map: (24, 8) for 384×128 pixels in patches of 16. What
            comes before the patches, such as the class token, is left out. Defaults to
            None, for maps.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If ``num_heads`` does not divide ``channels``, or if ``num_layers``
            or a side of the grid is below 1.

    Source: Li et al., *Align before Fuse* (ALBEF), NeurIPS 2021, eq. 4 (matching with
    hard negatives). Negatives from both domains follow Luo et al., *GCKD*, AAAI 2025;
    the light architecture and the weights of the pairs are ours.
    """

    def __init__(
        self,
        image_channels: int,
        caption_channels: int,
        channels: int = 128,
        num_heads: int = 4,
        num_layers: int = 1,
        grid: tuple[int, int] = (8, 4),
        dropout: float = 0.0,
        patch_grid: tuple[int, int] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if channels % num_heads:
            raise InputError(
                f'num_heads must divide channels, got {num_heads} and {channels}'
            )
        if num_layers < 1:
            raise InputError(f'num_layers must be at least 1, got {num_layers}')
        if min(grid) < 1:
            raise InputError(f'both sides of grid must be at least 1, got {grid}')
        self.grid = (grid[0], grid[1])
        self.patch_grid = patch_grid
        self.image_projection = nn.Linear(image_channels, channels)
        self.image_position = nn.Parameter(torch.empty(grid[0] * grid[1], channels))
        nn.init.trunc_normal_(self.image_position, std=0.02)
        self.caption_projection = nn.Linear(caption_channels, channels)
        self.layers = nn.ModuleList(
            _CrossAttentionLayer(channels, num_heads, dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.classifier = nn.Linear(channels, 1)

    def tokens_of_images(self, feature_maps: Sequence[Tensor]) -> Tensor:
        """Turn feature maps into image tokens, with their learned positions.

        Args:
            feature_maps: Of the image backbone; the last is used, shape
                (N, image_channels, H, W), or (N, 1 + P, image_channels) with
                ``patch_grid``.

        Returns:
            Shape (N, T, C), T = rows × columns of the grid, row by row.

        Raises:
            InputError: If it is neither.
        """
        pooled = F.adaptive_avg_pool2d(self._map(feature_maps[-1]), self.grid)
        tokens = self.image_projection(pooled.flatten(2).transpose(1, 2))
        return tokens + self.image_position

    def _map(self, features: Tensor) -> Tensor:
        if features.ndim == 4 and self.patch_grid is None:
            return features
        if features.ndim == 3 and self.patch_grid is not None:
            rows, columns = self.patch_grid
            if rows * columns <= features.shape[1]:
                patches = features[:, features.shape[1] - rows * columns :]
                return patches.transpose(1, 2).unflatten(2, (rows, columns))
        raise InputError(
            f'the image backbone gives features of shape {tuple(features.shape)}: '
            f'maps (N, C, H, W) need patch_grid=None, tokens (N, 1 + P, C) need the '
            f'rows and columns of their P patches, got patch_grid={self.patch_grid}'
        )

    def tokens_of_captions(self, tokens: Tensor) -> Tensor:
        """Project the token features of captions.

        Args:
            tokens: Of the text backbone, shape (N, L, caption_channels).

        Returns:
            Shape (N, L, C).
        """
        return self.caption_projection(tokens)

    def score(
        self, image_tokens: Tensor, caption_tokens: Tensor, caption_mask: Tensor
    ) -> Tensor:
        """Score N pairs.

        Args:
            image_tokens: Shape (N, T, C), see :meth:`tokens_of_images`.
            caption_tokens: Shape (N, L, C), see :meth:`tokens_of_captions`; row i is
                compared with image i.
            caption_mask: Shape (N, L), bool, False on padding; True somewhere in each
                row.

        Returns:
            Logits of a match, shape (N,), float32. What stands in the padding does not
            change them.
        """
        tokens = caption_tokens
        for layer in self.layers:
            tokens = layer(tokens, image_tokens)
        # bfloat16 logits would tie where a ranking needs an order.
        with torch.autocast(tokens.device.type, enabled=False):
            mask = caption_mask[..., None]
            tokens = self.norm(tokens.float()).masked_fill(~mask, 0)
            return self.classifier(tokens.sum(dim=1) / mask.sum(dim=1)).squeeze(1)

    def loss(
        self,
        image_tokens: Tensor,
        caption_tokens: Tensor,
        caption_mask: Tensor,
        similarity: Tensor,
        positives: Tensor,
        weights: Tensor,
        same: Tensor,
    ) -> dict[str, Tensor]:
        """Tell G positive pairs from hard negatives.

        The P captions and A images are those of both domains, one after the other, so
        that the negative of a pair may come from either. Each positive pair is joined
        by its caption with a hard negative image and its image with a hard negative
        caption (:func:`~gckd_mm.models.functional.hard_negatives.hard_negatives`), as
        far as such are permitted; all are scored in one call.

        Args:
            image_tokens: Shape (A, T, C), see :meth:`tokens_of_images`.
            caption_tokens: Shape (P, L, C), see :meth:`tokens_of_captions`.
            caption_mask: Shape (P, L), bool, False on padding.
            similarity: Cosine similarities, shape (P, A): they choose the negatives,
                and get no gradient.
            positives: Caption row and image row of each pair, shape (G, 2), int64.
            weights: Trust in each positive pair, not negative, shape (G,). It counts
                for the negatives of the pair too: a domain of little trust must not
                give negatives alone.
            same: Shape (P, A), bool: True where caption and image are or may be of the
                same person. Such a pair is never a negative, nor is a positive one.

        Returns:
            ``loss``, the weighted mean binary cross-entropy, without ``loss_weight``;
            ``num_negatives``, how many pairs were found for the positives;
            ``accuracy``, the fraction of all these pairs that are on the right side
            (without any pair 0; 2/3 for a head that always says no). Scalars, float32,
            of this rank's pairs alone. Without positives the loss is 0, and gives all
            parameters a gradient of 0, which DistributedDataParallel needs.
        """
        captions, images = positives.unbind(dim=1)
        forbidden = same.clone()
        forbidden[captions, images] = True
        negative_images = hard_negatives(similarity[captions], forbidden[captions])
        negative_captions = hard_negatives(
            similarity.t()[images], forbidden.t()[images]
        )
        with_image, with_caption = negative_images >= 0, negative_captions >= 0
        pair_captions = torch.cat(
            [captions, captions[with_image], negative_captions[with_caption]]
        )
        pair_images = torch.cat(
            [images, negative_images[with_image], images[with_caption]]
        )
        pair_weights = torch.cat(
            [weights, weights[with_image], weights[with_caption]]
        ).float()
        logits = self.score(
            image_tokens[pair_images],
            caption_tokens[pair_captions],
            caption_mask[pair_captions],
        )
        matches = torch.zeros_like(logits)
        matches[: len(positives)] = 1
        total = F.binary_cross_entropy_with_logits(
            logits, matches, weight=pair_weights, reduction='sum'
        )
        right = (logits > 0) == (matches > 0)
        return {
            'loss': total / pair_weights.sum().clamp(min=_EPSILON),
            'num_negatives': logits.new_tensor(len(logits) - len(positives)),
            'accuracy': right.float().sum() / max(1, len(logits)),
        }


class _CrossAttentionLayer(nn.Module):
    def __init__(self, channels: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.caption_norm = nn.LayerNorm(channels)
        self.image_norm = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(
            channels, num_heads, dropout, batch_first=True
        )
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, 2 * channels),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * channels, channels),
            nn.Dropout(dropout),
        )

    def forward(self, caption_tokens: Tensor, image_tokens: Tensor) -> Tensor:
        image_tokens = self.image_norm(image_tokens)
        update, _ = self.attention(
            self.caption_norm(caption_tokens),
            image_tokens,
            image_tokens,
            need_weights=False,
        )
        tokens = caption_tokens + update
        return tokens + self.mlp(tokens)
