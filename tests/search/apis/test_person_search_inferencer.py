"""The inferencer, against the test loop and against plain arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from gckd_mm.checkpoint import config_of, read_checkpoint
from gckd_mm.datasets.transforms.load_person_image import read_image
from gckd_mm.errors import InputError
from gckd_mm.registry import DATASETS
from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.apis.person_search_inferencer import Query
from gckd_mm.search.gallery import Gallery, parse_condition
from gckd_mm.search.gallery.files import find_images
from gckd_mm.search.gallery.indexing import update
from tests.training import in_process, last_checkpoint, small_gckd_config, train
from tools import test as test_tool

SYNTHCLIP = 'gckd_mm://synthclip_tiny_web'


@pytest.fixture(scope='module')
def inferencer() -> PersonSearchInferencer:
    return PersonSearchInferencer(SYNTHCLIP, device='cpu', show_progress=False)


@pytest.fixture(scope='module')
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('crops')
    rng = np.random.default_rng(0)
    for n in range(12):
        coarse = rng.integers(0, 256, (8, 4, 3), dtype=np.uint8)
        crop = cv2.resize(coarse, (40 + n, 100), interpolation=cv2.INTER_CUBIC)
        Image.fromarray(crop).save(root / f'{n:02d}.png')
    return root


def paths_in(crops: Path) -> list[str]:
    return sorted(map(str, crops.iterdir()))


def _embed(data: Path, checkpoint: str, out: Path) -> None:
    test_tool.main([checkpoint, '--dump', str(out), '--work-dir', str(out.parent)])


def test_embeddings_are_those_of_the_test(
    miniature: Path, trained: Path, tmp_path: Path
) -> None:
    checkpoint = str(last_checkpoint(trained))
    assert in_process(_embed, miniature, checkpoint, tmp_path / 'dump.npz') == 0
    dump = np.load(tmp_path / 'dump.npz')
    inferencer = PersonSearchInferencer(checkpoint, device='cpu', show_progress=False)
    cfg = Config.fromstring(read_checkpoint(checkpoint)['meta']['cfg'], '.py')
    for role, encode, key in (
        ('gallery', inferencer.encode_images, 'img_path'),
        ('query', inferencer.encode_texts, 'caption'),
    ):
        modality = {'gallery': 'images', 'query': 'captions'}[role]
        with DefaultScope.overwrite_default_scope('gckd_mm'):
            dataset: Any = DATASETS.build(cfg.test_dataloader.rstpreid[role].dataset)
        inputs = [dataset.get_data_info(n)[key] for n in range(len(dataset))]
        feats = encode(inputs, batch_size=5)
        prefix = f'rstpreid/{modality}'
        order = np.argsort(dump[f'{prefix}/indices'])
        expected = dump[f'{prefix}/feats'][order]
        np.testing.assert_allclose(feats, expected, atol=1e-5)


def _train_gckd(data: Path, work_dir: Path) -> None:
    train(small_gckd_config(data, work_dir))


def test_of_an_adapted_model_the_encoders_are_read(
    miniature: Path, tmp_path: Path
) -> None:
    assert in_process(_train_gckd, miniature, tmp_path / 'work') == 0
    checkpoint = last_checkpoint(tmp_path / 'work')
    inferencer = PersonSearchInferencer(checkpoint, device='cpu')
    assert type(inferencer.encoder.model).__name__ == 'DualEncoder'  # type: ignore[attr-defined]
    assert inferencer.encode_texts(['a man']).shape == (1, 16)
    # with the config file: the same model
    small_gckd_config(miniature, tmp_path).dump(tmp_path / 'config.py')
    by_config = PersonSearchInferencer(tmp_path / 'config.py', checkpoint, 'cpu')
    assert by_config.fingerprint == inferencer.fingerprint


def test_a_picture_is_the_same_from_a_path_an_array_and_pillow(
    inferencer: PersonSearchInferencer, crops: Path
) -> None:
    paths = paths_in(crops)
    from_paths = inferencer.encode_images(paths)
    arrays = [read_image(path) for path in paths]
    np.testing.assert_array_equal(inferencer.encode_images(arrays), from_paths)
    pictures = [Image.open(path) for path in paths]
    np.testing.assert_array_equal(inferencer.encode_images(pictures), from_paths)


def test_embeddings_do_not_depend_on_their_batch(
    inferencer: PersonSearchInferencer, crops: Path
) -> None:
    paths = paths_in(crops)
    together = inferencer.encode_images(paths)
    np.testing.assert_allclose(
        inferencer.encode_images(paths, batch_size=1), together, atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    texts = ['a man', 'a woman in a red coat with a white backpack', '']
    np.testing.assert_allclose(
        inferencer.encode_texts(texts, batch_size=1),
        inferencer.encode_texts(texts),
        atol=1e-6,
    )


def test_nothing_gives_nothing(inferencer: PersonSearchInferencer) -> None:
    size = inferencer.embedding_size
    assert inferencer.encode_images([]).shape == (0, size)
    assert inferencer.encode_texts([]).shape == (0, size)


def test_what_cannot_be_read_is_named_or_left_out(
    inferencer: PersonSearchInferencer, crops: Path, tmp_path: Path
) -> None:
    bad = tmp_path / 'bad.jpg'
    bad.write_bytes(b'nothing')
    paths = [*paths_in(crops)[:3], str(bad), *paths_in(crops)[3:5]]
    with pytest.raises(InputError, match=r'bad\.jpg: not an image'):
        inferencer.encode_images(paths)
    batches = list(inferencer.iter_encoded(paths, batch_size=4))
    assert [batch.rows for batch in batches] == [[0, 1, 2], [4, 5]]
    assert [list(batch.unreadable) for batch in batches] == [[3], []]
    feats = np.concatenate([batch.feats for batch in batches])
    good = inferencer.encode_images(paths_in(crops)[:5])
    np.testing.assert_allclose(feats, good, atol=1e-6)


def test_a_query_is_words_and_picture_less_half_of_what_is_unwanted(
    inferencer: PersonSearchInferencer, crops: Path
) -> None:
    path = crops / '03.png'
    red, bag = inferencer.encode_texts(['a red coat', 'a backpack'])
    (picture,) = inferencer.encode_images([path])
    for query, expected in (
        ('a red coat', red),
        (Query('a red coat'), red),
        (path, picture),
        (Query('a red coat', 'a backpack'), red - bag / 2),
        (Query('a red coat', ' ', path), red + picture),
        (Query('a red coat', 'a backpack', path), red + picture - bag),
    ):
        np.testing.assert_allclose(
            inferencer.encode_query(query),
            expected / np.linalg.norm(expected),
            atol=1e-6,
        )


@pytest.mark.parametrize(
    ('query', 'message'),
    [
        ('', 'needs a description or a picture'),
        ('  ', 'needs a description or a picture'),
        (Query(without='a backpack'), 'needs a description or a picture'),
        ('a' * 10_000, 'at most 2000 characters, got 10000'),
        (Query('a', 'b' * 10_000), 'at most 2000 characters, got 10000'),
        (3, 'must be a path, an array or a Pillow image'),
    ],
)
def test_a_bad_query(
    inferencer: PersonSearchInferencer, query: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        inferencer.encode_query(query)


def test_lists_are_lists(inferencer: PersonSearchInferencer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='must be a list of strings'):
        inferencer.encode_texts('a man')
    with pytest.raises(InputError, match='queries must be a list'):
        inferencer.search(tmp_path, 'a man')


def test_one_image_is_no_list(inferencer: PersonSearchInferencer, crops: Path) -> None:
    path = crops / '03.png'
    with Image.open(path) as picture:
        for single in (str(path), path, picture, np.asarray(picture), None, 3):
            with pytest.raises(InputError, match='images must be a list of pictures'):
                inferencer.encode_images(single)  # type: ignore[arg-type]
            if not isinstance(single, str):
                with pytest.raises(InputError, match='queries must be a list'):
                    inferencer.query_warnings(single)  # type: ignore[arg-type]
    stacked = np.stack([read_image(str(path))] * 2)
    assert len(inferencer.encode_images(stacked)) == 2


def test_generators_have_no_length(
    inferencer: PersonSearchInferencer, crops: Path
) -> None:
    paths = paths_in(crops)
    feats = inferencer.encode_images(path for path in paths)
    np.testing.assert_array_equal(feats, inferencer.encode_images(paths))
    shown = inferencer.encode_images((x for x in paths), batch_size=5, progress=True)
    np.testing.assert_allclose(shown, feats, atol=1e-6)
    words = inferencer.encode_texts(text for text in ('a man', 'a woman'))
    assert len(words) == 2


@pytest.mark.parametrize(
    ('texts', 'message'),
    [
        (b'a man', 'must be a list of strings, got one bytes'),
        (None, 'must be a list of strings, got one NoneType'),
        (['a man', 3], r'texts\[1\] must be a string, got int'),
        (['a\udcff'], r'texts\[0\] is not valid Unicode'),
    ],
)
def test_texts_that_are_none(
    inferencer: PersonSearchInferencer, texts: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        inferencer.encode_texts(texts)


@pytest.mark.parametrize('size', [0, -1, 2.5, '8'])
def test_a_batch_has_at_least_one(
    inferencer: PersonSearchInferencer, size: Any
) -> None:
    for encode in (inferencer.encode_texts, inferencer.encode_images):
        with pytest.raises(InputError, match='batch_size must be at least 1'):
            encode(['a'], batch_size=size)


@pytest.mark.parametrize(
    ('query', 'message'),
    [
        (Query(None), 'must be a string, got NoneType'),  # type: ignore[arg-type]
        (Query('a', None), 'must be a string, got NoneType'),  # type: ignore[arg-type]
        ('a\udcff', 'the text of a query is not valid Unicode'),
        (Query('a', 'b\0'), 'holds a NUL'),
    ],
)
def test_a_query_of_what_is_no_text(
    inferencer: PersonSearchInferencer, query: Query, message: str
) -> None:
    for ask in (inferencer.encode_query, lambda x: inferencer.query_warnings([x])):
        with pytest.raises(InputError, match=message):
            ask(query)


class _Broken:
    """An encoder with some embeddings of its own."""

    embedding_size = 4

    def __init__(self, feats: np.ndarray) -> None:
        self.feats = feats

    def prepare(self, image: Any) -> Any:
        return image

    def embed_images(self, prepared: Any) -> np.ndarray:
        return self.feats[: len(prepared)]

    embed_captions = embed_images


@pytest.mark.parametrize('number', [np.nan, np.inf, -np.inf])
def test_embeddings_that_are_not_finite_are_refused(number: float) -> None:
    feats = np.eye(4, dtype=np.float32)
    feats[1, 2] = feats[3, 0] = number
    inferencer = PersonSearchInferencer(_Broken(feats), show_progress=False)  # type: ignore[arg-type]
    image = np.zeros((4, 2, 3), np.uint8)
    with pytest.raises(InputError, match=r"2 of 4 embeddings .* that of 'image 1'"):
        inferencer.encode_images([image] * 4)
    with pytest.raises(InputError, match=r"2 of 4 embeddings .* that of 'b'"):
        inferencer.encode_texts(['a', 'b', 'c', 'd'])
    with pytest.raises(InputError, match='not finite'):
        inferencer.encode_query(Query('a', 'b'))


def test_a_query_of_which_nothing_is_left(crops: Path) -> None:
    feats = np.array([[1, 0, 0, 0]], np.float32)
    inferencer = PersonSearchInferencer(_Broken(feats), show_progress=False)  # type: ignore[arg-type]
    inferencer.encoder.embed_images = lambda prepared: -feats  # type: ignore[method-assign]
    with pytest.raises(InputError, match="nothing is left of the query 'a', ndarray"):
        inferencer.encode_query(Query('a', image=np.zeros((4, 2, 3), np.uint8)))
    # half of what is unwanted is left
    np.testing.assert_array_equal(inferencer.encode_query(Query('a', 'a')), feats[0])


def test_wide_images_are_counted(inferencer: PersonSearchInferencer) -> None:
    tall, wide = np.zeros((20, 10, 3), np.uint8), np.zeros((10, 20, 3), np.uint8)
    batches = inferencer.iter_encoded([tall, wide, wide, tall[:10]], batch_size=2)
    assert [batch.num_wide for batch in batches] == [1, 1]


def test_warnings_are_of_each_query(
    inferencer: PersonSearchInferencer, crops: Path
) -> None:
    fine, unknown, negated, without, image = inferencer.query_warnings(
        [
            'a woman in a red coat',
            'xqzt 红色',
            'a man without a hat',
            Query('a man', 'asdfgh'),
            crops / '03.png',
        ]
    )
    assert fine == image == []
    assert [x.count('none of the words is known') for x in unknown] == [1]
    assert "'xqzt', '红色'" in unknown[0]
    assert '--without "a hat"' in negated[0]
    assert without[0].startswith('without: none of the words')


def test_where_is_a_list_of_conditions(
    inferencer: PersonSearchInferencer, crops: Path, tmp_path: Path
) -> None:
    with inferencer.new_gallery(tmp_path / 'g', crops) as gallery:
        update(gallery, inferencer, find_images(crops))
        for where in ('camera=3', ['camera=3'], parse_condition('camera=3')):
            with pytest.raises(InputError, match='where must be a list of conditions'):
                inferencer.search(gallery, ['a man'], where=where)  # type: ignore[arg-type]
        where = [parse_condition('camera=3')]
        for rerank in (None, 'k_reciprocal'):
            with pytest.raises(InputError, match='no item has a field camera'):
                inferencer.search(gallery, ['a man'], where=where, rerank=rerank)
        for top_k in (0, -1, 2.5, '3', None, True):
            with pytest.raises(InputError, match='top_k must be at least 1'):
                inferencer.search(gallery, ['a man'], top_k=top_k)  # type: ignore[arg-type]
        for huge in (10**6, 10**30):
            (found,) = inferencer.search(gallery, (x for x in ['a man']), huge)  # type: ignore[arg-type]
            assert len(found) == 12
        with pytest.raises(InputError, match='query 0: its embedding is not finite'):
            gallery.search(np.full((1, inferencer.embedding_size), np.nan))
        with pytest.raises(InputError, match='queries must be numbers'):
            gallery.search(['a man'])  # type: ignore[arg-type]


def test_a_search_finds_the_nearest_of_a_gallery(
    inferencer: PersonSearchInferencer, crops: Path, tmp_path: Path
) -> None:
    fields = {f'{n:02d}.png': {'camera': str(n % 2)} for n in range(12)}
    folder = tmp_path / 'gallery'
    with inferencer.new_gallery(folder, crops) as gallery:
        update(gallery, inferencer, find_images(crops, fields))
        similar = gallery.similar_to('05.png', 3)
    text, picture = 'a man in a blue shirt', crops / '05.png'
    queries = [text, picture, Query(text, 'a backpack', picture)]
    found = inferencer.search(folder, queries, top_k=4)
    feats = np.stack([inferencer.encode_query(query) for query in queries])
    scores = feats @ inferencer.encode_images(paths_in(crops)).T
    for row, matches in enumerate(found):
        order = np.argsort(-scores[row])[:4]
        assert [m.item.path for m in matches] == [f'{n:02d}.png' for n in order]
        expected = scores[row, order]
        np.testing.assert_allclose([m.score for m in matches], expected, atol=1e-6)
    assert found[1][0].item.path == '05.png'
    assert [m.item.path for m in similar] == [m.item.path for m in found[1][1:]]
    where = [parse_condition('camera=1')]
    (odd,) = inferencer.search(folder, queries[:1], 12, where)
    assert sorted(m.item.path for m in odd) == [f'{n:02d}.png' for n in range(1, 12, 2)]
    assert inferencer.search(folder, []) == []


def test_a_gallery_of_another_model_is_refused(
    inferencer: PersonSearchInferencer, tmp_path: Path
) -> None:
    size = inferencer.embedding_size
    Gallery.create(
        tmp_path / 'gallery', {'model': 'other', 'source': None}, 'f00', size
    ).close()
    with pytest.raises(InputError, match='was built by another model'):
        inferencer.search(tmp_path / 'gallery', ['a man'])


def test_the_fingerprint_tells_weights_words_and_preprocessing_apart(
    inferencer: PersonSearchInferencer, tmp_path: Path
) -> None:
    checkpoint = read_checkpoint(SYNTHCLIP)
    seen = {inferencer.fingerprint}

    def fingerprint(checkpoint: dict) -> str:
        torch.save(checkpoint, tmp_path / 'changed.pth')
        return PersonSearchInferencer(tmp_path / 'changed.pth').fingerprint

    assert fingerprint(checkpoint) in seen
    config = checkpoint['meta']['cfg']
    for old, new in (
        ("interpolation='area'", "interpolation='bilinear'"),
        ('max_length=77', 'max_length=40'),
        (
            "type='PersonTextPreprocessor'",
            "type='PersonTextPreprocessor', mean=[1, 2, 3]",
        ),
    ):
        assert old in config
        changed = {**checkpoint['meta'], 'cfg': config.replace(old, new)}
        seen.add(fingerprint({**checkpoint, 'meta': changed}))
    weights = dict(checkpoint['state_dict'])
    name = next(n for n in weights if n.startswith('text_neck') and 'weight' in n)
    weights[name] = weights[name] + 1e-6
    seen.add(fingerprint({**checkpoint, 'state_dict': weights}))
    words = dict(checkpoint['state_dict'])
    (name,) = (n for n in words if n.endswith('tokenizer._extra_state'))
    words[name] = torch.tensor(
        list(bytes(words[name].tolist()).replace(b'"red"', b'"rex"')), dtype=torch.uint8
    )
    seen.add(fingerprint({**checkpoint, 'state_dict': words}))
    assert len(seen) == 6


@pytest.mark.parametrize(
    ('model', 'weights', 'message'),
    [
        ('none.pth', None, 'does not exist'),
        ('none.py', 'none.pth', 'does not exist'),
        ('none.py', None, 'a checkpoint alone, or a config'),
        ('a.pth', 'b.pth', 'a checkpoint alone, or a config'),
        ('gckd_mm://none', None, 'the package has no such weights'),
    ],
)
def test_a_model_that_is_not_there(
    model: str, weights: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        PersonSearchInferencer(model, weights)


def test_test_sets_that_read_their_images_differently_are_refused(
    tmp_path: Path,
) -> None:
    cfg = config_of(read_checkpoint(SYNTHCLIP), SYNTHCLIP)
    cfg.test_dataloader.mall.gallery.dataset.pipeline[1].interpolation = 'nearest'
    with pytest.raises(InputError, match='read their images differently'):
        PersonSearchInferencer(cfg, SYNTHCLIP)
    cfg.test_dataloader = None
    with pytest.raises(InputError, match='has no test_dataloader'):
        PersonSearchInferencer(cfg, SYNTHCLIP)
