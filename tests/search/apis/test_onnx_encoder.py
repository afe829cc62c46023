"""An exported model searches as its checkpoint does, without a model of PyTorch."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmcv.transforms import Resize
from PIL import Image

from gckd_mm.datasets.transforms.load_person_image import read_image
from gckd_mm.errors import InputError
from gckd_mm.registry import MODELS
from gckd_mm.search.apis import PersonSearchInferencer, Query
from gckd_mm.search.apis.export_folder import (
    ExportSettings,
    read_settings,
    write_settings,
)
from gckd_mm.search.apis.onnx_encoder import OnnxEncoder, _providers
from gckd_mm.search.apis.torch_encoder import TorchEncoder
from gckd_mm.search.cli import search as cli
from gckd_mm.search.gallery import Gallery
from gckd_mm.search.gallery.files import find_images
from gckd_mm.search.gallery.indexing import update
from tests.search.export import families

pytest.importorskip('onnxruntime')


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.exported('tiny', tmp_path_factory)


@pytest.fixture(scope='module')
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('crops')
    rng = np.random.default_rng(0)
    for n in range(12):
        blocks = rng.integers(0, 256, (8, 4, 3), dtype=np.uint8)
        picture = blocks.repeat(9 + n, axis=0).repeat(10, axis=1)
        Image.fromarray(picture).save(root / f'{n:02d}.png')
    return root


def changed(folder: Path, copy: Path, **changes: Any) -> Path:
    """A copy of an export, some files or settings of which are others.

    Args:
        folder: The export.
        copy: The folder to make.
        **changes: ``image`` and ``text``, changes of these settings; or the content of
            a file, with ``_`` for the dot of its name.
    """
    shutil.copytree(folder, copy)
    settings = read_settings(copy)
    for name, value in changes.items():
        if name in ExportSettings._fields:
            part = getattr(settings, name)._replace(**value)
            settings = settings._replace(**{name: part})
        else:
            (copy / name.replace('_', '.')).write_bytes(value)
    write_settings(copy, settings)
    return copy


@pytest.mark.parametrize('built_by', ['checkpoint', 'export'])
def test_a_gallery_of_the_one_is_searched_with_the_other(
    folder: Path, crops: Path, tmp_path: Path, built_by: str
) -> None:
    models = {
        'checkpoint': PersonSearchInferencer(families.SYNTHCLIP, device='cpu'),
        'export': PersonSearchInferencer(folder),
    }
    with models[built_by].new_gallery(tmp_path / 'gallery', crops) as gallery:
        update(gallery, models[built_by], find_images(crops))
    queries = [
        'a man in a red coat',
        Query('a woman', without='a backpack', image=crops / '03.png'),
        crops / '07.png',
    ]
    of_checkpoint, of_export = (
        model.search(tmp_path / 'gallery', queries, top_k=12)
        for model in models.values()
    )
    for first, second in zip(of_checkpoint, of_export, strict=True):
        assert [m.item.path for m in first] == [m.item.path for m in second]
        np.testing.assert_allclose(
            [m.score for m in first], [m.score for m in second], atol=1e-5
        )


def test_a_gallery_remembers_where_its_export_lies(
    folder: Path,
    crops: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder.parent)
    arguments = ['index', str(crops), '--gallery', str(tmp_path / 'gallery')]
    assert cli.main([*arguments, '--checkpoint', folder.name]) == 0
    monkeypatch.chdir(tmp_path)
    with Gallery.open('gallery') as gallery:
        assert gallery.settings['source'] == [str(folder), None]
        inferencer = PersonSearchInferencer.of_gallery(gallery)
    assert isinstance(inferencer.encoder, OnnxEncoder)
    capsys.readouterr()
    assert cli.main(['query', 'gallery', 'a man in a red coat', '--json']) == 0
    assert len(json.loads(capsys.readouterr().out)) > 0


def test_no_model_of_pytorch_is_built(
    folder: Path, crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError('a model was built')

    monkeypatch.setattr(MODELS, 'build', refuse)
    monkeypatch.setattr(torch, 'load', refuse)
    encoder = OnnxEncoder(folder)
    feats = encoder.embed_images([encoder.prepare(str(crops / '00.png'))])
    assert feats.shape == encoder.embed_captions(['a man']).shape == (1, 128)
    assert feats.dtype == np.float32


def test_it_says_what_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    encoder = OnnxEncoder(folder.name)
    assert encoder.source == (str(folder), None)
    assert encoder.name == 'synthclip_tiny_web'
    checkpoint = TorchEncoder.read(families.SYNTHCLIP, device='cpu')
    assert encoder.fingerprint == checkpoint.fingerprint


@pytest.mark.parametrize(
    'resize',
    [
        dict(interpolation='area'),
        dict(interpolation='bilinear'),
        dict(interpolation='bicubic'),
        dict(interpolation='nearest', backend='pillow'),
        dict(interpolation='bilinear', backend='pillow'),
    ],
)
def test_pictures_are_resized_as_the_pipeline_does(
    folder: Path, crops: Path, tmp_path: Path, resize: dict[str, str]
) -> None:
    encoder = OnnxEncoder(changed(folder, tmp_path / 'other', image=resize))
    transform = Resize(scale=(32, 64), **resize)
    for path in crops.iterdir():
        image = read_image(str(path))
        expected = transform({'img': image})['img'].transpose(2, 0, 1)
        np.testing.assert_array_equal(encoder.prepare(str(path)), expected)
        np.testing.assert_array_equal(encoder.prepare(image), expected)


def test_captions_become_the_tokens_of_the_checkpoint(
    folder: Path, tmp_path: Path
) -> None:
    checkpoint = TorchEncoder.read(families.SYNTHCLIP, device='cpu')
    captions = ['A man!', '', '[SEP] [PAD]', 'red ' * 100, 'ein Fußgänger 行人 \x00']
    expected = checkpoint.model.data_preprocessor.tokenizer(captions)
    found = OnnxEncoder(folder)._tokenizer(captions)
    for name, values in expected.items():
        assert torch.equal(found[name], values)
    text = dict(max_length=5, padding_id=9)
    short = OnnxEncoder(changed(folder, tmp_path / 'short', text=text))._tokenizer
    assert short(captions)['input_ids'].shape == (5, 5)
    assert short(captions)['input_ids'][1, 2:].tolist() == [9, 9, 9]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(image_onnx=b'nothing'), r'image\.onnx: onnxruntime .* cannot load it'),
        (dict(text_onnx=b''), r'text\.onnx: onnxruntime .* cannot load it'),
        (dict(tokenizer_json=b'{}'), r'tokenizer\.json: not a tokenizer\.json'),
        (dict(text=dict(vocab_size=3)), r'tokenizer\.json: has \d+ tokens, more than'),
        (dict(text=dict(max_length=1)), 'at least 2, got 1'),
    ],
)
def test_an_export_that_cannot_be_used(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        OnnxEncoder(changed(folder, tmp_path / 'other', **changes))


def test_a_folder_that_is_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='is no exported model'):
        PersonSearchInferencer(tmp_path)
    with pytest.raises(InputError, match='name a checkpoint alone'):
        PersonSearchInferencer(folder, 'weights.pth')


def test_without_onnxruntime(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(InputError, match=r"pip install 'gckd-mm\[onnx\]'"):
        PersonSearchInferencer(folder)


def test_devices(folder: Path) -> None:
    for device in (None, 'cpu', torch.device('cpu')):
        OnnxEncoder(folder, device)
    cpu, cuda = 'CPUExecutionProvider', 'CUDAExecutionProvider'
    assert _providers('cpu', [cuda, cpu]) == [cpu]
    assert _providers('cuda', [cuda, cpu]) == [(cuda, {'device_id': 0}), cpu]
    assert _providers('cuda:1', [cuda, cpu]) == [(cuda, {'device_id': 1}), cpu]
    with pytest.raises(InputError, match='pip install onnxruntime-gpu'):
        _providers('cuda', [cpu])
    for device in ('mps', 'cuda:one', 'gpu'):
        with pytest.raises(InputError, match=f'got {device!r}'):
            _providers(device, [cuda, cpu])
