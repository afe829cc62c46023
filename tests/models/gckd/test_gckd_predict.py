"""What a test gets from the model that adapts: embeddings, and tokens if asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.structures import BaseDataElement

from gckd_mm.models import GCKD
from tests.models.gckd.test_gckd import _scope, build, picture  # noqa: F401

CAPTIONS = ['a man in a red coat', 'a hat']
MATCHING = dict(
    type='ImageTextMatchingHead',
    image_channels=16,
    caption_channels=16,
    channels=8,
    num_heads=2,
    grid=(2, 1),
)
BATCHES = {'images': [picture(0), picture(1)], 'captions': CAPTIONS}


def predict(model: GCKD, inputs: dict[str, Any]) -> list[BaseDataElement]:
    batch = {'inputs': inputs, 'data_samples': [BaseDataElement(pid=i) for i in (3, 4)]}
    with torch.no_grad():
        return model(**model.data_preprocessor(batch), mode='predict')


def test_the_tokens_give_the_logits_of_the_matching_head() -> None:
    model = build(matching=MATCHING).eval()
    model.keep_tokens = True
    images, captions = (predict(model, {role: BATCHES[role]}) for role in BATCHES)

    for sample in [*images, *captions]:
        assert sample.tokens.dtype == torch.float16
        assert sample.tokens.device.type == 'cpu'
    assert all('token_mask' not in sample for sample in images)
    inputs = model.data_preprocessor({'inputs': BATCHES})['inputs']
    lengths = inputs['captions']['attention_mask'].sum(dim=1).tolist()
    assert [sample.token_mask.sum().item() for sample in captions] == lengths
    with torch.no_grad():
        maps = model.image_backbone(inputs['images'])
        words = model.text_backbone(**inputs['captions'])
        head = model.matching
        expected = head.score(
            head.tokens_of_images(maps),
            head.tokens_of_captions(words),
            inputs['captions']['attention_mask'],
        )
        found = head.score(
            torch.stack([sample.tokens for sample in images]).float(),
            torch.stack([sample.tokens for sample in captions]).float(),
            torch.stack([sample.token_mask for sample in captions]),
        )
    # as close as float16 keeps the tokens
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


@pytest.mark.parametrize('role', ['images', 'captions'])
def test_tokens_cost_one_pass_and_change_nothing_else(role: str) -> None:
    model = build(matching=MATCHING).eval()
    plain = predict(model, {role: BATCHES[role]})
    passes = []
    for backbone in (model.image_backbone, model.text_backbone):
        backbone.register_forward_hook(lambda *_: passes.append(1))
    model.keep_tokens = True

    found = predict(model, {role: BATCHES[role]})

    assert len(passes) == 1
    for before, after in zip(plain, found, strict=True):
        assert set(before.keys()) == {'feat', 'modality', 'pid'}
        assert torch.equal(before.feat, after.feat)
        assert (before.modality, before.pid) == (after.modality, after.pid)


def test_a_model_without_a_matching_head_keeps_no_tokens() -> None:
    model = build().eval()
    model.keep_tokens = True
    assert all('tokens' not in s for s in predict(model, {'captions': CAPTIONS}))


def test_both_modalities_at_once_are_refused() -> None:
    model = build(matching=MATCHING).eval()
    model.keep_tokens = True
    with pytest.raises(ValueError, match='one modality at a time'):
        predict(model, BATCHES)
