"""Embeddings of a map, from a dump and from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.errors import InputError
from gckd_mm.evaluation.metrics import Embeddings
from gckd_mm.visualization.embedding_sources import (
    CheckpointEmbeddings,
    DumpedEmbeddings,
    check_same_people,
)
from tests.training import last_checkpoint
from tools.test import dump_embeddings
from tools.test import main as run_test


def _part(pids: list[int]) -> Embeddings:
    feats = np.random.default_rng(len(pids)).standard_normal((len(pids), 4))
    return Embeddings(feats.astype(np.float32), np.array(pids), np.arange(len(pids)))


def _test_sets(**pids: list[int]) -> dict[str, dict[str, Embeddings]]:
    return {
        name: {'images': _part(rows), 'captions': _part(rows * 2)}
        for name, rows in pids.items()
    }


@pytest.fixture
def dump(tmp_path: Path) -> str:
    path = str(tmp_path / 'dump.npz')
    dump_embeddings(path, _test_sets(street=[1, 2, 2], mall=[5, 6]))
    return path


def test_a_dump_gives_the_rows_that_are_asked_for(dump: str) -> None:
    source = DumpedEmbeddings(dump)
    pids = source.pids()
    assert list(pids) == [
        ('street', 'images'),
        ('street', 'captions'),
        ('mall', 'images'),
        ('mall', 'captions'),
    ]
    assert pids['street', 'captions'].tolist() == [1, 2, 2, 1, 2, 2]
    found = source.feats({('street', 'images'): np.array([0, 2])})
    expected = _part([1, 2, 2]).feats[[0, 2]]
    assert np.array_equal(found['street', 'images'], expected)
    assert {domain for domain, _ in DumpedEmbeddings(dump, ['mall']).pids()} == {'mall'}


def test_a_test_set_that_a_dump_does_not_have(dump: str) -> None:
    with pytest.raises(InputError, match=r"no test set 'campus', only street, mall"):
        DumpedEmbeddings(dump, ['campus'])


def _damaged(path: Path, kind: str) -> None:
    good = {
        f'mall/{modality}/{field}': getattr(part, field)
        for modality, part in _test_sets(mall=[1, 2])['mall'].items()
        for field in ('feats', 'pids')
    }
    if kind == 'text':
        path.write_text('no archive')
    elif kind == 'cut short':
        np.savez(path, **good)
        path.write_bytes(path.read_bytes()[:300])
    elif kind == 'one array':
        with open(path, 'wb') as file:
            np.save(file, np.zeros(3))
    elif kind == 'pickles':
        np.savez(path, **{'mall/images/feats': np.array([{}], dtype=object)})
    elif kind == 'incomplete':
        del good['mall/captions/pids']
        np.savez(path, **good)
    elif kind == 'not finite':
        good['mall/images/feats'][0, 0] = np.nan
        np.savez(path, **good)
    elif kind == 'empty':
        np.savez(path)


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('text', r'no \.npz file'),
        ('cut short', r'no \.npz file'),
        ('one array', r'no \.npz file'),
        ('pickles', r'no \.npz file'),
        ('incomplete', r"no array 'mall/captions/pids'"),
        ('not finite', r'mall/images must hold finite feats'),
        ('empty', r'has no test sets'),
        ('missing', r'does not exist: write it with tools/test\.py --dump'),
    ],
)
def test_files_that_are_no_dump(tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / 'bad.npz'
    _damaged(path, kind)
    with pytest.raises(InputError, match=rf'bad\.npz: .*{message}'):
        DumpedEmbeddings(str(path))


@pytest.mark.parametrize(
    ('other', 'message'),
    [
        ({'street': [1, 2, 2]}, 'shows street, but .* shows street, mall'),
        ({'street': [1, 2, 2], 'mall': [5, 7]}, 'the images of mall are not those'),
        ({'street': [1, 2], 'mall': [5, 6]}, 'the images of street are not those'),
    ],
)
def test_dumps_of_other_people_are_not_compared(
    dump: str, tmp_path: Path, other: dict[str, list[int]], message: str
) -> None:
    path = str(tmp_path / 'other.npz')
    dump_embeddings(path, _test_sets(**other))
    with pytest.raises(InputError, match=rf'other\.npz: {message}'):
        check_same_people([DumpedEmbeddings(dump), DumpedEmbeddings(path)])
    check_same_people([DumpedEmbeddings(dump), DumpedEmbeddings(dump)])


def test_a_checkpoint_gives_what_the_test_dumps(trained: Path, tmp_path: Path) -> None:
    checkpoint = str(last_checkpoint(trained))
    path = str(tmp_path / 'dump.npz')
    run_test([checkpoint, '--dump', path, '--work-dir', str(tmp_path / 'work')])
    domains = ['rstpreid']
    read, embedded = (
        DumpedEmbeddings(path, domains),
        CheckpointEmbeddings(checkpoint, domains=domains, device='cpu'),
    )
    check_same_people([read, embedded])
    rows = {group: np.arange(0, len(pids), 7) for group, pids in read.pids().items()}
    expected, found = read.feats(rows), embedded.feats(rows)
    assert expected.keys() == found.keys()
    for group, feats in expected.items():
        assert found[group] == pytest.approx(feats, abs=1e-5)


def test_a_checkpoint_without_the_test_set(trained: Path) -> None:
    with pytest.raises(InputError, match=r"no test set 'mall', only "):
        CheckpointEmbeddings(str(last_checkpoint(trained)), domains=['mall'])


def test_a_checkpoint_without_a_config(trained: Path, tmp_path: Path) -> None:
    weights: dict[str, Any] = read_checkpoint(last_checkpoint(trained))
    torch.save({'state_dict': weights['state_dict']}, tmp_path / 'weights.pth')
    with pytest.raises(InputError, match=r'weights\.pth: holds no config'):
        CheckpointEmbeddings(str(tmp_path / 'weights.pth'))
