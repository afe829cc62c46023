"""Damaged checkpoints, and the tools that are given them."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from gckd_mm.checkpoint import local_path, read_checkpoint, use_strict_loading
from gckd_mm.checkpoint.safetensors_files import safetensors_bytes
from gckd_mm.search.apis import PersonSearchInferencer
from tests.fuzz.conftest import Cases
from tests.fuzz.damage import (
    damage_bytes,
    damage_value,
    odd_files,
    odd_texts,
    odd_values,
)
from tests.fuzz.judge import Judge, must_be_refused
from tests.training import last_checkpoint
from tools import convert_checkpoint, train
from tools import test as test_tool

Record = Callable[[str, object], None]
_CROP = np.zeros((64, 32, 3), np.uint8)


def _odd_tensors() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of quantised and compressed ones
        return [
            torch.zeros(0),
            torch.tensor(1.0),
            torch.full((4, 4), float('nan')),
            torch.full((4,), float('inf')),
            torch.eye(3).to_sparse(),
            torch.eye(3).to_sparse_csr(),
            torch.zeros(3, dtype=torch.complex64),
            torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
            torch.zeros(1).expand(10**10),
            torch.zeros(3, device='meta'),
            torch.zeros(3, dtype=torch.float16),
            torch.arange(3),
            np.zeros(3),
            np.float32(1),
        ]


def _same(found: Any, good: Any) -> bool:
    if isinstance(good, Tensor):
        return (
            isinstance(found, Tensor)
            and found.dtype == good.dtype
            and torch.equal(found, good)
        )
    if isinstance(good, dict):
        return (
            isinstance(found, dict)
            and found.keys() == good.keys()
            and all(_same(found[key], good[key]) for key in good)
        )
    if isinstance(good, list | tuple):
        return len(found) == len(good) and all(map(_same, found, good))
    if isinstance(good, HistoryBuffer):
        return isinstance(found, HistoryBuffer) and all(
            map(np.array_equal, found.data, good.data)
        )
    if isinstance(good, float) and np.isnan(good):
        return isinstance(found, float) and bool(np.isnan(found))
    return type(found) is type(good) and bool(found == good)


def _changed(good: dict[str, Any], found: dict[str, Any]) -> str | None:
    return None if _same(found, good) else 'it holds something else than was written'


def _embed(path: Path) -> np.ndarray:
    inferencer = PersonSearchInferencer(str(path), device='cpu', show_progress=False)
    return np.concatenate(
        [inferencer.encode_texts(['a man']), inferencer.encode_images([_CROP])]
    )


def _not_finite(feats: np.ndarray) -> str | None:
    return None if np.isfinite(feats).all() else 'the embeddings are not finite'


@pytest.fixture(scope='module')
def written(trained: Path) -> bytes:
    """What a training wrote, optimiser and all."""
    return last_checkpoint(trained).read_bytes()


def test_damaged_bytes(
    written: bytes, tmp_path: Path, cases: Cases, record_property: Record
) -> None:
    read = partial(torch.load, weights_only=False)  # what we wrote ourselves
    of_torch = read(io.BytesIO(written))
    of_safetensors = {'state_dict': of_torch['state_dict'], 'meta': {'seed': 1}}
    contents = {
        '.pth': (written, of_torch),
        '.safetensors': (
            safetensors_bytes(of_torch['state_dict'], {'seed': 1}),
            of_safetensors,
        ),
    }
    judge = Judge()
    for suffix, (good, expected) in contents.items():
        for case, rng in cases(120, suffix):
            how, data = damage_bytes(good, rng)
            path = tmp_path / f'damaged{suffix}'
            path.write_bytes(data)
            judge.case(
                f'{suffix} {how} {cases.label(case)}',
                partial(read_checkpoint, path),
                partial(_changed, expected),
            )
    judge.finish(record_property)


def test_files_that_are_no_checkpoints(tmp_path: Path, record_property: Record) -> None:
    judge = Judge()
    for suffix in ('.pth', '.safetensors'):
        files = {}
        for name, data in odd_texts(b'{"state_dict": {}}').items():
            files[name] = tmp_path / f'text{len(files)}{suffix}'
            files[name].write_bytes(data)
        for name, path in {**files, **odd_files(tmp_path, suffix)}.items():
            for read in (read_checkpoint, _embed):
                judge.case(
                    f'{name}{suffix}',
                    partial(read, path),
                    must_be_refused,
                )
    judge.finish(record_property)


def _hostile_zips(good: bytes, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield archives that differ from the good one in what a reader may miss."""
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    tensor = max(entries, key=lambda name: len(entries[name]))
    changed = {**entries, tensor: bytes(len(entries[tensor]))}
    for name, contents, compression, twice in (
        ('compressed', entries, zipfile.ZIP_DEFLATED, None),
        ('bomb', {**entries, tensor: bytes(3_000_000_000)}, zipfile.ZIP_DEFLATED, None),
        ('an entry twice', entries, zipfile.ZIP_STORED, (tensor, changed[tensor])),
    ):
        path = folder / f'{name}.pth'
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of the entry that is there twice
            with zipfile.ZipFile(path, 'w', compression) as archive:
                for entry, data in contents.items():
                    archive.writestr(entry, data)
                if twice is not None:
                    archive.writestr(*twice)
        yield name, path


