"""What an export says of the inputs of its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gckd_mm.errors import InputError
from gckd_mm.models.tokenizers import HFTokenizer, WordPieceTokenizer
from gckd_mm.search.apis.export_folder import ImageInput, TextInput
from gckd_mm.search.apis.torch_encoder import TorchEncoder
from gckd_mm.search.export.description import describe
from tests.models.tiny_clip import END, clip_vocabulary, write_clip_tokenizer
from tests.search.export.families import SYNTHCLIP

LOAD = dict(type='LoadPersonImage')
PACK = dict(type='PackPersonText')


@pytest.fixture(scope='module')
def encoder() -> TorchEncoder:
    return TorchEncoder.read(SYNTHCLIP, device='cpu')


def with_pipeline(encoder: TorchEncoder, *steps: dict[str, Any]) -> TorchEncoder:
    device = torch.device('cpu')
    return TorchEncoder(encoder.model, {}, [*steps], device, None, 'small')


def test_the_shipped_model(encoder: TorchEncoder) -> None:
    found = describe(encoder)
    assert found.name == 'synthclip_tiny_web'
    assert found.precision == 'float32'
    assert found.fingerprint == encoder.fingerprint
    assert found.embedding_size == 128
    assert found.image == ImageInput(64, 32, 'area', 'cv2')
    assert found.text == TextInput(max_length=77, padding_id=0, vocab_size=1500)


def test_a_resize_with_its_defaults_and_another(encoder: TorchEncoder) -> None:
    for resize, expected in (
        (dict(scale=(48, 96)), (96, 48, 'bilinear', 'cv2')),
        (dict(scale=24), (24, 24, 'bilinear', 'cv2')),
        (
            dict(scale=(8, 9), interpolation='nearest', backend='pillow'),
            (9, 8, 'nearest', 'pillow'),
        ),
    ):
        changed = with_pipeline(encoder, LOAD, dict(type='Resize', **resize), PACK)
        assert describe(changed).image == expected


def test_the_padding_of_another_tokenizer(
    encoder: TorchEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = HFTokenizer(str(write_clip_tokenizer(tmp_path)), max_length=20)
    preprocessor = encoder.model.data_preprocessor
    monkeypatch.setitem(preprocessor._modules, 'tokenizer', clip)
    vocabulary = clip_vocabulary()
    assert describe(encoder).text == (20, vocabulary[END], len(vocabulary))


def test_a_tokenizer_that_never_pads(
    encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = WordPieceTokenizer(vocab_size=60, max_length=2)
    tokenizer.fit(['a man in a red coat'])
    preprocessor = encoder.model.data_preprocessor
    monkeypatch.setitem(preprocessor._modules, 'tokenizer', tokenizer)
    assert describe(encoder).text.padding_id == 0


@pytest.mark.parametrize(
    ('steps', 'message'),
    [
        ([LOAD, PACK], "the gallery's pipeline is LoadPersonImage, PackPersonText"),
        (
            [
                LOAD,
                dict(type='Resize', scale=(32, 64)),
                dict(type='CenterCrop', crop_size=(32, 32)),
                PACK,
            ],
            'pipeline is LoadPersonImage, Resize, CenterCrop, PackPersonText',
        ),
        (
            [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 64)), PACK],
            'pipeline is LoadImageFromFile, Resize',
        ),
        (
            [LOAD, dict(type='Resize', scale=(32, 64), keep_ratio=True), PACK],
            'must resize all images to one size',
        ),
        (
            [LOAD, dict(type='Resize', scale_factor=0.5), PACK],
            'must resize all images to one size',
        ),
    ],
)
def test_other_pipelines_are_refused(
    encoder: TorchEncoder, steps: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        describe(with_pipeline(encoder, *steps))


class FromElsewhere(nn.Module):
    """A part that prepares its inputs in a way of its own."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


@pytest.mark.parametrize('part', ['model', 'data_preprocessor', 'tokenizer'])
def test_parts_that_are_not_ours_are_refused(
    encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    preprocessor = encoder.model.data_preprocessor
    if part == 'model':
        monkeypatch.setattr(
            encoder, 'model', FromElsewhere(data_preprocessor=preprocessor)
        )
    elif part == 'data_preprocessor':
        monkeypatch.setitem(encoder.model._modules, part, FromElsewhere())
    else:
        monkeypatch.setitem(preprocessor._modules, part, FromElsewhere())
    with pytest.raises(InputError, match='a FromElsewhere cannot be exported, only a'):
        describe(encoder)
