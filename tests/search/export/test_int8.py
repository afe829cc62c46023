"""Exports in 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.search.apis.export_folder import GRAPHS
from gckd_mm.search.apis.onnx_encoder import OnnxEncoder
from gckd_mm.search.export import int8
from gckd_mm.search.export.int8 import export_int8
from tests.search.export import families

onnx = pytest.importorskip('onnx')


@pytest.fixture(scope='module')
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.exported('tiny', tmp_path_factory)


@pytest.fixture(scope='module')
def rounded(exact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('int8') / 'out'
    assert 0.99 < export_int8(exact, folder) < 1
    return folder


def test_embeddings_are_close_and_files_are_smaller(exact: Path, rounded: Path) -> None:
    before, after = OnnxEncoder(exact), OnnxEncoder(rounded)
    captions = ['a man in a red coat', 'a woman', '']
    cosines = (before.embed_captions(captions) * after.embed_captions(captions)).sum(1)
    assert cosines.min() > 0.999
    np.testing.assert_allclose(
        np.linalg.norm(after.embed_captions(captions), axis=1), 1, atol=1e-5
    )
    for name in GRAPHS:
        assert (rounded / name).stat().st_size < (exact / name).stat().st_size


def test_it_is_a_model_of_its_own(exact: Path, rounded: Path, tmp_path: Path) -> None:
    before, after = OnnxEncoder(exact), OnnxEncoder(rounded)
    assert after.fingerprint != before.fingerprint
    assert (
        after.settings._replace(
            name=before.name, precision='float32', fingerprint=before.fingerprint
        )
        == before.settings
    )
    assert after.settings.precision == 'int8'
    assert after.name == 'synthclip_tiny_web-int8'
    # the same files, the same model
    export_int8(exact, tmp_path / 'again')
    assert OnnxEncoder(tmp_path / 'again').fingerprint == after.fingerprint


def test_an_int8_of_an_int8_is_refused(rounded: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='is an export in int8, not in float32'):
        export_int8(rounded, tmp_path / 'out')


@pytest.mark.parametrize('tower', ['image', 'text'])
@pytest.mark.parametrize('value', [7, np.nan])
def test_what_has_not_been_rounded_but_broken(
    exact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: float,
    tower: str,
) -> None:
    def spoil(source: Path, path: Path) -> None:
        model = onnx.load(source)
        for weight in model.graph.initializer:
            if weight.name == f'{tower}_neck.projection.weight':
                values = np.array(onnx.numpy_helper.to_array(weight))
                values[:, ::2] = value
                weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(model, path)

    monkeypatch.setattr(int8, 'quantise', spoil)
    with pytest.raises(InputError, match='an embedding has a cosine of'):
        export_int8(exact, tmp_path / 'out')
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_export(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='is no exported model'):
        export_int8(tmp_path, tmp_path / 'out')
