"""Stripes of a feature map, against means by loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models import ImageProjection


def naive(neck: ImageProjection, features: Tensor) -> Tensor:
    """Mean of each stripe, stripe ``s`` of ``S`` from floor(sH/S) to ceil((s+1)H/S)."""
    weight, bias = neck.projection.weight.double(), neck.projection.bias.double()
    rows = []
    height, stripes = features.shape[2], neck.stripes
    for feature in features.double():
        pooled = []
        for channel in feature:
            for stripe in range(stripes):
                first = stripe * height // stripes
                last = math.ceil((stripe + 1) * height / stripes)
                pooled.append(channel[first:last].mean())
        rows.append(weight @ torch.stack(pooled) + bias)
    return torch.stack(rows)


@pytest.mark.parametrize('stripes', [1, 2, 3, 4, 8])
def test_stripes_against_a_loop(stripes: int) -> None:
    neck = ImageProjection(5, 7, stripes)
    features = torch.randn(3, 5, 8, 4)

    embedded = neck(features)

    assert embedded.shape == (3, 7)
    torch.testing.assert_close(
        embedded.double(), naive(neck, features), rtol=1e-5, atol=1e-5
    )


def test_the_last_map_counts() -> None:
    neck = ImageProjection(5, 7)
    maps = torch.randn(2, 3, 5, 8, 4).unbind()

    first, last = neck(maps)

    assert first is maps[0]
    assert torch.equal(last, neck(maps[-1]))


def test_pooled_features_are_projected_as_they_are() -> None:
    neck = ImageProjection(5, 7)
    features = torch.randn(3, 5, 8, 4)

    torch.testing.assert_close(neck(features.mean((2, 3))), neck(features))


@pytest.mark.parametrize(
    ('shape', 'stripes', 'hint'),
    [((3, 5), 2, 'stripes=2 .*set stripes=1'), ((3, 6, 5), 1, 'TokenProjection')],
)
def test_features_that_have_no_stripes(
    shape: tuple[int, ...], stripes: int, hint: str
) -> None:
    with pytest.raises(InputError, match=hint):
        ImageProjection(5, 7, stripes)(torch.randn(shape))


def test_stripes_tell_above_from_below() -> None:
    features = torch.randn(2, 5, 8, 4)
    upside_down = features.flip(2)

    whole, striped = ImageProjection(5, 7, 1), ImageProjection(5, 7, 2)

    torch.testing.assert_close(whole(features), whole(upside_down))
    assert not torch.allclose(striped(features), striped(upside_down), atol=1e-3)
    # Left and right stay alike: a person may walk either way.
    torch.testing.assert_close(striped(features), striped(features.flip(3)))
