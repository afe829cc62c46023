"""Every measure against plain loops over float64 similarities, and its extremes."""

from __future__ import annotations

import math
from statistics import fmean

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gckd_mm.evaluation.target_structure import (
    coverage,
    cycle_rate,
    embedding_gap,
    hubness,
    matching_entropy,
    mutual_rate,
    neighbourhood_agreement,
    target_structure,
)

Matrix = list[list[float]]
CANDIDATES = 32


def world(num_captions: int, num_images: int, noise: float = 0.7) -> dict[str, Tensor]:
    """Captions and images of common people, with a gap between the modalities."""
    people = torch.randn(max(num_captions, num_images) // 2 + 1, 8)
    rows = {
        'captions': people[torch.arange(num_captions) % len(people)],
        'images': people[torch.arange(num_images) % len(people)] + 0.3,
    }
    return {
        name: F.normalize(part + noise * torch.randn_like(part), dim=1)
        for name, part in rows.items()
    }


def products(rows: Tensor, columns: Tensor) -> Matrix:
    return [
        [
            sum(a * b for a, b in zip(row, column, strict=True))
            for column in columns.double().tolist()
        ]
        for row in rows.double().tolist()
    ]


def ranked(similarity: Matrix, k: int, without_self: bool = False) -> list[list[int]]:
    return [
        sorted(
            (j for j in range(len(row)) if not (without_self and i == j)),
            key=lambda j, row=row: -row[j],
        )[:k]
        for i, row in enumerate(similarity)
    ]


def skewness(lists: list[list[int]], size: int) -> float:
    counts = [sum(item in row for row in lists) for item in range(size)]
    mean = fmean(counts)
    variance = fmean((count - mean) ** 2 for count in counts)
    if variance == 0:
        return 0.0
    return fmean((count - mean) ** 3 for count in counts) / variance**1.5


def changed_by_sharing(similarity: Matrix) -> float:
    """Sinkhorn over a dictionary of the candidate pairs."""
    by_caption = ranked(similarity, CANDIDATES)
    columns = [list(column) for column in zip(*similarity, strict=True)]
    by_image = ranked(columns, CANDIDATES)
    pairs = {(k, j) for k, row in enumerate(by_caption) for j in row}
    pairs |= {(k, j) for j, row in enumerate(by_image) for k in row}
    captions, images = range(len(by_caption)), range(len(by_image))
    kernel = {(k, j): math.exp(similarity[k][j] / 0.06) for k, j in pairs}
    v = [1.0] * len(images)
    for _ in range(4):
        u = [
            1 / len(captions) / sum(kernel.get((k, j), 0) * v[j] for j in images)
            for k in captions
        ]
        v = [
            1 / len(images) / sum(kernel.get((k, j), 0) * u[k] for k in captions)
            for j in images
        ]
    shared = [
        max(images, key=lambda j, k=k: kernel.get((k, j), 0) * v[j]) for k in captions
    ]
    return fmean(j != row[0] for j, row in zip(shared, by_caption, strict=True))


def naive(captions: Tensor, images: Tensor) -> dict[str, float]:
    similarity = products(captions, images)
    columns = [list(column) for column in zip(*similarity, strict=True)]
    to_images, to_captions = ranked(similarity, 10), ranked(columns, 10)
    near_captions = ranked(products(captions, captions), 10, without_self=True)
    near_images = ranked(products(images, images), 5, without_self=True)
    best = [row[0] for row in to_images]
    agreement, returned, margins, entropies = [], [], [], []
    for k, j in enumerate(best):
        pointed = {best[other] for other in near_captions[k][:5]}
        around = {j, *near_images[j]}
        agreement.append(len(pointed & around) / len(pointed | around))
        ends = {to_captions[image][0] for image in near_images[j]}
        returned.append(bool(ends & {k, *near_captions[k]}))
        first, second, *_ = sorted(similarity[k], reverse=True)
        margins.append(first - second)
        weights = [math.exp((value - first) / 0.02) for value in similarity[k]]
        shares = [weight / sum(weights) for weight in weights]
        entropies.append(-sum(p * math.log(p) for p in shares if p))
    means = [
        [fmean(axis) for axis in zip(*part.double().tolist(), strict=True)]
        for part in (captions, images)
    ]
    return {
        'mutual_rate_1': fmean(k == to_captions[j][0] for k, j in enumerate(best)),
        'mutual_rate_5': fmean(k in to_captions[j][:5] for k, j in enumerate(best)),
        'image_hubness': skewness(to_images, len(images)),
        'caption_hubness': skewness(to_captions, len(captions)),
        'image_coverage': len(set(best)) / len(images),
        'caption_coverage': len({row[0] for row in to_captions}) / len(captions),
        'best_similarity': fmean(max(row) for row in similarity),
        'margin': fmean(margins),
        'matching_entropy': fmean(entropies) / math.log(len(images)),
        'assignment_gain': changed_by_sharing(similarity),
        'neighbourhood_agreement': fmean(agreement),
        'cycle_rate': fmean(returned),
        'modality_gap': math.dist(*means),
    }


@pytest.mark.parametrize(
    ('num_captions', 'num_images'), [(60, 45), (45, 60), (12, 4), (4, 12), (2, 2)]
)
def test_all_measures_against_loops(num_captions: int, num_images: int) -> None:
    parts = world(num_captions, num_images)

    assert target_structure(**parts) == pytest.approx(naive(**parts), abs=1e-5)


def test_the_loops_tell_all_measures_from_their_extremes() -> None:
    # Where a rate is 0 or 1, or two are equal, many a mistake would pass above.
    expected = naive(**world(60, 45))

    rates = [value for name, value in expected.items() if 'hubness' not in name]
    assert all(0.01 < value < 0.99 for value in rates), expected
    assert len(set(expected.values())) == len(expected)


def test_the_order_of_captions_and_images_means_nothing() -> None:
    parts = world(60, 45)
    shuffled = {name: rows[torch.randperm(len(rows))] for name, rows in parts.items()}

    found = target_structure(**shuffled)

    assert found == pytest.approx(target_structure(**parts), abs=1e-5)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32, torch.float64])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    parts = {name: rows.to(dtype) for name, rows in world(60, 45).items()}
    outside = target_structure(**parts)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert (parts['captions'].float() @ torch.ones(8, 1)).dtype == torch.bfloat16
        inside = target_structure(**parts)

    assert inside == outside


