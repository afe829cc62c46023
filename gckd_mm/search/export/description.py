"""What a reader of an export has to know of its model."""

from __future__ import annotations

from typing import Any

from mmcv.transforms import Resize

from gckd_mm.datasets.transforms import LoadPersonImage, PackPersonText
from gckd_mm.errors import InputError
from gckd_mm.models.data_preprocessors import PersonTextPreprocessor
from gckd_mm.models.retrievers.towers import TwoTowers
from gckd_mm.models.tokenizers.base_tokenizer import BaseTokenizer
from gckd_mm.search.apis.export_folder import ExportSettings, ImageInput, TextInput
from gckd_mm.search.apis.torch_encoder import TorchEncoder

_PIPELINE = (LoadPersonImage, Resize, PackPersonText)


def describe(encoder: TorchEncoder) -> ExportSettings:
    """Return the settings of an export in float32; refuse what none can describe."""
    _check(encoder.model)
    return ExportSettings(
        name=encoder.name,
        precision='float32',
        fingerprint=encoder.fingerprint,
        embedding_size=encoder.embedding_size,
        image=_image_input(encoder.transforms),
        text=_text_input(encoder.model.data_preprocessor.tokenizer),
    )


def _check(model: Any) -> None:
    preprocessor = model.data_preprocessor
    tokenizer = getattr(preprocessor, 'tokenizer', None)
    for part, kind in (
        (model, TwoTowers),
        (preprocessor, PersonTextPreprocessor),
        (tokenizer, BaseTokenizer),
    ):
        if not isinstance(part, kind):
            raise InputError(
                f'a {type(part).__name__} cannot be exported, only a {kind.__name__}: '
                f'an export has to say how its inputs are prepared'
            )


def _image_input(transforms: list[Any]) -> ImageInput:
    names = [type(transform).__name__ for transform in transforms]
    if tuple(map(type, transforms)) != _PIPELINE:
        expected = ', '.join(kind.__name__ for kind in _PIPELINE)
        raise InputError(
            f"an export knows one way to read images, {expected}: the gallery's "
            f'pipeline is {", ".join(names)}'
        )
    resize = transforms[1]
    if resize.scale is None or resize.keep_ratio:
        raise InputError(
            "the gallery's pipeline must resize all images to one size: "
            "dict(type='Resize', scale=(width, height)) without keep_ratio"
        )
    width, height = resize.scale
    return ImageInput(height, width, resize.interpolation, resize.backend)


def _text_input(tokenizer: BaseTokenizer) -> TextInput:
    tokens = tokenizer(['', 'a man in a red coat'])
    padding = tokens['input_ids'][~tokens['attention_mask']]
    # a tokenizer that cuts everything to start and end never pads
    padding_id = int(padding[0]) if len(padding) else 0
    return TextInput(tokenizer.max_length, padding_id, tokenizer.vocab_size)
