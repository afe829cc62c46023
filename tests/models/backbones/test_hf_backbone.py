"""What the backbones of transformers share: when weights are read, what is frozen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from gckd_mm.errors import CheckpointError, InputError
from gckd_mm.models import CLIPImageBackbone, CLIPTextBackbone, HFTextBackbone

tiny_clip = pytest.importorskip('tests.models.tiny_clip')


def text_sizes() -> dict:
    return dict(tiny_clip.TEXT, vocab_size=len(tiny_clip.clip_vocabulary()))


def weights(backbone: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in backbone.parameters()])


def test_init_weights_leaves_pretrained_weights_alone(clip_folder: Path) -> None:
    for kind in (CLIPImageBackbone, CLIPTextBackbone):
        backbone = kind(str(clip_folder))
        before = weights(backbone)

        backbone.init_weights()

        assert torch.equal(weights(backbone), before)


def test_with_sizes_the_weights_wait_for_init_weights(clip_folder: Path) -> None:
    eager = CLIPTextBackbone(str(clip_folder))
    waiting = CLIPTextBackbone(str(clip_folder), config=text_sizes())
    assert not torch.equal(weights(waiting), weights(eager))

    waiting.init_weights()

    assert torch.equal(weights(waiting), weights(eager))


def test_they_are_read_once(clip_folder: Path) -> None:
    backbone = CLIPTextBackbone(str(clip_folder), config=text_sizes())
    backbone.init_weights()
    with torch.no_grad():
        backbone.model.final_layer_norm.weight.fill_(3)

    backbone.init_weights()

    assert (backbone.model.final_layer_norm.weight == 3).all()


def test_a_checkpoint_needs_no_folder(clip_folder: Path, offline: None) -> None:
    trained = CLIPTextBackbone(str(clip_folder)).state_dict()

    backbone = CLIPTextBackbone('/nowhere/clip', config=text_sizes())
    backbone.load_state_dict(trained)

    assert torch.equal(weights(backbone), weights(CLIPTextBackbone(str(clip_folder))))
    with pytest.raises(InputError, match='folder /nowhere/clip does not exist'):
        backbone.init_weights()


def test_sizes_that_are_not_the_folders(clip_folder: Path) -> None:
    sizes = dict(text_sizes(), num_hidden_layers=1, intermediate_size=64)
    backbone = CLIPTextBackbone(str(clip_folder), config=sizes)

    with pytest.raises(
        CheckpointError, match=r'tiny-clip.*\n.*\n.*layers\.1(.|\n)*fc1'
    ):
        backbone.init_weights()


def test_half_precision_files_are_trained_in_full(tmp_path: Path) -> None:
    tiny_clip.clip_model().half().save_pretrained(tmp_path)

    backbone = CLIPImageBackbone(str(tmp_path), image_size=32)

    assert {weight.dtype for weight in backbone.parameters()} == {torch.float32}
    torch.testing.assert_close(
        backbone.model.embeddings.class_embedding,
        tiny_clip.clip_model().vision_model.embeddings.class_embedding.half().float(),
    )


def test_a_folder_that_lacks_weights(clip_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(clip_folder, tmp_path / 'clip'))
    tensors = load_file(folder / 'model.safetensors')
    del tensors['text_model.encoder.layers.1.mlp.fc1.bias']
    save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})

    with pytest.raises(CheckpointError, match=r'lacks 1 weights.*layers\.1\.mlp\.fc1'):
        CLIPTextBackbone(str(folder))
    CLIPImageBackbone(str(folder))  # the other tower is whole


@pytest.mark.parametrize('frozen', [-1, 0, 1, 3])
def test_frozen_stages(frozen: int) -> None:
    backbone = CLIPImageBackbone(config=tiny_clip.VISION, frozen_stages=frozen).train()

    for name, weight in backbone.model.named_parameters():
        depth = backbone.get_layer_depth(f'model.{name}')[0]
        assert weight.requires_grad == (depth > frozen), name
    layers = backbone.model.encoder.layers
    assert [layer.training for layer in layers] == [n >= frozen for n in range(3)]
    assert backbone.model.pre_layrnorm.training == (frozen < 0)
    assert backbone.model.post_layernorm.training


def test_a_frozen_layer_draws_no_dropout() -> None:
    config = dict(tiny_clip.BERT, model_type='bert', hidden_dropout_prob=0.5)
    ids = torch.randint(0, 60, (2, 9))
    mask = torch.ones_like(ids, dtype=torch.bool)

    for frozen, same in ((3, True), (1, False)):
        backbone = HFTextBackbone(config=config, frozen_stages=frozen).train()
        assert torch.equal(backbone(ids, mask), backbone(ids, mask)) == same


@pytest.mark.parametrize('frozen', [-2, 4])
def test_more_frozen_stages_than_there_are(frozen: int) -> None:
    with pytest.raises(InputError, match=f'from -1 .* to 3 .*, got {frozen}'):
        CLIPImageBackbone(config=tiny_clip.VISION, frozen_stages=frozen)


def test_layer_depths() -> None:
    image = CLIPImageBackbone(config=tiny_clip.VISION)
    text = HFTextBackbone(config=dict(tiny_clip.BERT, model_type='bert'))

    expected = {
        'model.embeddings.class_embedding': 0,
        'model.pre_layrnorm.weight': 0,
        'model.encoder.layers.0.mlp.fc1.weight': 1,
        'model.encoder.layers.2.layer_norm1.bias': 3,
        'model.post_layernorm.weight': 4,
    }
    for name, depth in expected.items():
        assert name in dict(image.named_parameters())
        assert image.get_layer_depth(name) == (depth, 5)
        assert image.get_layer_depth(f'tower.{name}', 'tower.') == (depth, 5)
    assert image.get_layer_depth('head.weight') == (4, 5)
    name = 'model.encoder.layer.1.output.dense.weight'
    assert name in dict(text.named_parameters())
    assert text.get_layer_depth(name) == (2, 5)


def test_ten_layers_are_not_one() -> None:
    backbone = CLIPImageBackbone(config=dict(tiny_clip.VISION, num_hidden_layers=11))

    name = 'model.encoder.layers.10.mlp.fc1.weight'
    assert backbone.get_layer_depth(name) == (11, 13)
