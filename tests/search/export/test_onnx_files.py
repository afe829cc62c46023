"""Files of ONNX, on graphs of a layer or two."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from gckd_mm.errors import InputError
from gckd_mm.search.export import onnx_files
from gckd_mm.search.export.onnx_files import quantise, write_onnx

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')


class Layers(nn.Module):
    """A table, a convolution and a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 32)
        self.convolution = nn.Conv1d(32, 32, 3, padding=1)
        self.projection = nn.Linear(32, 16)

    def forward(self, ids: Tensor) -> Tensor:
        tokens = self.convolution(self.table(ids).transpose(1, 2)).transpose(1, 2)
        return self.projection(tokens.mean(dim=1))


@pytest.fixture(scope='module')
def program() -> ExportedProgram:
    torch.manual_seed(0)
    shapes = {'ids': {0: Dim('n'), 1: Dim('l', max=30)}}
    example = torch.zeros((3, 5), dtype=torch.int64)
    return torch.export.export(Layers(), (example,), dynamic_shapes=shapes)


@pytest.fixture(scope='module')
def written(program: ExportedProgram, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('graphs') / 'graph.onnx'
    write_onnx(program, ['words'], path)
    return path


def run(path: Path, ids: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path)
    return session.run(['feats'], {'words': ids})[0]


def ids(count: int = 7, length: int = 11) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 50, (count, length))


def test_a_graph_is_one_file_with_named_axes_and_nothing_else(
    program: ExportedProgram, written: Path
) -> None:
    assert list(written.parent.iterdir()) == [written]
    graph = onnx.load(written).graph
    names = [
        (x.name, [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim])
        for x in (*graph.input, *graph.output)
    ]
    assert names == [('words', ['batch', 'length']), ('feats', ['batch', 16])]
    assert not graph.value_info
    assert not any(node.metadata_props for node in graph.node)
    for shape in ((1, 1), (7, 11)):
        expected = program.module()(torch.from_numpy(ids(*shape))).detach()
        np.testing.assert_allclose(run(written, ids(*shape)), expected, atol=1e-5)


def test_weights_too_many_for_one_file_go_beside_it(
    program: ExportedProgram,
    written: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnx_files, '_MAX_BYTES', 1000)
    path = tmp_path / 'graph.onnx'
    write_onnx(program, ['words'], path)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ['graph.onnx', 'graph.onnx.data']
    assert path.stat().st_size < written.stat().st_size / 2
    np.testing.assert_array_equal(run(path, ids()), run(written, ids()))


def test_int8_is_smaller_and_close_and_leaves_convolutions(
    written: Path, tmp_path: Path
) -> None:
    path = tmp_path / 'int8.onnx'
    quantise(written, path)
    graph = onnx.load(path).graph
    kinds = {x.name: x.data_type for x in graph.initializer if len(x.dims) > 1}
    integers = {name for name, kind in kinds.items() if kind == onnx.TensorProto.UINT8}
    assert len(integers) == 2
    assert len(kinds) == 3
    assert any(node.op_type == 'Conv' for node in graph.node)
    assert path.stat().st_size < written.stat().st_size
    exact, rounded = run(written, ids()), run(path, ids())
    assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize('package', ['onnx', 'onnxruntime', 'onnxscript'])
def test_a_package_that_is_missing(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install 'gckd-mm\[onnx\]'"):
        onnx_files.import_onnx()
