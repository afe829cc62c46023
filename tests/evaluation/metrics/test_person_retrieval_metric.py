"""The metric gathers, orders and scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gckd_mm.errors import InputError
from gckd_mm.evaluation import rank_metrics
from gckd_mm.evaluation.metrics import PersonRetrievalMetric

GALLERY, QUERIES, DIM = 12, 7, 5


def _samples(modality: str, count: int, seed: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    feats = torch.nn.functional.normalize(
        torch.randn(count, DIM, generator=generator), dim=1
    )
    return [
        {'feat': feat, 'modality': modality, 'pid': index % 4, 'sample_idx': index}
        for index, feat in enumerate(feats)
    ]


def _expected() -> dict[str, float]:
    images, captions = _samples('images', GALLERY, 0), _samples('captions', QUERIES, 1)
    return rank_metrics(
        torch.stack([sample['feat'] for sample in captions]),
        torch.stack([sample['feat'] for sample in images]),
        [sample['pid'] for sample in captions],
        [sample['pid'] for sample in images],
    )


@pytest.mark.parametrize('batch_size', [1, 3, 100])
def test_batches_in_any_order_with_repeated_samples(batch_size: int) -> None:
    metric = PersonRetrievalMetric()
    metric.dataset_meta = {'test_set': 'mall'}
    for samples in (_samples('images', GALLERY, 0), _samples('captions', QUERIES, 1)):
        padded = samples + samples[:2]  # as a sampler pads for the last rank
        for start in reversed(range(0, len(padded), batch_size)):
            metric.process(None, padded[start : start + batch_size])
    assert metric.evaluate(GALLERY + QUERIES) == _expected()
    images = metric.embeddings['mall']['images']
    assert images.indices.tolist() == list(range(GALLERY))
    assert images.feats.dtype == np.float32
    # A second test set starts anew.
    metric.dataset_meta = {'test_set': 'campus'}
    metric.process(None, _samples('images', 3, 2))
    metric.process(None, _samples('captions', 2, 3))
    assert metric.evaluate(5)['num_queries'] == 2
    assert set(metric.embeddings) == {'mall', 'campus'}


def test_half_precision_embeddings_are_scored_in_float32() -> None:
    metric = PersonRetrievalMetric(ks=(2,), prefix='half')
    for samples in (_samples('images', GALLERY, 0), _samples('captions', QUERIES, 1)):
        for sample in samples:
            sample['feat'] = sample['feat'].bfloat16()
        metric.process(None, samples)
    assert 'half/R2' in metric.evaluate(GALLERY + QUERIES)


def test_a_sample_that_was_not_embedded_is_an_error() -> None:
    metric = PersonRetrievalMetric()
    metric.process(None, _samples('images', GALLERY - 1, 0))
    metric.process(None, _samples('captions', QUERIES, 1))
    with pytest.raises(RuntimeError, match='18 of 19 images and captions'):
        metric.evaluate(GALLERY + QUERIES)
    with pytest.raises(RuntimeError, match='no images were embedded'):
        metric.evaluate(GALLERY + QUERIES)


def test_the_gallery_may_be_propagated_over_its_own_graph() -> None:
    neck = {'layer': 'parameter_free', 'num_layers': 1, 'k': 2, 'share': 0.4}
    metric = PersonRetrievalMetric(
        prefix='propagated',
        gallery_neck={
            'type': 'gckd_mm.GraphPropagationNeck',
            'in_channels': DIM,
            **neck,
        },
    )
    images, captions = _samples('images', GALLERY, 0), _samples('captions', QUERIES, 1)
    for samples in (images, captions):
        metric.process(None, samples)

    scores = metric.evaluate(GALLERY + QUERIES)

    x = torch.stack([sample['feat'] for sample in images])
    expected = []
    for i in range(GALLERY):
        near = sorted(
            (j for j in range(GALLERY) if j != i), key=lambda j: -float(x[i] @ x[j])
        )[:2]
        weights = torch.tensor([float(x[i] @ x[j]) / 0.1 for j in near]).softmax(0)
        heard = sum(w * x[j] for w, j in zip(weights, near, strict=True))
        expected.append(torch.nn.functional.normalize(0.6 * x[i] + 0.4 * heard, dim=0))
    plain = rank_metrics(
        torch.stack([sample['feat'] for sample in captions]),
        torch.stack(expected),
        [sample['pid'] for sample in captions],
        [sample['pid'] for sample in images],
    )
    assert scores == {f'propagated/{name}': value for name, value in plain.items()}


def test_a_gallery_neck_must_not_have_weights() -> None:
    neck = {'type': 'gckd_mm.GraphPropagationNeck', 'in_channels': DIM}
    with pytest.raises(InputError, match='parameter_free'):
        PersonRetrievalMetric(gallery_neck=neck)
