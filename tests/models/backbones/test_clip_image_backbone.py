"""CLIP's image tower, against transformers' CLIPModel with the same weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from gckd_mm.errors import InputError
from gckd_mm.models import CLIPImageBackbone, TokenProjection

tiny_clip = pytest.importorskip('tests.models.tiny_clip')


def images(height: int, width: int, number: int = 3) -> torch.Tensor:
    return torch.randn(number, 3, height, width)


def embedded(folder: Path, batch: torch.Tensor, **kwargs) -> torch.Tensor:
    backbone = CLIPImageBackbone(str(folder), image_size=batch.shape[-2:], **kwargs)
    neck = TokenProjection(32, 16, pretrained=str(folder))
    neck.init_weights()
    return neck(backbone.eval()(batch))[-1]


@pytest.mark.parametrize('attn_implementation', ['sdpa', 'eager'])
def test_at_the_native_size_it_is_transformers(
    clip_folder: Path, attn_implementation: str
) -> None:
    batch = images(32, 32)

    judge = tiny_clip.clip_model().get_image_features(pixel_values=batch)

    torch.testing.assert_close(
        embedded(clip_folder, batch, attn_implementation=attn_implementation),
        tiny_clip.features(judge),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize('size', [(96, 32), (16, 64), (64, 64), (40, 24)])
def test_at_another_size_it_is_transformers_interpolation(
    clip_folder: Path, size: tuple[int, int]
) -> None:
    batch = images(*size)

    judge = tiny_clip.clip_model().get_image_features(
        pixel_values=batch, interpolate_pos_encoding=True
    )

    torch.testing.assert_close(
        embedded(clip_folder, batch), tiny_clip.features(judge), rtol=1e-5, atol=1e-5
    )


def test_tokens_are_normalised_and_the_class_token_is_first(clip_folder: Path) -> None:
    batch = images(32, 32)
    clip = tiny_clip.clip_model()

    (tokens,) = CLIPImageBackbone(str(clip_folder), image_size=32).eval()(batch)

    output = clip.vision_model(batch)
    expected = clip.vision_model.post_layernorm(output.last_hidden_state)
    assert tokens.shape == (3, 1 + 16, 32)
    torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tokens[:, 0], output.pooler_output, rtol=1e-5, atol=1e-5)


def test_patches_go_row_by_row(clip_folder: Path) -> None:
    backbone = CLIPImageBackbone(str(clip_folder), image_size=(96, 32))
    batch = images(96, 32, 1)
    changed = batch.clone()
    changed[:, :, 88:, :8] += 1  # the last row, the first column: 4 patches in a row

    embed = backbone.model.embeddings
    difference = (embed(batch) - embed(changed)).abs().sum(-1)[0]

    assert difference.nonzero().flatten().tolist() == [1 + 11 * 4]


def test_the_folder_of_the_tower_alone(clip_folder: Path, tmp_path: Path) -> None:
    transformers = tiny_clip.transformers
    transformers.CLIPVisionModel.from_pretrained(clip_folder).save_pretrained(tmp_path)
    batch = images(96, 32)

    (tokens,) = CLIPImageBackbone(str(tmp_path), image_size=(96, 32)).eval()(batch)

    whole = CLIPImageBackbone(str(clip_folder), image_size=(96, 32)).eval()
    torch.testing.assert_close(tokens, whole(batch)[0])


def test_without_a_folder_it_is_vit_b_16(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device('meta'):
        backbone = CLIPImageBackbone()

    weights = sum(weight.numel() for weight in backbone.parameters())
    embeddings = backbone.model.embeddings
    assert embeddings.patch_embedding.weight.shape == (768, 3, 16, 16)
    assert embeddings.position_embedding.weight.shape == (1 + 24 * 8, 768)
    # CLIP's image tower has 86.2 million weights with 197 positions of 768 channels.
    assert round((weights + (197 - 193) * 768) / 1e5) == 858


def test_the_names_of_the_weights_are_transformers(clip_folder: Path) -> None:
    backbone = CLIPImageBackbone(config=tiny_clip.VISION)

    names = set(tiny_clip.clip_model().vision_model.state_dict())
    assert set(backbone.state_dict()) == {f'model.{name}' for name in names}


def test_checkpointing_changes_memory_and_not_gradients(clip_folder: Path) -> None:
    batch = images(96, 32)
    gradients = []
    for checkpointing in (False, True):
        backbone = CLIPImageBackbone(
            str(clip_folder),
            image_size=(96, 32),
            gradient_checkpointing=checkpointing,
            frozen_stages=0,
        )
        calls = []
        layer = backbone.model.encoder.layers[0].mlp.fc1
        layer.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        backbone.train()(batch)[0].square().mean().backward()
        gradients.append(layer.weight.grad)
        assert len(calls) == 1 + checkpointing

    torch.testing.assert_close(*gradients)


def test_every_weight_gets_a_gradient_from_the_class_token(clip_folder: Path) -> None:
    backbone = CLIPImageBackbone(str(clip_folder), image_size=(96, 32))

    backbone(images(96, 32))[0][:, 0].square().mean().backward()

    for name, weight in backbone.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_a_copy_has_its_own_weights(clip_folder: Path) -> None:
    backbone = CLIPImageBackbone(str(clip_folder), image_size=32).eval()
    batch = images(32, 32)
    twin = copy.deepcopy(backbone)

    with torch.no_grad():
        backbone.model.embeddings.position_embedding.weight.normal_()

    fresh = CLIPImageBackbone(str(clip_folder), image_size=32).eval()
    torch.testing.assert_close(twin(batch), fresh(batch))
    assert not torch.allclose(backbone(batch)[0], fresh(batch)[0], atol=1e-2)


@pytest.mark.parametrize('size', [(384, 130), (100, 128), (0, 16)])
def test_a_size_that_is_no_multiple_of_the_patch(size: tuple[int, int]) -> None:
    message = f'multiple of the patch of 8 pixels, got {size[0]}×{size[1]}'
    with pytest.raises(InputError, match=message):
        CLIPImageBackbone(config=tiny_clip.VISION, image_size=size)


def test_images_of_another_size_are_refused() -> None:
    backbone = CLIPImageBackbone(config=tiny_clip.VISION, image_size=(64, 32))

    with pytest.raises(InputError, match=r'images of 32×64.*built for 64×32.*Resize'):
        backbone(images(32, 64))


def test_a_bert_is_no_clip(bert_folder: Path) -> None:
    with pytest.raises(InputError, match=r"tiny-bert: holds a model of type 'bert'"):
        CLIPImageBackbone(str(bert_folder))


def test_a_size_that_there_is_not() -> None:
    with pytest.raises(InputError, match='CLIPVisionConfig has no hiden_size'):
        CLIPImageBackbone(config=dict(hiden_size=32))
    with pytest.raises(InputError, match='heads'):
        CLIPImageBackbone(config=dict(hidden_size=30, num_attention_heads=4))


def test_an_unknown_attention() -> None:
    with pytest.raises(InputError, match='cannot build this model'):
        CLIPImageBackbone(config=tiny_clip.VISION, attn_implementation='fast')
