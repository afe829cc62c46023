"""Exports of every family of encoders, against PyTorch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gckd_mm.errors import InputError
from gckd_mm.search.apis.export_folder import GRAPHS
from gckd_mm.search.apis.onnx_encoder import OnnxEncoder
from gckd_mm.search.apis.torch_encoder import TorchEncoder
from gckd_mm.search.export import retriever
from gckd_mm.search.export.torch_programs import TorchProgramEncoder
from tests.search.export import families

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

CAPTIONS = [
    'a man',
    '',
    'a red coat, <|endoftext|> [SEP] [PAD]',
    'a woman with a white bag ' * 30,
    'red red red',
]


@pytest.fixture(scope='module', params=list(families.FAMILIES))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TorchEncoder, Path]:
    """An encoder and the folder of its export."""
    family = request.param
    folder = families.exported(family, tmp_path_factory)
    return families.encoder(family, tmp_path_factory), folder


def run_onnx(folder: Path, name: str) -> Callable[..., np.ndarray]:
    session = onnxruntime.InferenceSession(folder / name)
    return lambda **inputs: session.run(
        ['feats'], {key: value.numpy() for key, value in inputs.items()}
    )[0]


def run_program(folder: Path, name: str) -> Callable[..., np.ndarray]:
    program = torch.export.load(folder / name.replace('.onnx', '.pt2')).module()
    return lambda **inputs: program(*inputs.values()).detach().numpy()


@pytest.mark.parametrize('run', [run_onnx, run_program])
def test_the_image_graph_takes_pixels_in_any_number(
    pair: tuple[TorchEncoder, Path], run: Any
) -> None:
    encoder, folder = pair
    embed = run(folder, 'image.onnx')
    _, *size = encoder.prepare(np.zeros((50, 20, 3), np.uint8)).shape
    for count in (1, 2, 5, 11):
        images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8)
        expected = encoder.embed_images(list(images))
        np.testing.assert_allclose(embed(images=images), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize('run', [run_onnx, run_program])
def test_the_text_graph_takes_any_number_of_captions_of_any_length(
    pair: tuple[TorchEncoder, Path], run: Any
) -> None:
    encoder, folder = pair
    embed = run(folder, 'text.onnx')
    tokenizer = encoder.model.data_preprocessor.tokenizer
    for count, length in ((1, 1), (1, 2), (4, 1), (11, 17), (3, tokenizer.max_length)):
        ids = torch.randint(0, tokenizer.vocab_size, (count, length))
        lengths = torch.randint(1, length + 1, (count, 1))
        mask = torch.arange(length) < lengths
        captions = {'input_ids': ids, 'attention_mask': mask}
        with torch.no_grad():
            expected = encoder.model.extract_feat({'captions': captions})['captions']
        feats = embed(**captions)
        np.testing.assert_allclose(feats, expected, atol=1e-4, rtol=0)
        np.testing.assert_allclose(np.linalg.norm(feats, axis=1), 1, atol=1e-5)


def test_padding_changes_nothing(pair: tuple[TorchEncoder, Path]) -> None:
    encoder, folder = pair
    embed = run_onnx(folder, 'text.onnx')
    ids = torch.randint(0, encoder.model.text_backbone.vocab_size, (2, 6))
    alone = embed(input_ids=ids, attention_mask=torch.ones(2, 6, dtype=torch.bool))
    mask = torch.arange(9).expand(2, 9) < 6
    padded = torch.cat([ids, torch.randint(0, 9, (2, 3))], dim=1)
    np.testing.assert_allclose(
        embed(input_ids=padded, attention_mask=mask), alone, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize('kind', [OnnxEncoder, TorchProgramEncoder])
def test_an_exported_encoder_embeds_as_its_checkpoint(
    pair: tuple[TorchEncoder, Path], kind: type[OnnxEncoder]
) -> None:
    encoder, folder = pair
    found = kind(folder)
    assert found.fingerprint == encoder.fingerprint
    assert found.embedding_size == encoder.embedding_size
    np.testing.assert_allclose(
        found.embed_captions(CAPTIONS), encoder.embed_captions(CAPTIONS), atol=1e-4
    )
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (90, n, 3), np.uint8) for n in (20, 33, 64)]
    for picture in pictures:
        np.testing.assert_array_equal(found.prepare(picture), encoder.prepare(picture))
    np.testing.assert_allclose(
        found.embed_images([found.prepare(x) for x in pictures]),
        encoder.embed_images([encoder.prepare(x) for x in pictures]),
        atol=1e-4,
    )


def test_the_files_are_plain(pair: tuple[TorchEncoder, Path]) -> None:
    encoder, folder = pair
    assert sorted(path.name for path in folder.iterdir()) == [
        'export.json',
        'image.onnx',
        'image.pt2',
        'text.onnx',
        'text.pt2',
        'tokenizer.json',
    ]
    reported = json.loads((folder / 'export.json').read_text())
    _, height, width = encoder.prepare(np.zeros((50, 20, 3), np.uint8)).shape
    assert (reported['image']['height'], reported['image']['width']) == (height, width)
    for name in GRAPHS:
        model = onnx.load(folder / name)
        onnx.checker.check_model(model)
        assert [(x.domain, x.version) for x in model.opset_import] == [('', 18)]
        first = model.graph.input[0].type.tensor_type.shape.dim
        assert first[0].dim_param == 'batch'
    for path in folder.iterdir():  # where they were made is nobody's business
        assert str(families.ROOT).encode() not in path.read_bytes()
        assert b'site-packages' not in path.read_bytes()


@pytest.fixture
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.exported('tiny', tmp_path_factory)


def copying(folder: Path, change: Callable[[np.ndarray], None], graph: str) -> Any:
    """A ``write_onnx`` that copies a graph, one weight of which is changed."""

    def write(program: Any, inputs: Any, path: Path) -> None:
        model = onnx.load(folder / path.name)
        if path.name == graph:
            weight = max(model.graph.initializer, key=lambda x: len(x.raw_data))
            values = np.array(onnx.numpy_helper.to_array(weight))
            change(values)
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(model, path)

    return write


def scale(values: np.ndarray) -> None:
    values.flat[::2] *= 1.02


def spoil(values: np.ndarray) -> None:
    values.flat[:] = np.nan


@pytest.mark.parametrize('change', [scale, spoil])
@pytest.mark.parametrize('graph', GRAPHS)
def test_a_graph_that_embeds_otherwise_is_an_error_and_leaves_nothing(
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Any,
    graph: str,
) -> None:
    monkeypatch.setattr(retriever, 'capture', lambda *args: (None, None))
    monkeypatch.setattr(retriever, 'write_onnx', copying(tiny, change, graph))
    encoder = TorchEncoder.read(families.SYNTHCLIP, device='cpu')
    with pytest.raises(InputError, match='embed otherwise than PyTorch'):
        retriever.export_retriever(encoder, tmp_path / 'out')
    assert list(tmp_path.iterdir()) == []
    # the copy itself is no error
    monkeypatch.setattr(
        retriever, 'write_onnx', copying(tiny, lambda values: None, graph)
    )
    retriever.export_retriever(encoder, tmp_path / 'out')
    assert OnnxEncoder(tmp_path / 'out').fingerprint == encoder.fingerprint


def test_other_words_are_an_error(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(program: Any, inputs: Any, path: Path) -> None:
        shutil.copyfile(tiny / path.name, path)

    monkeypatch.setattr(retriever, 'capture', lambda *args: (None, None))
    monkeypatch.setattr(retriever, 'write_onnx', write)
    encoder = TorchEncoder.read(families.SYNTHCLIP, device='cpu')
    tokenizer = encoder.model.data_preprocessor.tokenizer
    words = tokenizer.to_json().replace('"red"', '"rex"')
    monkeypatch.setattr(tokenizer, 'to_json', lambda: words)
    with pytest.raises(InputError, match='captions by up to'):
        retriever.export_retriever(encoder, tmp_path / 'out')
