"""The command line of the export, on good and bad input."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.errors import InputError
from gckd_mm.search.apis.onnx_encoder import OnnxEncoder
from gckd_mm.search.apis.torch_encoder import TorchEncoder
from gckd_mm.search.export.random_inputs import Differences
from tests.search.export import families
from tests.training import (
    in_process,
    last_checkpoint,
    small_config,
    small_gckd_config,
    train,
)

pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

from tools import export_onnx


def run(*arguments: object) -> None:
    export_onnx.main([str(argument) for argument in arguments])


def test_what_was_measured_and_written_is_said(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = families.exported('tiny', tmp_path_factory)

    def export(
        encoder: TorchEncoder, out: str, torch_export: bool
    ) -> dict[str, Differences]:
        assert torch_export
        shutil.copytree(folder, out)
        return {'.onnx': Differences(1.24e-7, 2e-7), '.pt2': Differences(0, 3e-8)}

    monkeypatch.setattr(export_onnx, 'export_retriever', export)
    run(families.SYNTHCLIP, tmp_path / 'out', '--torch-export')
    onnx, program, written = capsys.readouterr().out.splitlines()
    assert onnx == (
        '.onnx: embeddings differ from PyTorch by at most 1.2e-07 (images) and 2.0e-07 '
        '(captions), in batches of 1, 2, 7'
    )
    assert program.startswith('.pt2: embeddings differ from PyTorch by at most 0.0e+00')
    assert re.match(rf'{tmp_path}/out: export\.json [\d.]+ kB, image\.onnx ', written)
    assert written.endswith(f'; fingerprint {OnnxEncoder(folder).fingerprint}')


def _train_gckd(data: Path, work_dir: Path) -> None:
    train(small_gckd_config(data, work_dir))


def test_of_an_adapted_model_the_encoders_are_exported_and_its_loss_is_measured(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process(_train_gckd, miniature, tmp_path / 'work') == 0
    checkpoint = last_checkpoint(tmp_path / 'work')
    names = read_checkpoint(checkpoint)['state_dict']
    assert any(name.startswith('teacher.') for name in names)
    dataset = ['--dataset', 'RSTPReid', '--data-root', miniature / 'rstpreid']
    run(checkpoint, tmp_path / 'out', '--int8', *dataset)
    exact, rounded, scores, _ = capsys.readouterr().out.splitlines()
    assert exact.startswith('.onnx: embeddings differ from PyTorch by at most')
    assert rounded.startswith('int8: cosine with float32 at least ')
    found = re.fullmatch(
        r'Rank-1 on RSTPReid test: (\S+) in float32, (\S+) in int8 \((\S+)\)', scores
    )
    assert found is not None
    before, after, change = map(float, found.groups())
    assert 0 <= before <= 100
    assert change == pytest.approx(after - before, abs=0.011)

    encoder, judge = OnnxEncoder(tmp_path / 'out'), TorchEncoder.read(checkpoint)
    assert encoder.settings.precision == 'int8'
    assert encoder.fingerprint != judge.fingerprint
    captions = ['a person with brown hair has on a red top']
    cosine = encoder.embed_captions(captions) @ judge.embed_captions(captions).T
    assert cosine.item() > 0.99
    assert list(tmp_path.glob('.*')) == []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Do not export; note what was to be."""
    calls: list[tuple] = []

    def note(*args: Any) -> Any:
        calls.append(args)
        raise InputError('noted')

    monkeypatch.setattr(export_onnx, 'export_retriever', note)
    return calls


def test_a_config_goes_with_its_weights(
    trained: Path, miniature: Path, tmp_path: Path, quick: list[tuple]
) -> None:
    checkpoint = last_checkpoint(trained)
    config = tmp_path / 'config.py'
    small_config(miniature, tmp_path).dump(config)
    with pytest.raises(SystemExit, match='noted'):
        run(checkpoint, tmp_path / 'out', '--config', config)
    ((encoder, *_),) = quick
    assert encoder.fingerprint == TorchEncoder.read(checkpoint).fingerprint
    assert encoder.device.type == 'cpu'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['none.pth', 'out'], 'checkpoint none.pth does not exist'),
        (['gckd_mm://none', 'out'], 'the package has no such weights'),
        ([families.SYNTHCLIP, 'full'], 'full: exists and is not empty'),
        (
            [families.SYNTHCLIP, 'out', '--int8', '--torch-export'],
            '--torch-export writes float32',
        ),
        (
            [families.SYNTHCLIP, 'out', '--dataset', 'RSTPReid'],
            '--dataset belongs to --int8',
        ),
        (
            [families.SYNTHCLIP, 'out', '--int8', '--data-root', 'x'],
            '--data-root belongs to --dataset',
        ),
        (
            [families.SYNTHCLIP, 'out', '--int8', '--dataset', 'Market'],
            '--dataset must be one of CUHKPEDES, ICFGPEDES, RSTPReid, got',
        ),
        (
            [
                *(families.SYNTHCLIP, 'out', '--int8'),
                *('--dataset', 'RSTPReid', '--data-root', 'none'),
            ],
            'RSTPReid: missing annotation file',
        ),
    ],
)
def test_bad_input_is_said_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quick: list[tuple],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'mine').write_text('mine')
    with pytest.raises(SystemExit, match=message):
        run(*arguments)
    assert not quick
    assert [path.name for path in tmp_path.iterdir()] == ['full']


def test_a_checkpoint_that_does_not_say_what_it_is_of(tmp_path: Path) -> None:
    bare = tmp_path / 'bare.pth'
    torch.save({'state_dict': {}, 'meta': {}}, bare)
    with pytest.raises(SystemExit, match='holds no config'):
        run(bare, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_an_int8_export_says_that_its_loss_was_not_measured(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = families.exported('tiny', tmp_path_factory)
    monkeypatch.setattr(export_onnx, 'export', lambda *args: ['differs', 'summary'])
    monkeypatch.setattr(
        export_onnx,
        'export_int8',
        lambda source, out, export=export_onnx.export_int8: export(folder, out),
    )
    run(families.SYNTHCLIP, tmp_path / 'out', '--int8')
    differs, cosine, loss, summary = capsys.readouterr().out.splitlines()
    assert differs == 'differs'
    assert cosine.startswith('int8: cosine with float32 at least 0.99')
    assert loss == 'int8: the loss of Rank-1 was not measured (--dataset, --data-root)'
    assert summary.endswith(OnnxEncoder(tmp_path / 'out').fingerprint)
