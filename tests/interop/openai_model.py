"""A tiny CLIP in OpenAI's layout, written apart from transformers': the judge."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

VOCABULARY, CONTEXT, PATCH, SIZE = 60, 12, 8, 24


class _QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class _Block(nn.Module):
    def __init__(self, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // 64)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, 4 * width),
                gelu=activation,
                c_proj=nn.Linear(4 * width, width),
            )
        )
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class _Transformer(nn.Module):
    def __init__(self, width: int, layers: int, activation: nn.Module) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, activation) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x.transpose(0, 1)  # attention's default: positions first
        for block in self.resblocks:
            x = block(x, mask)
        return x.transpose(0, 1)


class _Visual(nn.Module):
    def __init__(
        self, width: int, layers: int, size: int, grid: tuple[int, int], act: nn.Module
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(
            torch.randn(1 + grid[0] * grid[1], width)
        )
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = _Transformer(width, layers, act)
        self.proj = nn.Parameter(torch.randn(width, size))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(images), 1, -1)
        x = torch.cat([first, patches], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class TinyOpenAIClip(nn.Module):
    """Image tower of 2 layers, text tower of 3, every weight random.

    Args:
        grid: Rows and columns of patches.
        activation: Defaults to QuickGELU.
    """

    def __init__(
        self, grid: tuple[int, int] = (4, 4), activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        activation = activation or _QuickGELU()
        self.visual = _Visual(128, 2, SIZE, grid, activation)
        self.transformer = _Transformer(64, 3, activation)
        self.token_embedding = nn.Embedding(VOCABULARY, 64)
        self.positional_embedding = nn.Parameter(torch.randn(CONTEXT, 64))
        self.ln_final = nn.LayerNorm(64)
        self.text_projection = nn.Parameter(torch.randn(64, SIZE))
        self.logit_scale = nn.Parameter(torch.tensor(3.25))
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            if parameter.ndim:  # norms and biases, too: no two may be alike
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Shape (N, 3, H, W) -> (N, D)."""
        return self.visual(images)

    @torch.no_grad()
    def encode_text(self, ids: Tensor) -> Tensor:
        """Shape (N, L) -> (N, D); the end token has the highest id."""
        mask = torch.full((ids.shape[1], ids.shape[1]), float('-inf')).triu(1)
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        x = self.ln_final(self.transformer(x, mask))
        return x[torch.arange(len(ids)), ids.argmax(dim=1)] @ self.text_projection


def irra_state_dict(clip: nn.Module) -> dict[str, Tensor]:
    """What IRRA saves: its towers in half precision but for norms and embeddings."""
    halved = ('attn.', 'mlp.', 'conv1', 'proj')
    state_dict = {
        f'base_model.{key}': value.half()
        if any(part in key for part in halved)
        else value
        for key, value in clip.state_dict().items()
        if key != 'logit_scale'
    }
    others = {
        'classifier.weight': (11, SIZE),
        'cross_attn.in_proj_weight': (3 * SIZE, SIZE),
        'cross_modal_transformer.resblocks.0.ln_1.weight': (SIZE,),
        'ln_pre_t.weight': (SIZE,),
        'ln_pre_i.weight': (SIZE,),
        'ln_post.weight': (SIZE,),
        'mlm_head.dense.weight': (SIZE, SIZE),
    }
    return state_dict | {key: torch.zeros(shape) for key, shape in others.items()}


def some_captions() -> Tensor:
    """Ids of 3 captions that end at different places, shape (3, CONTEXT)."""
    ids = torch.randint(1, VOCABULARY - 2, (3, CONTEXT))
    ids[:, 0] = VOCABULARY - 2
    for row, end in enumerate((CONTEXT - 1, 5, 2)):
        ids[row, end] = VOCABULARY - 1
        ids[row, end + 1 :] = 0
    return ids
