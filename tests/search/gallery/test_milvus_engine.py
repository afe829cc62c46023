"""The engine in Milvus, beside the embedded one; test_engine has what both do.

They run in Milvus Lite; ``pytest tests/search/gallery --milvus
http://localhost:19530`` runs them on a server.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gckd_mm.errors import InputError, MissingDataError
from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.gallery import Condition, Gallery, Item, milvus_engine
from gckd_mm.search.gallery.embedded_engine import EmbeddedEngine
from gckd_mm.search.gallery.files import find_images
from gckd_mm.search.gallery.indexing import Share, update
from gckd_mm.search.gallery.items import Stamp
from gckd_mm.search.gallery.milvus_engine import MilvusEngine
from tests.search.gallery import fakes
from tests.search.gallery.engines import (
    SIZE,
    MilvusPlace,
    feats_of,
    fill,
    items_of,
    nearest,
    paths,
    scores,
)


@pytest.fixture
def place(milvus_uri: str) -> MilvusPlace:
    return MilvusPlace.new(milvus_uri)


@pytest.fixture
def engine(place: MilvusPlace) -> Iterator[MilvusEngine]:
    engine = place.open(new=True)
    yield engine
    engine.close()


def random_items(rng: np.random.Generator, count: int) -> tuple[list[Item], np.ndarray]:
    """Items of few paths and fields; half of the vectors are equal to others'."""
    names = rng.choice(400, count, replace=False)
    fields: list[Any] = ['0', '1', 3, 4.5, True, False]
    items = [
        Item(
            f'{name % 7}/{name}.jpg',
            Stamp(int(name), int(rng.integers(2**60))),
            {
                field: fields[rng.integers(len(fields))]
                for field in ('camera', 'level', 'late')
                if rng.random() < 0.7
            },
        )
        for name in names
    ]
    feats = feats_of(count, seed=int(rng.integers(1000)))
    feats[::2] = corners(rng, 4)[rng.integers(4, size=len(feats[::2]))]
    return items, feats


def corners(rng: np.random.Generator, count: int) -> np.ndarray:
    """Vectors of which products are exact, in whatever order they are summed."""
    return rng.choice([-0.25, 0.25], (count, SIZE)).astype(np.float32)


