"""A convolutional text encoder that trains in minutes on two cores."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.registry import MODELS


@MODELS.register_module()
class TinyTextEncoder(BaseModule):
    """Word embeddings and residual convolutions along the sentence.

    A convolution of width 3 binds a colour to its garment; more context than a few
    words is rarely needed for descriptions. Padding never changes the embedding of a
    caption.

    Args:
        vocab_size: Rows of the embedding: at least the tokenizer's ``vocab_size``.
            Defaults to 1500.
        channels: Width. Defaults to 128.
        num_layers: Convolutions. Defaults to 2.
        kernel_size: Odd. Defaults to 3.
        dropout: Dropout on the embeddings. Defaults to 0.1.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If ``kernel_size`` is even.
    """

    def __init__(
        self,
        vocab_size: int = 1500,
        channels: int = 128,
        num_layers: int = 2,
        kernel_size: int = 3,
        dropout: float = 0.1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if kernel_size % 2 == 0:
            raise InputError(f'kernel_size must be odd, got {kernel_size}')
        self.vocab_size = vocab_size
        self.out_channels = channels
        self.embedding = nn.Embedding(vocab_size, channels)
        self.dropout = nn.Dropout(dropout)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel_size, padding=kernel_size // 2)
            for _ in range(num_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(num_layers))
        self.activation = nn.GELU()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode a batch of captions.

        Args:
            input_ids: Shape (N, L).
            attention_mask: Shape (N, L), bool, False on padding.

        Returns:
            Token features, shape (N, L, C); 0 on padding.
        """
        mask = attention_mask[..., None].to(self.embedding.weight.dtype)
        tokens = self.dropout(self.embedding(input_ids)) * mask
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            update = convolution(norm(tokens).mul(mask).transpose(1, 2)).transpose(1, 2)
            tokens = (tokens + self.activation(update)) * mask
        return tokens