def test_modalities_that_are_copies_of_each_other() -> None:
    feats = F.normalize(torch.randn(40, 16), dim=1)

    found = target_structure(feats, feats[torch.randperm(40)])

    assert found['mutual_rate_1'] == found['image_coverage'] == found['cycle_rate'] == 1
    assert found['caption_coverage'] == 1
    assert found['assignment_gain'] == 0
    assert found['image_hubness'] == pytest.approx(found['caption_hubness'])
    assert found['best_similarity'] == pytest.approx(1)
    assert found['matching_entropy'] < 0.01
    # All five best images are of the six around one's own, less that one.
    assert found['neighbourhood_agreement'] == pytest.approx(5 / 6)
    assert found['modality_gap'] == pytest.approx(0, abs=1e-6)


def test_a_hub_is_seen_by_every_measure_that_is_to_see_it() -> None:
    feats = F.normalize(torch.randn(40, 16), dim=1)
    images = feats.clone()
    captions = F.normalize(feats + 2 * images[7], dim=1)

    clean, found = target_structure(feats, images), target_structure(captions, images)

    assert found['image_coverage'] < clean['image_coverage']
    assert found['mutual_rate_1'] < clean['mutual_rate_1']
    assert found['image_hubness'] > clean['image_hubness']
    assert found['neighbourhood_agreement'] < clean['neighbourhood_agreement']
    assert found['assignment_gain'] > 0.5 > clean['assignment_gain']


def test_hand_made_lists() -> None:
    best_images, best_captions = torch.tensor([0, 0, 1]), torch.tensor([1, 2])
    near_captions, near_images = torch.tensor([[1], [0], [0]]), torch.tensor([[1], [0]])

    assert mutual_rate(best_images, best_captions[:, None]) == pytest.approx(2 / 3)
    assert coverage(best_images, 2) == 1
    assert coverage(best_captions, 3) == pytest.approx(2 / 3)
    # captions 0 and 1 end at caption 2, which is near to neither; 2 ends at 1
    assert cycle_rate(best_images, best_captions, near_captions, near_images) == 0
    near_captions[2] = 1
    assert cycle_rate(
        best_images, best_captions, near_captions, near_images
    ) == pytest.approx(1 / 3)
    # the neighbour's image is always one of both
    assert neighbourhood_agreement(best_images, near_captions, near_images) == 0.5


def test_hubness_is_zero_without_hubs_and_signed_with_them() -> None:
    assert hubness(torch.tensor([[0, 1], [2, 3], [1, 0], [3, 2]]), 4) == 0
    assert hubness(torch.tensor([[0], [0], [0], [0]]), 4) > 0
    assert hubness(torch.tensor([[0], [1], [2], [0], [1], [2]]), 4) < 0


def test_the_entropy_reaches_both_ends() -> None:
    image = F.normalize(torch.ones(1, 4), dim=1)
    apart = torch.eye(4)

    assert matching_entropy(apart, image.expand(9, 4)) == pytest.approx(1)
    assert matching_entropy(apart, apart) == pytest.approx(0, abs=1e-6)
    assert matching_entropy(apart, apart, temperature=1e4) == pytest.approx(1)


def test_the_gap_is_a_distance_of_means() -> None:
    one, other = torch.eye(3)[:1], torch.eye(3)[1:2]

    assert embedding_gap(one, one.expand(5, 3)) == 0
    assert embedding_gap(one, -one) == 2
    assert embedding_gap(torch.cat([one, -one]), other) == 1


class LargestTensor(TorchDispatchMode):
    """Note the number of elements of the largest tensor that an operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            if isinstance(each, Tensor):
                self.largest = max(self.largest, each.numel())
        return result


def test_no_matrix_of_all_similarities_exists() -> None:
    parts = {name: F.normalize(torch.randn(1500, 4), dim=1) for name in world(2, 2)}

    with LargestTensor() as mode:
        target_structure(**parts)

    assert mode.largest == 1024 * 1500


def test_no_gradient_is_kept() -> None:
    parts = {name: rows.requires_grad_() for name, rows in world(20, 20).items()}

    assert all(isinstance(value, float) for value in target_structure(**parts).values())


@pytest.mark.parametrize('sizes', [(1, 9), (9, 1), (9, 0)])
def test_too_little_to_compare_is_refused(sizes: tuple[int, int]) -> None:
    captions, images = (torch.ones(size, 4) for size in sizes)

    with pytest.raises(ValueError, match=f'got {sizes[0]} and {sizes[1]}'):
        target_structure(captions, images)
