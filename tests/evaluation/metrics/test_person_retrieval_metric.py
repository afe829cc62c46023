"""The metric gathers, orders and scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gckd_mm.errors import InputError
from gckd_mm.evaluation import rank_metrics, top_matches
from gckd_mm.evaluation.gallery_reranking import build_reranker, rerank_with_gallery
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
    neck = {'layer': 'parameter_free', 'num_layers': 1, 'k': 2, 'alpha': 0.4}
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


def _with_tokens(samples: list[dict[str, Any]], length: int) -> list[dict[str, Any]]:
    """Give each sample tokens that hold its index, and NaN where there are none."""
    for sample in samples:
        tokens = torch.full((length, 2), float('nan'), dtype=torch.float16)
        used = length
        if sample['modality'] == 'captions':
            used = 1 + sample['sample_idx'] % length
            sample['token_mask'] = torch.arange(length) < used
        tokens[:used] = sample['sample_idx']
        sample['tokens'] = tokens
    return samples


def _logits() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return 3 * torch.randn(QUERIES, GALLERY, generator=generator)


def _matcher(
    image_tokens: torch.Tensor, caption_tokens: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Look up the logit of each pair by what its tokens hold."""
    assert image_tokens.dtype == caption_tokens.dtype == torch.float32
    assert mask.dtype == torch.bool
    assert mask.shape == caption_tokens.shape[:2]
    captions = [
        int(row[seen].mean()) for row, seen in zip(caption_tokens, mask, strict=True)
    ]
    images = [int(row.mean()) for row in image_tokens]
    return _logits()[captions, images]


def _process_in_batches(metric: PersonRetrievalMetric) -> None:
    """Show images and captions backwards, the captions' batches of unequal length."""
    images = _with_tokens(_samples('images', GALLERY, 0), 3)
    captions = _samples('captions', QUERIES, 1)
    for start in range(GALLERY - 4, -1, -4):
        metric.process(None, images[start : start + 4])
    metric.process(None, _with_tokens(captions[4:], 5))
    metric.process(None, _with_tokens(captions[:4], 2))
    metric.process(None, _with_tokens(captions[:1], 2))  # as a sampler repeats one


@pytest.mark.parametrize(('top', 'weight'), [(4, 1.0), (4, 0.2), (100, 2.0)])
def test_reranked_scores_are_those_of_a_loop(top: int, weight: float) -> None:
    metric = PersonRetrievalMetric(rerank={'top': top, 'weight': weight})
    metric.matcher = _matcher
    _process_in_batches(metric)

    scores = metric.evaluate(GALLERY + QUERIES)

    plain = _expected()
    assert {name: scores[name] for name in plain} == plain
    images, captions = _samples('images', GALLERY, 0), _samples('captions', QUERIES, 1)
    total = torch.empty(QUERIES, GALLERY, dtype=torch.float64)
    for q, caption in enumerate(captions):
        similarity = [float(caption['feat'] @ image['feat']) for image in images]
        order = sorted(range(GALLERY), key=lambda g: -similarity[g])
        for place, g in enumerate(order):
            match = float(_logits()[q, g].sigmoid())
            # what is not in the shortlist comes after all of it
            first = place < top
            total[q, g] = similarity[g] + (10 + weight * match if first else 0)
    expected = rank_metrics(
        total,
        torch.eye(GALLERY, dtype=torch.float64),
        [caption['pid'] for caption in captions],
        [image['pid'] for image in images],
    )
    names = ('R1', 'R5', 'R10', 'mAP', 'mINP')
    assert set(scores) - set(plain) == {f'reranked_{name}' for name in names}
    for name in names:
        assert scores[f'reranked_{name}'] == expected[name]
    assert scores['reranked_mAP'] != scores['mAP']


def test_a_weight_of_zero_reranks_to_the_plain_scores() -> None:
    metric = PersonRetrievalMetric(rerank={'weight': 0})
    metric.matcher = _matcher
    _process_in_batches(metric)
    scores = metric.evaluate(GALLERY + QUERIES)
    for name in ('R1', 'R5', 'R10', 'mAP', 'mINP'):
        assert scores[f'reranked_{name}'] == scores[name]