def test_hostile_archives(
    written: bytes, tmp_path: Path, record_property: Record
) -> None:
    judge = Judge()
    for name, path in _hostile_zips(written, tmp_path):
        judge.case(name, partial(read_checkpoint, path), must_be_refused)
        path.unlink()
    judge.finish(record_property)


class _Runs:
    """Leaves a mark when it is unpickled."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_nothing_is_executed(tmp_path: Path, record_property: Record) -> None:
    mark = tmp_path / 'mark'
    judge = Judge()
    for n, payload in enumerate(
        (
            _Runs(os.system, f'touch {mark}'),
            _Runs(eval, f'open({str(mark)!r}, "w")'),
            _Runs(open, str(mark), 'w'),
            _Runs(__import__, 'antigravity'),
        )
    ):
        for legacy in (False, True):
            path = tmp_path / f'{n}.pth'
            torch.save(
                {'state_dict': {'a': payload}, 'meta': {}},
                path,
                _use_new_zipfile_serialization=not legacy,
            )
            mark.unlink(missing_ok=True)
            for read in (read_checkpoint, _embed):
                judge.case(
                    f'payload {n}',
                    partial(read, path),
                    must_be_refused,
                )
            assert not mark.exists()
    judge.finish(record_property)


def _config_of_training(arguments: list[str]) -> Any:
    return train.make_config(train.parse_arguments(arguments))


def test_damaged_structures(
    written: bytes,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cases: Cases,
    record_property: Record,
) -> None:
    # the tools change how this process loads: give it back as it was
    schemes = type(CheckpointLoader._schemes)(CheckpointLoader._schemes)
    monkeypatch.setattr(CheckpointLoader, '_schemes', schemes)
    use_strict_loading()
    good = torch.load(io.BytesIO(written), weights_only=False)
    shipped = torch.load(local_path('gckd_mm://synthclip_tiny_web'), weights_only=False)
    odd = [*odd_values(), *_odd_tensors()]
    path = tmp_path / 'odd.pth'
    config = str(tmp_path / 'config.py')
    Path(config).write_bytes(next(trained.glob('*/vis_data/config.py')).read_bytes())
    judge = Judge()
    for case, rng in cases(160, 'structure'):
        base = shipped if case % 2 else good
        try:
            torch.save(damage_value(base, rng, odd), path)
        except (TypeError, RuntimeError, ValueError, AttributeError):
            continue  # torch cannot write it
        name = cases.label(case)
        judge.case(f'read {name}', partial(read_checkpoint, path))
        judge.case(f'embed {name}', partial(_embed, path), _not_finite)
        out = str(tmp_path / 'out.pth')
        if case % 8 == 0:
            tool = ['--from', 'openai-clip', str(path), out]
            judge.case(f'convert {name}', partial(convert_checkpoint.main, tool))
        if case % 8 == 2:
            tool = [str(path), '--work-dir', str(tmp_path / 'test')]
            judge.case(f'test {name}', partial(test_tool.main, tool))
        if case % 8 == 4:
            work = ['--work-dir', str(tmp_path / f'train{case}')]
            tool = [config, '--resume', str(path), *work]
            judge.case(
                f'resume {name}',
                partial(_config_of_training, tool),
            )
    judge.finish(record_property)


def test_an_undamaged_checkpoint_is_embedded_with() -> None:
    assert _not_finite(_embed(Path(local_path('gckd_mm://synthclip_tiny_web')))) is None
