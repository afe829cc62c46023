"""The oracle sorts the gallery in plain Python, by the definitions word for word."""

import doctest
import math
import warnings

import numpy as np
import pytest
import torch

from gckd_mm.errors import InputError
from gckd_mm.evaluation import ranking
from gckd_mm.evaluation.ranking import (
    rank_metrics,
    rank_of_positives,
    top_matches,
)


def naive_ranks(query, gallery, query_pids, gallery_pids, shortlist=None):
    """Return each query's ascending 1-based ranks of its positives, in float64."""
    all_ranks = []
    first = [[]] * len(query) if shortlist is None else shortlist.tolist()
    for features, pid, head in zip(query, query_pids, first, strict=True):
        scores = []
        for other in gallery:
            scores.append(
                sum(float(a) * float(b) for a, b in zip(features, other, strict=True))
            )
        order = sorted(range(len(scores)), key=lambda j: (-scores[j], j))
        order = head + [j for j in order if j not in head]
        ranks = []
        for rank, j in enumerate(order, start=1):
            if gallery_pids[j] == pid:
                ranks.append(rank)
        all_ranks.append(ranks)
    return all_ranks


def naive_metrics(
    query, gallery, query_pids, gallery_pids, ks=(1, 5, 10), shortlist=None
):
    all_ranks = naive_ranks(query, gallery, query_pids, gallery_pids, shortlist)
    matched = [ranks for ranks in all_ranks if ranks]
    hits = {k: 0 for k in ks}
    sum_ap = sum_inp = 0.0
    for ranks in matched:
        for k in ks:
            hits[k] += ranks[0] <= k
        sum_ap += sum(i / rank for i, rank in enumerate(ranks, start=1)) / len(ranks)
        sum_inp += len(ranks) / ranks[-1]
    result = {f'R{k}': 100 * hits[k] / len(matched) for k in ks}
    result['mAP'] = 100 * sum_ap / len(matched)
    result['mINP'] = 100 * sum_inp / len(matched)
    result['num_queries'] = len(all_ranks)
    result['num_unmatched'] = len(all_ranks) - len(matched)
    return result


def ranks_by_query(*args, **kwargs):
    """Undo the blocks of rank_of_positives; queries without a positive get []."""
    result = [[] for _ in args[0]]
    for queries, ranks in rank_of_positives(*args, **kwargs):
        for query, row in zip(queries, ranks, strict=True):
            assert result[query] == []
            result[query] = row.tolist()
    return result


def integer_world(seed, num_queries=37, num_gallery=53, dim=6, num_ids=9):
    """Small integers: exact products in float32, and many ties."""
    rng = np.random.default_rng(seed)
    return (
        rng.integers(-2, 3, (num_queries, dim)).astype(np.float32),
        rng.integers(-2, 3, (num_gallery, dim)).astype(np.float32),
        rng.integers(0, num_ids + 2, num_queries),
        rng.integers(0, num_ids, num_gallery),
    )


