"""A search whose first matches are ordered anew, against doing it by hand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from gckd_mm.checkpoint import config_of, read_checkpoint
from gckd_mm.errors import InputError
from gckd_mm.evaluation.gallery_reranking import rerank_candidates
from gckd_mm.models.heads import ImageTextMatchingHead
from gckd_mm.search.apis import PersonSearchInferencer, Query
from gckd_mm.search.apis.search_reranking import SearchReranking
from gckd_mm.search.gallery import Gallery
from gckd_mm.search.gallery.files import find_images
from gckd_mm.search.gallery.indexing import update

SYNTHCLIP = 'gckd_mm://synthclip_tiny_web'
QUERY = 'a man in a blue shirt'


@pytest.fixture(scope='module')
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('crops')
    rng = np.random.default_rng(0)
    for n in range(16):
        coarse = rng.integers(0, 256, (8, 4, 3), dtype=np.uint8)
        crop = cv2.resize(coarse, (40, 100), interpolation=cv2.INTER_CUBIC)
        Image.fromarray(crop).save(root / f'{n:02d}.png')
    return root


@pytest.fixture(scope='module')
def plain() -> PersonSearchInferencer:
    return PersonSearchInferencer(SYNTHCLIP, device='cpu', show_progress=False)


@pytest.fixture(scope='module')
def with_matching(
    plain: Any, tmp_path_factory: pytest.TempPathFactory
) -> PersonSearchInferencer:
    """SynthCLIP with a matching head, whose weights are drawn."""
    checkpoint = read_checkpoint(SYNTHCLIP)
    model = plain.encoder.model
    with torch.inference_mode():
        _, maps = model.embed_images(torch.zeros(1, 3, 64, 32))
        ids = torch.ones(1, 4, dtype=torch.int64)
        words = {'input_ids': ids, 'attention_mask': ids.bool()}
        _, tokens = model.embed_captions(words)
    channels = {
        'image_channels': maps[-1].shape[1],
        'caption_channels': tokens.shape[2],
    }
    torch.manual_seed(0)
    head = ImageTextMatchingHead(**channels)
    torch.nn.init.normal_(head.classifier.weight, std=0.5)
    weights = {f'matching.{name}': value for name, value in head.state_dict().items()}
    cfg = config_of(checkpoint, SYNTHCLIP)
    cfg.model.matching = dict(type='ImageTextMatchingHead', **channels)
    path = tmp_path_factory.mktemp('checkpoints') / 'matching.pth'
    checkpoint['meta']['cfg'] = cfg.pretty_text
    checkpoint['state_dict'].update(weights)
    torch.save(checkpoint, path)
    return PersonSearchInferencer(path, device='cpu', show_progress=False)


@pytest.fixture(scope='module')
def gallery(
    plain: PersonSearchInferencer, crops: Path, tmp_path_factory: Any
) -> Iterator[Gallery]:
    folder = tmp_path_factory.mktemp('galleries') / 'crops'
    with plain.new_gallery(folder, crops) as gallery:
        update(gallery, plain, find_images(crops))
        yield gallery


@pytest.mark.parametrize('method', ['k_reciprocal', 'propagation'])
def test_the_first_matches_are_ordered_by_what_they_have_in_common(
    plain: PersonSearchInferencer, gallery: Gallery, method: str
) -> None:
    chosen = dict(method=method, top=9, seeds=3)
    (before,) = plain.search(gallery, [QUERY], top_k=16)
    (after,) = plain.search(gallery, [QUERY], top_k=16, rerank=chosen)
    feats = plain.encode_images([gallery.file_of(m.item) for m in before[:9]])
    order, _ = rerank_candidates(plain.encode_query(QUERY), feats, method, seeds=3)
    assert order.tolist() != list(range(9))
    assert after == [before[row] for row in order] + before[9:]
    (first,) = plain.search(gallery, [QUERY], top_k=3, rerank=chosen)
    assert first == after[:3]


def test_the_matching_head_compares_the_first_matches_with_the_text(
    with_matching: Any, plain: PersonSearchInferencer, gallery: Gallery
) -> None:
    assert with_matching.fingerprint == plain.fingerprint
    query = Query(QUERY, without='a backpack')
    (before,) = plain.search(gallery, [query], top_k=16)
    chosen = dict(method='matching', top=10, weight=0.3)
    (after,) = with_matching.search(gallery, [query], top_k=16, rerank=chosen)
    encoder = with_matching.encoder
    scores = []
    for match in before[:10]:
        prepared = encoder.prepare(gallery.file_of(match.item))
        (logit,) = encoder.match(QUERY, [prepared])
        scores.append(match.score + 0.3 / (1 + np.exp(-logit)))
    order = np.argsort(-np.array(scores), kind='stable')
    assert order.tolist() != list(range(10))
    assert after == [before[row] for row in order] + before[10:]


def test_logits_are_those_of_the_head(with_matching: Any, crops: Path) -> None:
    encoder, files = with_matching.encoder, sorted(map(str, crops.iterdir()))
    prepared = [encoder.prepare(file) for file in files]
    together = encoder.match(QUERY, prepared)
    model, head = encoder.model, encoder._matching
    batch = {'inputs': {'images': prepared, 'captions': [QUERY] * len(files)}}
    inputs = model.data_preprocessor(batch)['inputs']
    with torch.inference_mode():
        expected = head.score(
            head.tokens_of_images(model.embed_images(inputs['images'])[1]),
            head.tokens_of_captions(model.embed_captions(inputs['captions'])[1]),
            inputs['captions']['attention_mask'],
        )
    np.testing.assert_allclose(together, expected, atol=1e-5)
    assert encoder.match(QUERY, []).shape == (0,)


def test_a_picture_that_is_gone_matches_nothing(
    with_matching: PersonSearchInferencer, crops: Path, tmp_path: Path
) -> None:
    root = tmp_path / 'crops'
    shutil.copytree(crops, root)
    with with_matching.new_gallery(tmp_path / 'gallery', root) as gallery:
        update(gallery, with_matching, find_images(root))
        (before,) = with_matching.search(gallery, [QUERY], top_k=16)
        Path(gallery.file_of(before[0].item)).unlink()
        (after,) = with_matching.search(
            gallery, [QUERY], top_k=16, rerank=dict(method='matching', weight=100.0)
        )
    assert after[-1] == before[0]


@pytest.mark.parametrize(
    ('chosen', 'message'),
    [
        ('magic', "one of matching, k_reciprocal, propagation, got 'magic'"),
        ({}, 'got None'),
        (dict(method='k_reciprocal', top=0), 'top must be at least 1, got 0'),
        (dict(method='k_reciprocal', weight=1.0), 'has no setting weight'),
        (dict(method='matching', k1=8), 'matching has one setting, weight'),
        (dict(method='propagation', alpha=1.0), 'alpha must be between 0 and 1'),
    ],
)
def test_what_is_wrong_with_a_reranking(chosen: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SearchReranking.build(chosen)


def test_a_model_without_a_matching_head_and_a_query_without_words(
    plain: PersonSearchInferencer, with_matching: PersonSearchInferencer, gallery: Any
) -> None:
    with pytest.raises(InputError, match='has no matching head'):
        plain.search(gallery, [QUERY], rerank='matching')
    picture = Path(gallery.file_of(gallery.engine.get(['00.png'])[0]))
    with pytest.raises(InputError, match='the query has none'):
        with_matching.search(gallery, [picture], rerank='matching')
    (found,) = plain.search(gallery, [picture], rerank='k_reciprocal')
    assert found[0].item.path == '00.png'


def test_a_head_that_nobody_has_trained_yet_is_not_asked(
    with_matching: PersonSearchInferencer, gallery: Any, tmp_path: Path
) -> None:
    checkpoint = read_checkpoint(with_matching.encoder.source[0])
    checkpoint['meta']['adaptation_steps'] = 0
    torch.save(checkpoint, tmp_path / 'source.pth')
    inferencer = PersonSearchInferencer(tmp_path / 'source.pth', device='cpu')
    with pytest.raises(InputError, match='no matching head that was trained'):
        inferencer.search(gallery, [QUERY], rerank='matching')