def test_it_finds_what_the_embedded_engine_finds(
    engine: MilvusEngine, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    embedded = EmbeddedEngine(tmp_path, SIZE, 'exact')
    wheres: list[list[Condition]] = [[]]
    wheres += [
        [Condition(field, operator, value)]
        for field, operator, value in itertools.product(
            ('camera', 'late'), ('=', '!=', '<', '>='), ('1', 3, True)
        )
    ]
    wheres.append([Condition('camera', '<=', 4), Condition('level', '!=', '0')])
    for round_ in range(4):
        items, feats = random_items(rng, 150)
        gone = [f'{name % 7}/{name}.jpg' for name in rng.choice(400, 40)]
        for one in (engine, embedded):
            one.upsert(items, feats)
            one.delete(gone)
        by_path = {item.path: item for item in embedded.items()}
        assert {item.path: item for item in engine.items()} == by_path
        assert len(engine) == len(by_path)
        queries = corners(rng, 2)
        for where in wheres:
            found = engine.search(queries, 500, where, exact=round_ % 2 == 0)
            expected = embedded.search(queries, 500, where)
            assert paths(found) == paths(expected)
            for ours, theirs in zip(scores(found), scores(expected), strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-5)
        for one in (engine, embedded):
            one.finish()


@pytest.mark.parametrize('exact', [False, True])
@pytest.mark.parametrize('kind', ['hnsw', 'ivf'])
def test_indexes_find_the_nearest_and_give_their_true_scores(
    place: MilvusPlace, monkeypatch: pytest.MonkeyPatch, kind: str, exact: bool
) -> None:
    # all lists: a few random vectors have no neighbourhoods to be found by
    monkeypatch.setattr(milvus_engine, '_PROBES', 128)
    engine = place._replace(index=kind).open(new=True)
    fill(engine)
    assert engine.describe()['index'] == kind
    queries = feats_of(7, seed=1)
    where = [Condition('pid', '>', 50)]
    found = engine.search(queries, 5, where, exact)
    feats = feats_of(300)[51:]
    assert paths(found) == nearest(items_of(300)[51:], feats, queries, 5)
    best = np.sort(queries @ feats.T, axis=1)[:, :-6:-1]
    np.testing.assert_allclose(scores(found), best, atol=1e-6)
    engine.close()


def test_the_kind_of_index_follows_the_number_of_items(
    engine: MilvusEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('gckd_mm.search.gallery.vector_index.MAX_EXACT', 10)
    monkeypatch.setattr('gckd_mm.search.gallery.vector_index.MAX_HNSW', 20)
    kinds = []
    for count in (10, 20, 300, 5):
        engine.delete([item.path for item in items_of(300)])
        fill(engine, count)
        kinds.append(engine.describe()['index'])
        assert len(engine.search(feats_of(1), 5)[0]) == 5
    assert kinds == ['exact', 'hnsw', 'ivf', 'exact']


def test_a_kill_between_two_indexes_is_mended(place: MilvusPlace) -> None:
    engine = place.open(new=True)
    fill(engine, 20)
    engine._call('release_collection')
    engine._call('drop_index', index_name='feat')
    engine.close()
    again = place.open()
    assert paths(again.search(feats_of(20)[3:4], 1)) == [['00003.jpg']]
    again.close()


def test_what_is_large_goes_in_parts(
    engine: MilvusEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_engine, '_MAX_IDS', 7)
    monkeypatch.setattr(milvus_engine, '_MAX_BYTES', 20_000)
    monkeypatch.setattr(milvus_engine, '_PAGE', 32)
    monkeypatch.setattr(milvus_engine, '_MAX_TOP_K', 50)
    calls: list[str] = []
    call = engine._call
    monkeypatch.setattr(
        engine,
        '_call',
        lambda name, *a, **o: (calls.append(name), call(name, *a, **o))[1],
    )
    items, feats = items_of(300), feats_of(300)
    engine.upsert(items, feats)
    engine.delete([item.path for item in items[:20]])
    engine.upsert(items[:20], feats[:20])
    assert sorted(engine.items()) == items
    names = [item.path for item in items]
    assert engine.get(names) == items
    np.testing.assert_array_equal(engine.feats_of(names), feats)
    assert engine.field_values(3) == {'camera': ['0', '1', '2'], 'pid': []}
    queries = feats_of(9, seed=1)
    for top_k in (2, 50, 51, 400):
        found = paths(engine.search(queries, top_k))
        assert found == nearest(items, feats, queries, top_k)
    counts = {name: calls.count(name) for name in calls}
    assert counts['upsert'] == 300 // 18 + 1 + 2
    assert counts['delete'] == 3
    assert counts['search'] == 1 + 9


def test_collections_do_not_mix(place: MilvusPlace, engine: MilvusEngine) -> None:
    fill(engine, 10)
    other = MilvusPlace.new(place.uri).open(new=True)
    assert len(other) == 0
    other.upsert(items_of(5), feats_of(5, seed=1))
    assert (len(other), len(engine)) == (5, 10)
    other.close()
    assert paths(engine.search(feats_of(10), 1)) == [[x.path] for x in items_of(10)]


def test_a_collection_that_is_not_there(place: MilvusPlace) -> None:
    with pytest.raises(MissingDataError, match=r'has no collection test_\w+: is it'):
        place.open()


def test_a_kill_leaves_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip('milvus_lite')
    engine = MilvusPlace(str(tmp_path / 'live.db'), 'one').open(new=True)
    for start in range(0, 60, 20):
        engine.upsert(items_of(20, first=start), feats_of(60)[start : start + 20])
    engine.delete(['00000.jpg'])
    # what a process that ends here leaves on the disk
    shutil.copytree(tmp_path / 'live.db', tmp_path / 'killed.db')
    engine.close()
    again = MilvusPlace(str(tmp_path / 'killed.db'), 'one').open()
    assert sorted(again.items()) == items_of(60)[1:]
    fill(again, 60)
    assert sorted(again.items()) == items_of(60)
    assert paths(again.search(feats_of(60), 1)) == [[x.path] for x in items_of(60)]
    again.close()


def test_what_the_server_refuses_is_told(
    engine: MilvusEngine, caplog: pytest.LogCaptureFixture
) -> None:
    fill(engine, 5)
    engine._call('release_collection')
    with pytest.raises(InputError, match=r'Milvus says: .*(load|release)'):
        engine.search(feats_of(1), 5)
    assert not caplog.records


@pytest.fixture
def root(tmp_path: Path) -> Path:
    names = [f'{n // 10}/{n:03d}.jpg' for n in range(100)]
    fakes.write_images(tmp_path / 'crops', names)
    return tmp_path / 'crops'


@pytest.fixture
def gallery(milvus_uri: str, tmp_path: Path, root: Path) -> Iterator[Gallery]:
    gallery = Gallery.create(
        tmp_path / 'gallery', fakes.FAKE, 'f00', fakes.SIZE, root, uri=milvus_uri
    )
    yield gallery
    gallery.close()


def check(gallery: Gallery, root: Path) -> None:
    """Compare a gallery with the files that are there."""
    images = {image.path: image for image in find_images(root)}
    items = list(gallery.engine.items())
    assert sorted(item.path for item in items) == sorted(images)
    assert len(gallery) == len(images)
    names = list(images)
    feats = np.array(
        [fakes.embedding(Path(images[name].file).read_bytes()) for name in names]
    )
    np.testing.assert_array_equal(gallery.engine.feats_of(names), feats)
    assert paths(gallery.search(feats, 1)) == [[name] for name in names]


@pytest.mark.parametrize('kill_after', [1, 71])
def test_indexing_that_was_killed_goes_on_without_double_items(
    gallery: Gallery, root: Path, kill_after: int
) -> None:
    images = find_images(root)
    with pytest.raises(KeyboardInterrupt):
        update(gallery, fakes.FakeInferencer(kill_after), images, batch_size=2)
    gallery.close()
    with Gallery.open(gallery.folder) as again:
        kept = len(again)
        assert kill_after - 16 <= kept <= kill_after
        inferencer = fakes.FakeInferencer()
        done = update(again, inferencer, images, batch_size=2)
        assert (done.added, done.unchanged) == (100 - kept, kept)
        assert len(inferencer.encoded) == 100 - kept
        check(again, root)


def test_two_shares_fill_one_gallery(gallery: Gallery, root: Path) -> None:
    images = find_images(root)
    added = []
    for rank in (0, 1, 1):  # the second is killed when it is done, and runs again
        with Gallery.open(gallery.folder) as opened:
            share = Share(rank, 2)
            done = update(opened, fakes.FakeInferencer(), images, share=share)
            added.append(done.added)
    assert added[0] + added[1] == 100
    assert min(added[:2]) > 20
    assert added[2] == 0
    check(gallery, root)
    (root / '0/003.jpg').unlink()
    fakes.write_images(root, ['new.jpg'])
    for rank in (0, 1):
        images = find_images(root)
        update(gallery, fakes.FakeInferencer(), images, share=Share(rank, 2))
    check(gallery, root)


def test_a_gallery_remembers_all_but_its_token(milvus_uri: str, tmp_path: Path) -> None:
    created = Gallery.create(
        tmp_path / 'a', fakes.FAKE, 'f00', SIZE, uri=milvus_uri, token='very:secret'
    )
    created.engine.upsert(items_of(3), feats_of(3))
    created.close()
    text = (tmp_path / 'a/gallery.json').read_text()
    assert 'secret' not in text
    settings = json.loads(text)
    assert (settings['engine'], settings['uri']) == ('milvus', milvus_uri)
    assert settings['collection'].startswith('gckd_f00_')
    # a copy of the folder, on another machine, opens the same gallery
    (tmp_path / 'a').rename(tmp_path / 'b')
    with Gallery.open(tmp_path / 'b', token='very:secret') as again:
        assert len(again.similar_to('00000.jpg')) == 2
        info = again.info()
    assert (info['engine'], info['items'], info['index']) == ('milvus', 3, 'exact')


def test_a_file_in_the_folder_moves_with_it(tmp_path: Path) -> None:
    pytest.importorskip('milvus_lite')
    folder, uri = tmp_path / 'a', str(tmp_path / 'a/gallery.db')
    with Gallery.create(folder, fakes.FAKE, 'f00', SIZE, uri=uri) as gallery:
        gallery.engine.upsert(items_of(3), feats_of(3))
    folder.rename(tmp_path / 'b')
    with Gallery.open(tmp_path / 'b') as again:
        assert again.settings['uri'] == 'gallery.db'
        assert sorted(again.engine.items()) == items_of(3)


def test_an_inferencer_makes_one(milvus_uri: str, tmp_path: Path) -> None:
    encoder: Any = SimpleNamespace(
        name='fake', source=None, fingerprint='f-00', embedding_size=SIZE
    )
    inferencer = PersonSearchInferencer(encoder)
    with inferencer.new_gallery(tmp_path / 'g', uri=milvus_uri) as gallery:
        assert isinstance(gallery.engine, MilvusEngine)
        assert gallery.settings['collection'].startswith('gckd_f_00_')