def real_world(seed, num_queries=300, num_gallery=400, dim=32, num_ids=25):
    """Noisy clusters, L2-normalised."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_ids, dim))
    query_pids = rng.integers(0, num_ids, num_queries)
    gallery_pids = rng.integers(0, num_ids, num_gallery)
    sides = []
    for pids in (query_pids, gallery_pids):
        feats = centres[pids] + 1.5 * rng.normal(size=(len(pids), dim))
        feats /= np.linalg.norm(feats, axis=1, keepdims=True)
        sides.append(feats.astype(np.float32))
    return (*sides, query_pids, gallery_pids)


def test_docstring_example_runs():
    result = doctest.testmod(ranking)
    assert result.attempted > 0
    assert result.failed == 0


def test_hand_computed_example():
    # by similarity: image 3 (other), 0 (own), 1 (other), 2 (own)
    gallery = torch.tensor([[0.8], [0.6], [0.1], [0.9]])
    metrics = rank_metrics(torch.ones(1, 1), gallery, [4], [4, 5, 4, 6], ks=(1, 2, 5))
    assert metrics == {
        'R1': 0.0,
        'R2': 100.0,
        'R5': 100.0,
        'mAP': pytest.approx(100 * (1 / 2 + 2 / 4) / 2),
        'mINP': pytest.approx(100 * 2 / 4),
        'num_queries': 1,
        'num_unmatched': 0,
    }
    assert isinstance(metrics['num_queries'], int)
    assert isinstance(metrics['num_unmatched'], int)


@pytest.mark.parametrize('seed', range(20))
def test_agrees_with_naive_loops_under_many_ties(seed):
    world = integer_world(seed)
    assert ranks_by_query(*world) == naive_ranks(*world)
    metrics = rank_metrics(*world)
    assert metrics == pytest.approx(naive_metrics(*world))
    assert list(metrics) == list(naive_metrics(*world))


def test_agrees_with_naive_loops_on_real_embeddings():
    world = real_world(0, num_queries=60, num_gallery=90)
    world = (world[0].astype(np.float64), world[1].astype(np.float64), *world[2:])
    assert ranks_by_query(*world) == naive_ranks(*world)


def test_ties_go_to_the_smaller_gallery_index():
    gallery = np.ones((5, 1), dtype=np.float32)
    query = np.ones((1, 1), dtype=np.float32)
    for index in range(5):
        gallery_pids = np.full(5, 8)
        gallery_pids[index] = 7
        assert ranks_by_query(query, gallery, [7], gallery_pids) == [[index + 1]]


def test_duplicated_images_are_ranked_apart():
    gallery = np.array([[0.0], [1.0], [1.0], [1.0]], dtype=np.float32)
    query = np.ones((1, 1), dtype=np.float32)
    assert ranks_by_query(query, gallery, [7], [8, 8, 7, 7]) == [[2, 3]]


def test_unmatched_queries_are_counted_and_left_out():
    query, gallery, _, gallery_pids = integer_world(3)
    query_pids = np.resize(gallery_pids, len(query))
    alone = rank_metrics(query, gallery, query_pids, gallery_pids)
    with_strangers = rank_metrics(
        np.concatenate([query[:4], query]),
        gallery,
        np.concatenate([[-1, 99, -5, 1000], query_pids]),
        gallery_pids,
    )
    assert with_strangers.pop('num_unmatched') == 4
    assert with_strangers.pop('num_queries') == len(query) + 4
    assert with_strangers == pytest.approx({k: alone[k] for k in with_strangers})


def test_all_unmatched_is_nan_without_warning():
    query, gallery, query_pids, gallery_pids = integer_world(4)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        metrics = rank_metrics(query, gallery, query_pids + 1000, gallery_pids)
    assert metrics.pop('num_queries') == metrics.pop('num_unmatched') == len(query)
    assert len(metrics) == 5
    assert all(math.isnan(value) for value in metrics.values())


def test_one_query_one_image():
    one = np.array([[-1.0]], dtype=np.float32)
    metrics = rank_metrics(one, one, [0], [0])
    assert [metrics[k] for k in ('R1', 'R5', 'R10', 'mAP', 'mINP')] == [100.0] * 5


def test_all_positive_is_perfect_by_counting_and_by_sorting():
    for num_gallery in (20, 1000):
        query, gallery, _, _ = integer_world(5, num_gallery=num_gallery)
        pids = [3] * len(query)
        expected = [list(range(1, num_gallery + 1))] * len(query)
        assert ranks_by_query(query, gallery, pids, [3] * num_gallery) == expected


@pytest.mark.parametrize('num_gallery', [1, 7, 8, 9, 255, 256, 2039, 2040, 2041, 4100])
def test_counting_agrees_with_sorting(num_gallery):
    rng = np.random.default_rng(num_gallery)
    scores = rng.integers(0, 50, (5, num_gallery)).astype(np.float32)
    for num_positives in {1, (num_gallery + 1) // 2}:
        positives = np.sort(rng.permutation(num_gallery)[:num_positives])
        np.testing.assert_array_equal(
            ranking._ranks_by_counting(scores, positives),
            ranking._ranks_by_sorting(scores, positives),
        )


def test_counts_every_byte_of_long_rows():
    for width in (8, 2040, 2048, 20000):
        mask = np.ones((2, width), dtype=np.bool_)
        mask[1, ::3] = False
        counts = ranking._count_true(mask)
        assert counts.tolist() == [np.count_nonzero(row) for row in mask]


def test_chunk_size_changes_nothing_on_integer_embeddings():
    world = integer_world(6)
    expected = rank_metrics(*world)
    for chunk_size in (1, 2, 5, 36, 37, 38, 1000):
        assert rank_metrics(*world, chunk_size=chunk_size) == expected


def test_chunk_size_changes_little_on_real_embeddings():
    world = real_world(7)
    expected = rank_metrics(*world)
    for chunk_size in (1, 7, 64, 299):
        assert rank_metrics(*world, chunk_size=chunk_size) == pytest.approx(
            expected, abs=0.05
        )


def test_small_blocks_change_nothing(monkeypatch):
    world = integer_world(8, num_ids=2)
    expected = ranks_by_query(*world)
    monkeypatch.setattr(ranking, '_BLOCK_SIZE', 1)
    assert ranks_by_query(*world) == expected


@pytest.mark.parametrize('k', [1, 7, 53])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_a_reordered_shortlist_agrees_with_naive_loops(k, dtype):
    query, gallery, *pids = integer_world(17)
    world = (query.astype(dtype), gallery.astype(dtype), *pids)
    order, _ = top_matches(*world[:2], k)
    shortlist = np.random.default_rng(17).permuted(order, axis=1)

    found = ranks_by_query(*world, shortlist=shortlist)

    assert found == naive_ranks(*world, shortlist=shortlist)
    metrics = rank_metrics(*world, shortlist=torch.from_numpy(shortlist))
    assert metrics == pytest.approx(naive_metrics(*world, shortlist=shortlist))
    assert rank_metrics(*world, shortlist=shortlist, chunk_size=5) == metrics
    for before, after in zip(ranks_by_query(*world), found, strict=True):
        assert [rank for rank in before if rank > k] == [r for r in after if r > k]


def test_a_shortlist_of_anything_comes_first():
    world = integer_world(18)
    rng = np.random.default_rng(18)
    shortlist = np.stack([rng.permutation(53)[:9] for _ in world[0]])
    assert ranks_by_query(*world, shortlist=shortlist) == naive_ranks(
        *world, shortlist=shortlist
    )


def test_a_shortlist_in_the_first_order_changes_nothing():
    world = integer_world(19)
    order, _ = top_matches(*world[:2], 20)
    assert ranks_by_query(*world, shortlist=order) == ranks_by_query(*world)


def test_a_long_shortlist_keeps_its_order():
    num_gallery = 20_000
    gallery = np.zeros((num_gallery, 1), np.float32)
    shortlist = np.random.default_rng(20).permutation(num_gallery)[None]
    for place in (0, 1, 9_999, num_gallery - 1):
        pids = np.zeros(num_gallery, int)
        pids[shortlist[0, place]] = 7
        ranks = ranks_by_query(gallery[:1], gallery, [7], pids, shortlist=shortlist)
        assert ranks == [[place + 1]]


@pytest.mark.parametrize('k', [1, 10, 53, 100])
def test_top_matches_agrees_with_sorting_under_many_ties(k):
    query, gallery, *_ = integer_world(21)
    order, scores = top_matches(query, gallery, k)
    assert order.shape == scores.shape == (37, min(k, 53))
    for row in range(37):
        products = [int(query[row] @ image) for image in gallery]
        expected = sorted(range(53), key=lambda j: (-products[j], j))[:k]
        assert order[row].tolist() == expected
        assert scores[row].tolist() == [products[j] for j in expected]
    for chunk_size in (1, 5, 37):
        chunked = top_matches(query, gallery, k, chunk_size)
        assert all(map(np.array_equal, chunked, (order, scores)))


def test_order_of_queries_and_gallery_does_not_matter():
    query, gallery, query_pids, gallery_pids = real_world(9)
    # float64: distinct scores stay distinct, whatever the order of the products
    query, gallery = query.astype(np.float64), gallery.astype(np.float64)
    expected = rank_metrics(query, gallery, query_pids, gallery_pids)
    rng = np.random.default_rng(9)
    q, g = rng.permutation(len(query)), rng.permutation(len(gallery))
    permuted = rank_metrics(query[q], gallery[g], query_pids[q], gallery_pids[g])
    assert permuted == pytest.approx(expected, rel=1e-12)


def test_torch_and_numpy_inputs_agree():
    world = integer_world(10)
    expected = rank_metrics(*world)
    tensors = [torch.from_numpy(array) for array in world]
    assert rank_metrics(*tensors) == expected
    assert rank_metrics(tensors[0], world[1], tensors[2].int(), list(world[3])) == (
        expected
    )
    assert rank_metrics(tensors[0].requires_grad_(), *tensors[1:]) == expected


@pytest.mark.parametrize(
    'dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_any_float_dtype(dtype):
    query, gallery, query_pids, gallery_pids = integer_world(11)
    metrics = rank_metrics(
        torch.from_numpy(query).to(dtype), gallery, query_pids, gallery_pids
    )
    assert metrics == rank_metrics(query, gallery, query_pids, gallery_pids)


@pytest.mark.parametrize('convert', [np.asarray, torch.from_numpy])
def test_float64_is_not_rounded(convert):
    query = np.ones((1, 1), dtype=np.float32)
    gallery = convert(np.array([[1.0], [1.0 + 1e-12]]))
    assert ranks_by_query(query, gallery, [7], [8, 7]) == [[1]]


def test_read_only_and_strided_arrays():
    query, gallery, query_pids, gallery_pids = integer_world(12)
    expected = rank_metrics(query, gallery, query_pids, gallery_pids)
    flipped = np.ascontiguousarray(gallery[::-1])[::-1]
    query.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert rank_metrics(query, flipped, query_pids, gallery_pids) == expected


def test_features_are_used_as_they_are():
    query = np.ones((1, 1), dtype=np.float32)
    gallery = np.array([[1.0], [2.0]], dtype=np.float32)
    assert ranks_by_query(query, gallery, [7], [7, 8]) == [[2]]


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(('argument', 'name'), [(0, 'query'), (1, 'gallery')])
def test_non_finite_features_are_named(value, argument, name):
    world = list(integer_world(13))
    world[argument][5, 2] = world[argument][8, 0] = value
    with pytest.raises(ValueError, match=rf'{name}_feats: row 5 .* of 2'):
        rank_metrics(*world)


def test_overflowing_products_are_refused():
    query, gallery, query_pids, gallery_pids = integer_world(14)
    with pytest.raises(ValueError, match='overflows'):
        rank_metrics(query * 1e20, gallery * 1e20, query_pids, gallery_pids)


def test_errors_come_at_the_call_not_at_the_first_block():
    query, gallery, query_pids, gallery_pids = integer_world(15)
    with pytest.raises(ValueError, match='chunk_size'):
        rank_of_positives(query, gallery, query_pids, gallery_pids, chunk_size=0)


@pytest.mark.parametrize(
    ('change', 'error', 'match'),
    [
        ({'query_feats': [[1.0]]}, TypeError, 'query_feats must be a torch'),
        ({'query_feats': np.ones((37, 6), int)}, TypeError, 'query_feats .*int64'),
        ({'gallery_feats': torch.ones(53, 6).bool()}, TypeError, 'gallery_feats'),
        ({'query_feats': np.ones((37, 5))}, ValueError, 'same dimension'),
        ({'query_feats': np.ones(37)}, ValueError, r'query_feats .*\(37,\)'),
        ({'query_feats': np.ones((0, 6))}, ValueError, r'query_feats .*\(0, 6\)'),
        ({'gallery_feats': np.ones((0, 6))}, ValueError, 'gallery_feats'),
        ({'gallery_feats': np.ones((53, 0))}, ValueError, 'gallery_feats'),
        ({'query_pids': [1, 2]}, ValueError, 'query_pids .* 37 rows of query_feats'),
        ({'gallery_pids': [1] * 52}, ValueError, 'gallery_pids .* 53 rows'),
        ({'query_pids': np.ones(37)}, TypeError, 'query_pids .*float64'),
        ({'gallery_pids': np.ones(53, bool)}, TypeError, 'gallery_pids .*bool'),
        ({'gallery_pids': ['a'] * 53}, TypeError, 'gallery_pids'),
        ({'ks': (1, 0)}, ValueError, 'ks .*0'),
        ({'ks': (1.0,)}, TypeError, r'ks .*1\.0'),
        ({'ks': (True,)}, TypeError, 'ks'),
        ({'chunk_size': 0}, ValueError, 'chunk_size .*0'),
        ({'chunk_size': 2.5}, TypeError, 'chunk_size'),
        ({'shortlist': np.zeros(37, int)}, ValueError, r'Q = 37, got \(37,\)'),
        ({'shortlist': np.zeros((36, 1), int)}, ValueError, r'got \(36, 1\)'),
        ({'shortlist': np.zeros((37, 1))}, TypeError, 'shortlist .*float64'),
        ({'shortlist': np.full((37, 1), 53)}, ValueError, '53 gallery .* 53 to 53'),
        ({'shortlist': np.full((37, 1), -1)}, ValueError, 'shortlist .* -1 to -1'),
        ({'shortlist': np.zeros((37, 2), int)}, ValueError, 'an image twice'),
    ],
)
def test_bad_input_is_refused_with_a_reason(change, error, match):
    names = ('query_feats', 'gallery_feats', 'query_pids', 'gallery_pids')
    arguments = dict(zip(names, integer_world(16), strict=True))
    with pytest.raises(error, match=match):
        rank_metrics(**{**arguments, **change})


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('which', ['query_feats', 'gallery_feats'])
def test_features_that_are_not_finite_are_the_users_to_know(
    value: float, which: str
) -> None:
    feats = {
        name: np.ones((4, 3), np.float32) for name in ('query_feats', 'gallery_feats')
    }
    feats[which][2, 1] = value
    message = f'{which}: row 2 is the first of 1 with NaN'
    with pytest.raises(InputError, match=message):
        rank_metrics(**feats, query_pids=range(4), gallery_pids=range(4))
    with pytest.raises(InputError, match=message):
        top_matches(**feats, k=2)
