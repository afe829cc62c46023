"""The command line of the conversion, from file to file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from transformers import CLIPModel

from gckd_mm.checkpoint import load_weights, read_checkpoint
from gckd_mm.models.tokenizers import HFTokenizer
from gckd_mm.registry import MODELS
from tests.interop import test_efficientnet_lite as efficientnet_lite
from tests.interop.hf_model import hf_features, random_hf_clip
from tests.interop.openai_model import (
    VOCABULARY,
    TinyOpenAIClip,
    irra_state_dict,
    some_captions,
)
from tests.models.tiny_clip import clip_model, towers, write_clip
from tests.training import ROOT, in_process, last_checkpoint, small_config
from tools import convert_checkpoint
from tools import test as test_tool
from tools import train as train_tool

EXTRA = 'data_preprocessor.tokenizer._extra_state'


def run(*arguments: object) -> None:
    convert_checkpoint.main([str(argument) for argument in arguments])


@pytest.fixture
def irra(tmp_path: Path) -> Path:
    path = tmp_path / 'best.pth'
    state_dict = irra_state_dict(TinyOpenAIClip())
    torch.save({'model': state_dict, 'optimizer': {}, 'epoch': 60}, path)
    return path


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_a_public_checkpoint_in_and_a_folder_of_transformers_out(
    tmp_path: Path, irra: Path, suffix: str, capsys: pytest.CaptureFixture
) -> None:
    ours, folder = tmp_path / f'ours.{suffix}', tmp_path / 'clip'
    images, ids = torch.randn(3, 3, 32, 32), some_captions()
    judge = TinyOpenAIClip().eval()
    judge.load_state_dict(
        {
            key.removeprefix('base_model.'): value.float()
            for key, value in torch.load(irra)['model'].items()
            if key.startswith('base_model.')
        },
        strict=False,
    )

    run('--from', 'irra', irra, ours)
    printed = capsys.readouterr().out
    run('--to', 'hf', ours, folder)

    assert 'ignored, having no place there: 7 keys' in printed
    assert '  cross_modal_transformer: 1\n' in printed
    model = CLIPModel.from_pretrained(folder).eval()
    of_images, of_captions = hf_features(model, images, ids)
    torch.testing.assert_close(of_images, judge.encode_image(images), atol=2e-5, rtol=0)
    torch.testing.assert_close(of_captions, judge.encode_text(ids), atol=2e-5, rtol=0)
    assert set(read_checkpoint(ours)['meta']['ignored']) == {
        key for key in irra_state_dict(judge) if not key.startswith('base_model.')
    }


def test_a_folder_there_and_back_is_exact(tmp_path: Path) -> None:
    before, ours, after = (tmp_path / n for n in ('before', 'ours.pth', 'after'))
    random_hf_clip().save_pretrained(before)

    run('--from', 'hf', before, ours)
    run('--to', 'hf', ours, after)

    expected = CLIPModel.from_pretrained(before).state_dict()
    found = CLIPModel.from_pretrained(after).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    return write_clip(tmp_path / 'clip')


def test_a_folder_becomes_a_checkpoint_that_can_be_tested(
    tmp_path: Path, clip_folder: Path
) -> None:
    ours = tmp_path / 'x.pth'

    run('--from', 'hf', clip_folder, ours, '--image-size', 64, 32)

    with DefaultScope.overwrite_default_scope('gckd_mm'):
        found = MODELS.build(dict(towers(clip_folder), type='DualEncoder'))
        expected = MODELS.build(dict(towers(clip_folder), type='DualEncoder'))
    load_weights(found, read_checkpoint(ours), 'x.pth')
    expected.init_weights()
    for key, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key


def test_the_tokenizer_of_another_folder_is_taken(
    tmp_path: Path, clip_folder: Path
) -> None:
    bare = tmp_path / 'bare'
    clip_model().save_pretrained(bare)

    run('--from', 'hf', bare, tmp_path / 'x.pth')
    assert EXTRA not in read_checkpoint(tmp_path / 'x.pth')['state_dict']
    run('--from', 'hf', bare, tmp_path / 'x.pth', '--tokenizer', clip_folder)

    state = read_checkpoint(tmp_path / 'x.pth')['state_dict'][EXTRA]
    assert torch.equal(state, HFTokenizer(str(clip_folder)).get_extra_state())


def test_a_tokenizer_that_does_not_fit(
    tmp_path: Path, irra: Path, clip_folder: Path
) -> None:
    out = tmp_path / 'x.pth'

    with pytest.raises(SystemExit, match=f'but the text encoder embeds {VOCABULARY}'):
        run('--from', 'irra', irra, out, '--tokenizer', clip_folder)
    with pytest.raises(SystemExit, match='holds no tokenizer'):
        run('--from', 'irra', irra, out, '--tokenizer', tmp_path)
    assert not out.exists()


def test_the_grid_and_the_config_come_from_the_command_line(
    tmp_path: Path, irra: Path
) -> None:
    config = random_hf_clip().config.to_dict()
    file, ours = tmp_path / 'clip.json', tmp_path / 'x.pth'
    # Heads and activation alone, as the sizes are another model's.
    given = {
        'model_type': 'clip',
        'vision_config': {'num_attention_heads': 4, 'hidden_act': 'gelu'},
        'text_config': {'num_attention_heads': 2, 'hidden_act': 'gelu'},
    }
    file.write_text(json.dumps(given))
    options = ('--clip-config', file, '--image-size', 48, 16)

    run('--from', 'irra', irra, ours, *options)

    found = read_checkpoint(ours)
    assert found['meta']['clip_config']['vision_config']['num_attention_heads'] == 4
    key = 'image_backbone.model.embeddings.position_embedding.weight'
    assert found['state_dict'][key].shape == (13, 128)
    file.write_text(json.dumps(config))
    with pytest.raises(SystemExit, match='of another shape than'):
        run('--from', 'irra', irra, ours, *options)


def test_what_cannot_be_converted_is_listed_and_nothing_written(
    tmp_path: Path, irra: Path
) -> None:
    checkpoint = torch.load(irra)
    checkpoint['model']['enricher.weight'] = torch.zeros(1)
    del checkpoint['model']['base_model.ln_final.bias']
    torch.save(checkpoint, irra)
    out = tmp_path / 'x.pth'

    with pytest.raises(SystemExit) as stop:
        run('--from', 'irra', irra, out)
    assert 'enricher.weight' in str(stop.value)
    assert 'text_backbone.model.final_layer_norm.bias' in str(stop.value)
    assert not out.exists()
    run('--from', 'irra', irra, out, '--allow-missing', '--allow-unused')
    meta = read_checkpoint(out)['meta']
    assert meta['unused'] == ['enricher.weight']
    assert meta['missing'] == ['text_backbone.model.final_layer_norm.bias']


def test_the_teacher_can_be_exported(tmp_path: Path, irra: Path) -> None:
    ours, folder = tmp_path / 'ours.pth', tmp_path / 'clip'
    run('--from', 'irra', irra, ours)
    checkpoint = read_checkpoint(ours)
    weights = checkpoint['state_dict']
    taught = {f'teacher.module.{k}': v + 1 for k, v in weights.items()}
    steps = {'teacher.steps': torch.tensor(5)}
    torch.save({**checkpoint, 'state_dict': {**weights, **taught, **steps}}, ours)

    run('--to', 'hf', ours, folder, '--teacher')

    key = 'text_projection.weight'
    expected = taught['teacher.module.text_neck.projection.weight']
    assert torch.equal(
        CLIPModel.from_pretrained(folder).state_dict()[key], expected.float()
    )


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--from', 'irra', '{}', 'x.pth', '--teacher'), '--teacher belongs to --to'),
        (('--to', 'hf', '{}', 'x', '--tokenizer', 'x.json'), '--tokenizer belongs'),
        (('--from', 'openai-clip', '{}', 'x.pth'), 'not a CLIP with two transformers'),
        (('--from', 'irra', 'none.pth', 'x.pth'), 'none.pth does not exist'),
        (('--from', 'hf', '{}', 'x.pth'), 'not a CLIP with two transformers'),
        (
            ('--from', 'irra', '{}', 'x.pth', '--image-size', '50', '16'),
            'take multiples of 8',
        ),
        (
            ('--from', 'efficientnet-lite0', '{}', 'x.pth', '--grid', '24', '8'),
            '--grid is for a CLIP',
        ),
    ],
)
def test_what_the_user_can_mend(
    irra: Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        run(*(argument.format(irra) for argument in arguments))


def test_an_image_backbone_is_read_by_its_init_cfg(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('timm')
    published = efficientnet_lite.published()
    torch.save(published, tmp_path / 'lite0.pth')

    files = tmp_path / 'lite0.pth', tmp_path / 'out.pth'
    run('--from', 'efficientnet-lite0', *files)

    assert '_fc: 2' in capsys.readouterr().out
    cfg = Config.fromfile(ROOT / 'configs/gckd/gckd_street2real_minilm-lite0.py')
    backbone = MODELS.build({**cfg.model.image_backbone, '_scope_': 'gckd_mm'})
    backbone.init_cfg['checkpoint'] = str(tmp_path / 'out.pth')
    backbone.init_weights()
    weights = backbone.state_dict()
    assert torch.equal(
        weights['timm_model.blocks.6.0.conv_pwl.weight'],
        published['_blocks.15._project_conv.weight'],
    )
    assert torch.equal(weights['timm_model.bn2.bias'], published['_bn1.bias'])


def _model_config(
    folder: Path, data: Path, work_dir: Path, **overrides: object
) -> Config:
    cfg = small_config(data, work_dir, train_cfg__max_iters=2, **overrides)
    cfg.model = dict(towers(folder, sizes=True), type='DualEncoder')
    # Nothing of it is read: the weights are those of the checkpoint.
    for part in ('image_backbone', 'text_backbone', 'image_neck', 'text_neck'):
        cfg.model[part].pretrained = 'no/such-model'
    return cfg


def _train_and_test(config: str, checkpoint: str, work_dir: str, out: str) -> None:
    options = ['--work-dir', work_dir]
    test_tool.main([config, checkpoint, *options, '--out', out])
    load = ['--cfg-options', f'load_from={checkpoint}']
    train_tool.main([config, *options, *load])


def test_the_tools_test_a_converted_checkpoint_and_train_from_it(
    tmp_path: Path, clip_folder: Path, miniature: Path
) -> None:
    ours, out = tmp_path / 'ours.safetensors', tmp_path / 'results.json'
    run('--from', 'hf', clip_folder, ours, '--image-size', 64, 32)
    config, work_dir = tmp_path / 'clip.py', tmp_path / 'work'
    # So small a rate that what is trained is what was loaded.
    cfg = _model_config(clip_folder, miniature, work_dir)
    cfg.optim_wrapper.optimizer.lr = 1e-9
    cfg.dump(config)

    assert in_process(_train_and_test, *map(str, (config, ours, work_dir, out))) == 0

    assert json.loads(out.read_text())['metrics']['rstpreid']['R1'] > 0
    trained = read_checkpoint(last_checkpoint(work_dir))['state_dict']
    weights = read_checkpoint(ours)['state_dict']
    assert trained.keys() == weights.keys()
    for key, value in weights.items():
        torch.testing.assert_close(trained[key], value, atol=1e-6, rtol=0)
