"""From collated lists to tensors, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gckd_mm.errors import InputError
from gckd_mm.models import PersonTextPreprocessor

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CAPTIONS = ['a man', 'the woman wears blue jeans']


@pytest.fixture
def preprocessor() -> PersonTextPreprocessor:
    module = PersonTextPreprocessor(tokenizer=dict(type='gckd_mm.WordPieceTokenizer'))
    module.tokenizer.fit(CAPTIONS)
    return module


def images(number: int, height: int = 6, width: int = 4) -> list[torch.Tensor]:
    rng = np.random.default_rng(number)
    shape = (number, 3, height, width)
    return list(torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8)))


def naive(batch: list[torch.Tensor]) -> np.ndarray:
    result = np.empty((len(batch), *batch[0].shape))
    for number, image in enumerate(batch):
        for channel in range(3):
            values = image[channel].numpy().astype(np.float64)
            result[number, channel] = (values - MEAN[channel]) / STD[channel]
    return result


def test_images_are_normalised(preprocessor: PersonTextPreprocessor) -> None:
    batch = images(5)

    prepared = preprocessor({'inputs': {'images': batch}})['inputs']

    assert set(prepared) == {'images'}
    assert prepared['images'].dtype == torch.float32
    np.testing.assert_allclose(prepared['images'].numpy(), naive(batch), atol=1e-5)


def test_mean_and_std_are_arguments() -> None:
    module = PersonTextPreprocessor(
        tokenizer=dict(type='gckd_mm.WordPieceTokenizer'), mean=(1, 2, 3), std=(2, 4, 8)
    )

    prepared = module({'inputs': {'images': [torch.full((3, 1, 1), 9).byte()]}})

    expected = [(9 - 1) / 2, (9 - 2) / 4, (9 - 3) / 8]
    assert prepared['inputs']['images'].flatten().tolist() == expected


def test_captions_are_the_tokenizers(preprocessor: PersonTextPreprocessor) -> None:
    prepared = preprocessor({'inputs': {'captions': CAPTIONS}})['inputs']

    expected = preprocessor.tokenizer(CAPTIONS)
    assert set(prepared) == {'captions'}
    assert prepared['captions'].keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(prepared['captions'][name], tensor)


def test_the_target_is_prepared_too(preprocessor: PersonTextPreprocessor) -> None:
    batch = {
        'inputs': {'images': images(2), 'captions': CAPTIONS},
        'data_samples': ['one', 'two'],
        'target': {
            'inputs': {'images': images(3), 'captions': ['a man'] * 3},
            'image_index': [4, 5, 6],
            'caption_index': [7, 8, 9],
        },
    }

    prepared = preprocessor(batch, training=True)

    assert prepared['data_samples'] == ['one', 'two']
    target = prepared['target']
    assert target['image_index'] == [4, 5, 6]
    assert target['caption_index'] == [7, 8, 9]
    np.testing.assert_allclose(
        target['inputs']['images'].numpy(), naive(images(3)), atol=1e-5
    )
    # Each half of the batch is padded to its own longest caption.
    assert target['inputs']['captions']['input_ids'].shape == (3, 4)
    assert prepared['inputs']['captions']['input_ids'].shape[1] > 4


def test_a_target_without_captions(preprocessor: PersonTextPreprocessor) -> None:
    batch = {
        'inputs': {'images': images(2), 'captions': CAPTIONS},
        'target': {'inputs': {'images': images(2)}, 'image_index': [0, 1]},
    }

    assert set(preprocessor(batch)['target']['inputs']) == {'images'}


def test_the_batch_it_is_given_stays_as_it_is(
    preprocessor: PersonTextPreprocessor,
) -> None:
    batch = {'inputs': {'images': images(2), 'captions': list(CAPTIONS)}}

    preprocessor(batch)

    assert batch['inputs']['captions'] == CAPTIONS
    assert batch['inputs']['images'][0].dtype == torch.uint8


def test_images_of_different_sizes_are_refused(
    preprocessor: PersonTextPreprocessor,
) -> None:
    batch = [*images(2), *images(1, height=8)]

    with pytest.raises(ValueError, match=r'differ in shape.*Resize') as error:
        preprocessor({'inputs': {'images': batch}})

    assert '(3, 6, 4)' in str(error.value)
    assert '(3, 8, 4)' in str(error.value)


def test_only_the_vocabulary_is_saved(preprocessor: PersonTextPreprocessor) -> None:
    assert set(preprocessor.state_dict()) == {'tokenizer._extra_state'}


def test_items_that_nothing_has_packed(preprocessor: PersonTextPreprocessor) -> None:
    with pytest.raises(InputError, match=r"must end with dict\(type='PackPersonText'"):
        preprocessor({'img': images(2), 'pid': [1, 2]})


def test_means_of_other_than_three_channels() -> None:
    for mean in ((1.0, 2.0), ()):
        with pytest.raises(InputError, match='3 channels of RGB'):
            PersonTextPreprocessor(dict(type='gckd_mm.WordPieceTokenizer'), mean=mean)