def test_the_propagated_gallery_gives_the_shortlist_of_a_reranking() -> None:
    neck = {'layer': 'parameter_free', 'num_layers': 1, 'k': 2, 'alpha': 0.9}
    metric = PersonRetrievalMetric(
        gallery_neck={
            'type': 'gckd_mm.GraphPropagationNeck',
            'in_channels': DIM,
            **neck,
        },
        rerank={'top': 3},
    )
    pairs = set()

    def matcher(
        images: torch.Tensor, captions: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        pairs.update(
            (int(c[0, 0]), int(i[0, 0])) for c, i in zip(captions, images, strict=True)
        )
        return torch.zeros(len(images))

    metric.matcher = matcher
    _process_in_batches(metric)
    metric.evaluate(GALLERY + QUERIES)
    parts = metric.embeddings['test']
    heard = metric.gallery_neck(torch.from_numpy(parts['images'].feats)).numpy()
    order, _ = top_matches(parts['captions'].feats, heard, 3)
    assert pairs == {(q, g) for q in range(QUERIES) for g in order[q].tolist()}


def test_tokens_are_kept_in_the_order_of_the_dataset_and_only_to_rerank() -> None:
    metric = PersonRetrievalMetric(rerank={})
    metric.matcher = _matcher
    _process_in_batches(metric)
    metric.evaluate(GALLERY + QUERIES)
    captions = metric.embeddings['test']['captions']
    assert captions.tokens.dtype == np.float16
    assert captions.tokens.shape == (QUERIES, 5, 2)
    assert captions.token_mask.shape == (QUERIES, 5)
    for index in range(QUERIES):
        assert (captions.tokens[index][captions.token_mask[index]] == index).all()
    plain = PersonRetrievalMetric()
    _process_in_batches(plain)
    plain.evaluate(GALLERY + QUERIES)
    assert plain.embeddings['test']['captions'].tokens is None


@pytest.mark.parametrize('method', ['k_reciprocal', 'propagation'])
@pytest.mark.parametrize('neck', [None, {'num_layers': 1, 'k': 2, 'alpha': 0.9}])
def test_a_gallery_reranks_without_tokens_or_a_matcher(
    method: str, neck: dict[str, Any] | None
) -> None:
    layer = {'layer': 'parameter_free', 'in_channels': DIM}
    metric = PersonRetrievalMetric(
        gallery_neck=neck and {'type': 'gckd_mm.GraphPropagationNeck', **layer, **neck},
        rerank={'method': method, 'top': 6, 'seeds': 2},
    )
    assert not metric.asks_matcher, 'the loop would ask for a matching head'
    _process_in_batches(metric)

    scores = metric.evaluate(GALLERY + QUERIES)

    images, captions = (metric.embeddings['test'][x] for x in ('images', 'captions'))
    assert captions.tokens is None
    gallery = images.feats
    if metric.gallery_neck:
        gallery = metric.gallery_neck(torch.from_numpy(gallery)).numpy()
    order = rerank_with_gallery(
        build_reranker(method, seeds=2), captions.feats, gallery, 6
    )
    ranked = (captions.feats, gallery, captions.pids, images.pids)
    plain, expected = rank_metrics(*ranked), rank_metrics(*ranked, shortlist=order)
    for name in ('R1', 'R5', 'R10', 'mAP', 'mINP'):
        assert scores[name] == plain[name]
        assert scores[f'reranked_{name}'] == expected[name]
    assert scores['reranked_mAP'] != scores['mAP']


def test_matching_is_the_default_method() -> None:
    by_default = PersonRetrievalMetric(rerank={'top': 9})
    named = PersonRetrievalMetric(rerank={'method': 'matching', 'top': 9})
    assert by_default.rerank == named.rerank == (9, 1.0)
    assert by_default.asks_matcher


def test_reranking_without_what_it_needs() -> None:
    for wrong in ({'top': 0}, {'weight': -0.1}, {'method': 'propagation', 'top': 0}):
        with pytest.raises(InputError, match=r'top of at least 1 .* got \{'):
            PersonRetrievalMetric(rerank=wrong)
    with pytest.raises(InputError, match=r'one of matching, .* got .magic'):
        PersonRetrievalMetric(rerank={'method': 'magic'})
    with pytest.raises(InputError, match='by matching takes top and weight'):
        PersonRetrievalMetric(rerank={'k1': 8})
    with pytest.raises(InputError, match='k_reciprocal has no setting weight'):
        PersonRetrievalMetric(rerank={'method': 'k_reciprocal', 'weight': 1.0})
    metric = PersonRetrievalMetric(rerank={})
    _process_in_batches(metric)
    with pytest.raises(InputError, match='needs a matcher'):
        metric.evaluate(GALLERY + QUERIES)
    metric.matcher = _matcher
    for samples in (_samples('images', GALLERY, 0), _samples('captions', QUERIES, 1)):
        metric.process(None, samples)
    with pytest.raises(InputError, match='samples with tokens'):
        metric.evaluate(GALLERY + QUERIES)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('modality', ['images', 'captions'])
@pytest.mark.parametrize('neck', [False, True])
def test_embeddings_that_are_not_finite_are_refused(
    modality: str, value: float, neck: bool
) -> None:
    neck_config = dict(
        type='gckd_mm.GraphPropagationNeck', in_channels=8, layer='parameter_free'
    )
    metric = PersonRetrievalMetric(gallery_neck=neck_config if neck else None)
    for role in ('images', 'captions'):
        samples = _samples(role, 8, seed=0)
        if role == modality:
            samples[3]['feat'] = samples[3]['feat'].clone()
            samples[3]['feat'][0] = value
            samples[5]['feat'] = torch.full_like(samples[5]['feat'], value)
        metric.process(None, samples)
    message = f'2 of the 8 embeddings of the {modality} of .*, the first is sample 3'
    with pytest.raises(InputError, match=message):
        metric.evaluate(16)


def _with_pids(modality: str, pids: list[int]) -> list[dict[str, Any]]:
    samples = _samples(modality, len(pids), seed=1)
    return [{**s, 'pid': pid} for s, pid in zip(samples, pids, strict=True)]


def _evaluate(images: list[int], captions: list[int]) -> dict[str, float]:
    metric = PersonRetrievalMetric()
    metric.dataset_meta = {'test_set': 'mall'}
    for _ in range(2):
        metric.process(None, _with_pids('images', images))
        metric.process(None, _with_pids('captions', captions))
        scores = metric.evaluate(len(images) + len(captions))
    return scores


def test_captions_without_any_match_are_an_error() -> None:
    with pytest.raises(InputError, match='mall: none of the 3 captions has an image'):
        _evaluate([1, 2, 3], [4, 5, 6])


def test_some_captions_without_a_match_are_warned_of_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = []
    monkeypatch.setattr(
        'gckd_mm.evaluation.metrics.person_retrieval_metric.print_log',
        lambda text, *_: said.append(text),
    )
    scores = _evaluate([1, 2, 3], [1, 5, 6])
    assert scores['num_unmatched'] == 2
    (warning,) = said
    assert warning.startswith('mall: 2 of 3 captions have no image of their person')

    said.clear()
    _evaluate([1, 2, 3], [1, 2, 3])
    assert not said
    _evaluate([7, 7, 7], [7, 7])
    (warning,) = said
    assert 'all 3 images of the gallery have the id 7' in warning


@pytest.mark.parametrize('modality', ['images', 'captions'])
def test_a_loop_over_one_loader_is_named(modality: str) -> None:
    metric = PersonRetrievalMetric()
    metric.process(None, _samples(modality, 4, seed=0))
    with pytest.raises(InputError, match=f'only {modality}: .*RetrievalTestLoop'):
        metric.evaluate(4)


@pytest.mark.parametrize('ks', ['abc', [0, 1], [1.5], [], [True], None, '1'])
def test_ks_that_are_no_ranks(ks: Any) -> None:
    with pytest.raises(InputError, match='ks must be whole numbers'):
        PersonRetrievalMetric(ks=ks)


def test_the_names_of_its_scores_are_those_it_gives() -> None:
    for metric in (
        PersonRetrievalMetric(),
        PersonRetrievalMetric(ks=(2, 3), prefix='plain'),
        PersonRetrievalMetric(rerank=dict(method='k_reciprocal', top=4)),
    ):
        for role in ('images', 'captions'):
            metric.process(None, _samples(role, 8, seed=0))
        found = metric.evaluate(16)
        names = [name for name in found if 'num_' not in name]
        assert sorted(names) == sorted(metric.score_names)
