"""What torch.export can follow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmpretrain.models.necks import LinearNeck
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.data_preprocessors import PersonTextPreprocessor
from gckd_mm.models.retrievers.towers import TwoTowers
from gckd_mm.search.export.capture import capture


class Flat(nn.Module):
    """An image backbone in two lines."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (images.flatten(1),)


class CountsByLen(Flat):
    """One that asks for the size of its batch as Python does."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (images.flatten(1) + torch.zeros(len(images), 1),)


class AsksForValues(Flat):
    """One whose way depends on what is in the picture."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (images.flatten(1) * (2 if images.max().item() > 3 else 1),)


class Last(nn.Module):
    def forward(self, maps: tuple[Tensor]) -> Tensor:
        return maps[-1]


class Words(nn.Embedding):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return super().forward(input_ids)


class Mean(nn.Module):
    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        kept = attention_mask[..., None]
        return (tokens * kept).sum(1) / kept.sum(1)


class Retriever(TwoTowers, nn.Module):
    def __init__(self, image_backbone: nn.Module) -> None:
        super().__init__()
        self.image_backbone = image_backbone
        self.image_neck = Last()
        self.text_backbone = Words(20, 12)
        self.text_neck = Mean()
        self.data_preprocessor: Any = PersonTextPreprocessor(
            dict(type='WordPieceTokenizer', vocab_size=20, max_length=9)
        )


class Encoder:
    def __init__(self, model: Any) -> None:
        self.model = model.eval()


@pytest.mark.parametrize('backbone', [Flat(), CountsByLen()])
def test_graphs_take_any_number_of_inputs(backbone: nn.Module) -> None:
    model = Retriever(backbone)
    graphs = capture(Encoder(model), (2, 2))  # type: ignore[arg-type]
    preprocessor = model.data_preprocessor
    for count, length in ((1, 1), (2, 9), (6, 3)):
        images = torch.randint(0, 256, (count, 3, 2, 2), dtype=torch.uint8)
        expected = model.embed_images((images - preprocessor.mean) / preprocessor.std)[
            0
        ]
        torch.testing.assert_close(graphs.image.module()(images), expected)
        captions = {
            'input_ids': torch.randint(0, 20, (count, length)),
            'attention_mask': torch.ones(count, length, dtype=torch.bool),
        }
        torch.testing.assert_close(
            graphs.text.module()(*captions.values()), model.embed_captions(captions)[0]
        )


def test_each_graph_holds_its_own_weights_alone() -> None:
    graphs = capture(Encoder(Retriever(nn.Sequential(Flat()))), (2, 2))  # type: ignore[arg-type]
    assert set(graphs.image.state_dict) == {'mean', 'std'}
    assert set(graphs.text.state_dict) == {'text_backbone.weight'}


def test_a_model_that_cannot_be_followed() -> None:
    with pytest.raises(InputError, match='the image encoder cannot be exported'):
        capture(Encoder(Retriever(AsksForValues())), (2, 2))  # type: ignore[arg-type]


def test_a_neck_of_mmpretrain_is_captured() -> None:
    model = Retriever(Flat())
    model.image_neck = LinearNeck(in_channels=3 * 8 * 4, out_channels=12)
    graphs = capture(Encoder(model), (8, 4))  # type: ignore[arg-type]

    images = torch.randint(0, 256, (5, 3, 8, 4), dtype=torch.uint8)
    preprocessor = model.data_preprocessor
    expected = model.embed_images((images - preprocessor.mean) / preprocessor.std)[0]
    torch.testing.assert_close(graphs.image.module()(images), expected)
