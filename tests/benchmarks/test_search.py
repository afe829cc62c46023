"""The scripted search of ``benchmarks/search.py``, on few pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def search(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script('search')


def test_people_of_a_random_gallery_are_found_again(search: ModuleType) -> None:
    (pictures,) = search.clustered(2000, seed=0)
    (others,) = search.clustered(2000, seed=1)
    assert pictures.shape == (2000, 256)
    assert pictures.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(pictures, axis=1), 1, rtol=1e-5)
    assert not np.allclose(pictures, others)
    # The same people: each is near some of 20 pictures, and far from the rest.
    similarity = np.sort(others @ pictures.T, axis=1)
    assert similarity[:, -10:].mean() > 0.75
    assert similarity[:, :-100].mean() < 0.1
    # nearly all of it lies in few dimensions
    values = np.linalg.svd(pictures, compute_uv=False) ** 2
    assert values[: search.INTRINSIC].sum() / values.sum() > 0.98


def test_chunks_are_of_one_gallery(
    search: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, 'CHUNK', 300)
    for make in search.KINDS_OF_DATA.values():
        sizes = [len(chunk) for chunk in make(1000, seed=0)]
        assert sizes == [300, 300, 300, 100]


def test_indexing_and_adding_are_measured(search: ModuleType, tmp_path: Path) -> None:
    found = search.measure_index(70, 5, tmp_path)
    assert (found['images'], found['more_encoded'], found['more_kept']) == (70, 5, 70)
    ratio = found['seconds'] / found['bare_seconds']
    assert found['ratio'] == pytest.approx(ratio)


def test_the_exact_search_finds_what_the_bare_one_does(
    search: ModuleType, tmp_path: Path
) -> None:
    found = search.measure_exact(500, 7, tmp_path)
    assert found['images'] == 500
    assert found['ms'] > 0


@pytest.mark.parametrize('index', ['hnsw', 'ivf'])
def test_an_index_of_many_is_measured(
    search: ModuleType, tmp_path: Path, index: str
) -> None:
    found = search.large_in_its_own_process('clustered', index, 3000, 20, tmp_path)
    assert (found['index'], found['images']) == (index, 3000)
    assert found['recall_at_10'] > 0.9
    assert found['file_mb']['.f32'] == pytest.approx(3000 * 256 * 4 / 1e6)
    assert found['peak_mb'] > 50


def test_targets(search: ModuleType) -> None:
    row = {
        'data': 'clustered',
        'index': 'ivf',
        'images': 1000,
        'recall_at_10': 0.95,
        'speedup': 20.0,
        'build_seconds': 900.0,
    }
    poor = {'recall_at_10': 0.1, 'speedup': 1.0, 'build_seconds': 1e4}
    good = {
        'index': {'ratio': 1.0, 'more_encoded': 100, 'more': 100},
        'exact': {'ratio': 1.2, 'ratio_after_deletions': 1.2},
        # held to them: random people, and the most
        'large': [row, row | poor | {'data': 'uniform'}, row | poor | {'images': 999}],
        'web': {'ready_seconds': 60.0, 'first_in_the_page_ms': 300.0, 'errors': 0},
    }
    assert search.misses(good) == []
    assert search.misses({}) == []
    bad = {
        'index': {'ratio': 1.2, 'more_encoded': 10_100, 'more': 100},
        'exact': {'ratio': 1.3, 'ratio_after_deletions': 1.3},
        'large': [row | poor],
        'web': {'ready_seconds': 61.0, 'first_in_the_page_ms': 301.0, 'errors': 2},
    }
    missed = search.misses(bad)
    assert len(missed) == 10
    assert 'ivf of 1,000: recall 0.100' in missed
    unseen = {'ready_seconds': 1.0, 'first_in_the_page_ms': None, 'errors': 0}
    assert search.misses({'web': unseen}) == ['the page was not measured: no Chromium']


def test_hnsw_is_built_where_a_gallery_would_choose_it(search: ModuleType) -> None:
    assert search.indexes_for(search.MAX_HNSW) == ['hnsw', 'ivf']
    assert search.indexes_for(search.MAX_HNSW + 1) == ['ivf']


def test_a_user_asks_and_an_error_is_noticed(search: ModuleType) -> None:
    class Connection:
        status = 200

        def request(self, method: str, path: str, body: str, headers: dict) -> None:
            assert (method, path) == ('POST', '/api/search')

        def getresponse(self) -> Connection:
            return self

        def read(self) -> bytes:
            return b'{"results": [{"matches": [' + b'1, ' * 19 + b'1]}]}'

    connection = Connection()
    assert search.ask(connection, 'a man') >= 0
    connection.status = 500
    with pytest.raises(RuntimeError, match='500'):
        search.ask(connection, 'a man')
