"""transformers' names, there and back."""

from __future__ import annotations

import torch
from transformers import CLIPModel, CLIPTextModel, CLIPVisionModel

from gckd_mm.interop import convert, export_hf
from gckd_mm.interop.hf_clip import map_hf_clip, map_to_hf_clip
from tests.interop.hf_model import hf_clip, hf_features, random_hf_clip


def tower_keys() -> set[str]:
    """What a retriever that holds transformers' two towers calls its weights."""
    config = random_hf_clip().config
    image = CLIPVisionModel(config.vision_config).state_dict()
    text = CLIPTextModel(config.text_config).state_dict()
    # Before transformers 5, a tower of its own had the prefix inside.
    return {
        *(f'image_backbone.model.{k.removeprefix("vision_model.")}' for k in image),
        *(f'text_backbone.model.{k.removeprefix("text_model.")}' for k in text),
        'image_neck.projection.weight',
        'text_neck.projection.weight',
    }


def test_the_names_are_those_of_the_two_towers() -> None:
    found = map_hf_clip(random_hf_clip().state_dict(), 'folder')

    assert found.weights.keys() == tower_keys()
    assert found.ignored == ['logit_scale']
    assert not found.unused


def test_there_and_back_is_exact() -> None:
    model = random_hf_clip()
    given = model.config.to_dict()

    ours = convert(model.state_dict(), 'hf', 'folder', given=given)
    back = export_hf(ours.weights, 'x.pth', given=ours.config)

    assert back.weights.keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(back.weights[key], value), key
        assert back.weights[key].dtype == value.dtype
    for tower in ('vision_config', 'text_config'):
        assert back.config[tower] == {**given[tower], **back.config[tower]}


def test_half_precision_comes_back_as_it_was() -> None:
    model = random_hf_clip().half()

    ours = convert(model.state_dict(), 'hf', 'folder', given=model.config.to_dict())
    back = export_hf(ours.weights, 'x.pth', given=ours.config)

    assert back.config['dtype'] == 'float16'
    for key, value in model.state_dict().items():
        assert torch.equal(back.weights[key], value), key
        assert back.weights[key].dtype == torch.float16


def test_heads_and_activation_come_back() -> None:
    model = random_hf_clip()
    images, ids = torch.randn(2, 3, 16, 16), torch.tensor([[1, 7, 9, 2], [1, 8, 2, 0]])

    ours = convert(model.state_dict(), 'hf', 'folder', given=model.config.to_dict())
    rebuilt: CLIPModel = hf_clip(export_hf(ours.weights, 'x.pth', given=ours.config))

    for found, expected in zip(
        hf_features(rebuilt, images, ids), hf_features(model, images, ids), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_counters_of_older_versions_are_ignored() -> None:
    key = 'vision_model.embeddings.position_ids'

    assert map_hf_clip({key: torch.arange(5)[None]}, 'folder').ignored == [key]


def test_only_encoders_and_necks_go_out() -> None:
    weights = map_hf_clip(random_hf_clip().state_dict(), 'folder').weights
    others = {
        'data_preprocessor.tokenizer._extra_state': torch.zeros(3, dtype=torch.uint8),
        'heads.itm.weight': torch.zeros(1),
        'teacher.module.image_neck.projection.weight': torch.zeros(1),
    }
    bias = {'image_neck.projection.bias': torch.zeros(1)}

    found = map_to_hf_clip({**weights, **others, **bias})

    assert sorted(found.ignored) == sorted(others)
    # A `CLIPModel` has no such bias: leaving it out would change the embeddings.
    assert found.unused == list(bias)


def test_the_prefix_inside_of_transformers_4_is_dropped() -> None:
    key = 'image_backbone.model.vision_model.pre_layrnorm.bias'

    found = map_to_hf_clip({key: torch.zeros(1)})

    assert list(found.weights) == ['vision_model.pre_layrnorm.bias']
