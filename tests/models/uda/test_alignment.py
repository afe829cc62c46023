"""Distances of two sets of embeddings against loops and numpy, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gckd_mm.models.uda.alignment import coral, mmd, reverse_gradient

DISTANCES = (mmd, coral)
Distance = Callable[[Tensor, Tensor], Tensor]


def two_sets(
    source: int = 5, target: int = 7, dim: int = 4, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(source + target)
    feats = torch.randn(source + target, dim, generator=generator)
    shifted = feats[source:] * torch.linspace(0.5, 2, dim) + 0.5
    return feats[:source].to(dtype), shifted.to(dtype)


def squared_distance(one: np.ndarray, other: np.ndarray) -> float:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def mean_distance(source: np.ndarray, target: np.ndarray) -> float:
    """Of any two rows of both sets."""
    rows = [*source, *target]
    found = [
        squared_distance(rows[i], rows[j]) for i in range(len(rows)) for j in range(i)
    ]
    return sum(found) / len(found)


def naive_mmd(source: np.ndarray, target: np.ndarray, bandwidths: list[float]) -> float:
    def mean_kernel(ones: np.ndarray, others: np.ndarray) -> float:
        values = [
            math.exp(-squared_distance(one, other) / bandwidth)
            for one in ones
            for other in others
            for bandwidth in bandwidths
        ]
        return sum(values) / len(values)

    within = mean_kernel(source, source) + mean_kernel(target, target)
    return within - 2 * mean_kernel(source, target)


def naive_coral(source: np.ndarray, target: np.ndarray) -> float:
    difference = np.cov(source, rowvar=False) - np.cov(target, rowvar=False)
    return float(np.linalg.norm(difference, 'fro') ** 2 / (4 * source.shape[1] ** 2))


def arrays(*sets: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(feats.detach().double().numpy() for feats in sets)


@pytest.mark.parametrize(
    ('kernels', 'factor', 'family'),
    [
        (1, 2.0, [1]),
        (5, 2.0, [1 / 4, 1 / 2, 1, 2, 4]),
        (4, 4.0, [1 / 8, 1 / 2, 2, 8]),
    ],
)
@pytest.mark.parametrize('sizes', [(5, 7), (6, 6), (1, 3), (1, 1)])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
def test_mmd_against_a_double_loop(
    dtype: torch.dtype,
    sizes: tuple[int, int],
    kernels: int,
    factor: float,
    family: list[float],
) -> None:
    source, target = two_sets(*sizes, dtype=dtype)

    value = mmd(source, target, kernels, factor)

    centre = mean_distance(*arrays(source, target))
    expected = naive_mmd(*arrays(source, target), [centre * each for each in family])
    assert value.dtype == torch.float32
    assert value.shape == ()
    assert value.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize('sizes', [(5, 7), (2, 9)])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
def test_coral_against_the_covariances_of_numpy(
    dtype: torch.dtype, sizes: tuple[int, int]
) -> None:
    source, target = two_sets(*sizes, dtype=dtype)

    value = coral(source, target)

    assert value.dtype == torch.float32
    assert value.shape == ()
    expected = naive_coral(*arrays(source, target))
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_one_row_has_no_covariance() -> None:
    source, target = two_sets(1, 6)

    value = coral(source, target)

    covariance = np.cov(target.double().numpy(), rowvar=False)
    assert value.item() == pytest.approx((covariance**2).sum() / 64, rel=1e-5)


@pytest.mark.parametrize('distance', DISTANCES)
def test_equal_sets_have_no_distance_and_others_have(distance: Distance) -> None:
    source, target = two_sets()

    assert distance(source, source.flip(0)).item() == pytest.approx(0, abs=1e-6)
    assert distance(source, target) > 1e-3


@pytest.mark.parametrize('distance', DISTANCES)
def test_a_distance_is_symmetric_and_knows_no_order(distance: Distance) -> None:
    source, target = two_sets()
    expected = pytest.approx(distance(source, target).item(), rel=1e-4)

    assert distance(target, source).item() == expected
    assert distance(source[[3, 0, 4, 2, 1]], target.flip(0)).item() == expected


def test_mmd_sees_a_shift_of_the_mean_and_coral_does_not() -> None:
    source, _ = two_sets(20)

    assert mmd(source, source + 1) > 0.1
    assert coral(source, source + 1).item() == pytest.approx(0, abs=1e-6)


def test_the_bandwidths_follow_the_scale_of_the_embeddings() -> None:
    source, target = two_sets()

    scaled = mmd(30 * source, 30 * target)

    assert scaled.item() == pytest.approx(mmd(source, target).item(), rel=1e-4)


@pytest.mark.parametrize('distance', DISTANCES)
def test_the_gradient_against_finite_differences(distance: Distance) -> None:
    source, target = two_sets(3, 4, dim=3)
    leaves = [source.requires_grad_(), target.requires_grad_()]
    distance(*leaves).backward()
    # Fixed: the bandwidths get no gradient.
    centre = mean_distance(*arrays(*leaves))
    bandwidths = [centre * 2.0**power for power in (-2, -1, 0, 1, 2)]
    step = 1e-5

    for which, leaf in enumerate(leaves):
        for position in np.ndindex(*leaf.shape):
            around = []
            for sign in (1, -1):
                moved = [values.copy() for values in arrays(*leaves)]
                moved[which][position] += sign * step
                around.append(
                    naive_mmd(*moved, bandwidths)
                    if distance is mmd
                    else naive_coral(*moved)
                )
            slope = (around[0] - around[1]) / (2 * step)
            assert leaf.grad[position].item() == pytest.approx(
                slope, rel=1e-3, abs=1e-6
            )


@pytest.mark.parametrize('distance', DISTANCES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(distance: Distance, dtype: torch.dtype) -> None:
    source, target = two_sets(dtype=dtype)
    outside = distance(source, target)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert (source @ target.t()).dtype == torch.bfloat16
        inside = distance(source, target)

    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


@pytest.mark.parametrize('distance', DISTANCES)
def test_collapsed_embeddings_get_no_gradient(distance: Distance) -> None:
    collapsed = torch.nn.functional.normalize(torch.randn(1, 128)).expand(64, 128)
    source = collapsed.clone().requires_grad_()

    value = distance(source, collapsed)
    value.backward()

    assert value.item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(source.grad, torch.zeros_like(source), rtol=0, atol=1e-3)


@pytest.mark.parametrize('coefficient', [0.0, 0.25, 1.0, 3.0])
@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_a_reversed_gradient(dtype: torch.dtype, coefficient: float) -> None:
    feats = torch.randn(3, 4).to(dtype).requires_grad_()
    gradient = torch.randn(3, 4).to(dtype)

    found = reverse_gradient(feats, coefficient)
    found.backward(gradient)

    assert torch.equal(found, feats)
    assert feats.grad.dtype == dtype
    assert torch.equal(feats.grad, -coefficient * gradient)
