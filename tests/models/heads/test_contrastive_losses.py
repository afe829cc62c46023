"""Contrastive losses against loops over explicit pairs, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.models.heads.contrastive_head import identity_targets, sdm_loss
from gckd_mm.models.heads.info_nce_head import info_nce

PIDS = {
    'distinct': [3, 1, 4, 15, 9],
    'some shared': [7, 7, 2, 7, 2, 5],
    'all the same': [4, 4, 4],
    'one pair': [8],
}
LOSSES = (info_nce, sdm_loss)
Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def batch(pids: list[int], dim: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(len(pids))
    feats = torch.randn(2, len(pids), dim, generator=generator, dtype=torch.float64)
    images, captions = F.normalize(feats, dim=-1)
    return images, captions, torch.tensor(pids)


def directions(
    images: np.ndarray, captions: np.ndarray, pids: list[int], temperature: float
) -> list[list[tuple[list[float], list[float]]]]:
    """(log p, q) of every query, in both directions, by loops in float64."""
    result = []
    for queries, gallery in ((images, captions), (captions, images)):
        rows = []
        for query, pid in zip(queries, pids, strict=True):
            scores = [
                sum(a * b for a, b in zip(query, other, strict=True)) / temperature
                for other in gallery
            ]
            log_sum = math.log(sum(math.exp(score) for score in scores))
            matches = [float(other == pid) for other in pids]
            rows.append(
                (
                    [score - log_sum for score in scores],
                    [match / sum(matches) for match in matches],
                )
            )
        result.append(rows)
    return result


def naive_info_nce(
    images: np.ndarray, captions: np.ndarray, pids: list[int], temperature: float
) -> float:
    total = 0.0
    for rows in directions(images, captions, pids, temperature):
        for log_p, q in rows:
            total -= sum(b * a for a, b in zip(log_p, q, strict=True))
    return total / len(pids) / 2


def naive_sdm_loss(
    images: np.ndarray, captions: np.ndarray, pids: list[int], temperature: float
) -> float:
    total = 0.0
    for rows in directions(images, captions, pids, temperature):
        for log_p, q in rows:
            total += sum(
                math.exp(a) * (a - math.log(b + 1e-8))
                for a, b in zip(log_p, q, strict=True)
            )
    return total / len(pids)


NAIVE = {info_nce: naive_info_nce, sdm_loss: naive_sdm_loss}


def naive(
    loss: Loss, images: Tensor, captions: Tensor, pids: Tensor, temperature: float
) -> float:
    arrays = images.double().numpy(), captions.double().numpy()
    return NAIVE[loss](*arrays, pids.tolist(), temperature)


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('temperature', [1.0, 0.07, 0.02])
@pytest.mark.parametrize('pids', PIDS.values(), ids=PIDS)
@pytest.mark.parametrize(
    'dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16]
)
def test_a_loss_against_its_loop(
    loss: Loss, dtype: torch.dtype, pids: list[int], temperature: float
) -> None:
    images, captions, ids = batch(pids)
    images, captions = images.to(dtype), captions.to(dtype)

    value = loss(images, captions, ids, temperature)

    assert value.dtype == torch.float32
    assert value.shape == ()
    # The loop sees the rounded features: what is left is float32 arithmetic, whose
    # similarities (up to 1 / temperature) are good to about 1e-7 of their size.
    expected = naive(loss, images, captions, ids, temperature)
    assert value.item() == pytest.approx(expected, rel=1e-5, abs=1e-6 / temperature)


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(loss: Loss, dtype: torch.dtype) -> None:
    images, captions, ids = batch(PIDS['some shared'])
    images, captions = images.to(dtype), captions.to(dtype)
    outside = loss(images, captions, ids, 0.02)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert (images.float() @ captions.float().t()).dtype == torch.bfloat16
        inside = loss(images, captions, ids, 0.02)

    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


@pytest.mark.parametrize('loss', LOSSES)
def test_the_order_of_the_pairs_is_nothing(loss: Loss) -> None:
    images, captions, ids = batch(PIDS['some shared'])
    order = torch.tensor([4, 0, 5, 2, 1, 3])

    value = loss(images, captions, ids, 0.05)
    permuted = loss(images[order], captions[order], ids[order], 0.05)

    assert permuted.item() == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize('loss', LOSSES)
def test_the_names_of_the_people_are_nothing(loss: Loss) -> None:
    images, captions, ids = batch(PIDS['some shared'])

    renamed = loss(images, captions, 10**12 - 3 * ids, 0.05)

    assert torch.equal(renamed, loss(images, captions, ids, 0.05))


@pytest.mark.parametrize('loss', LOSSES)
def test_images_and_captions_are_on_a_par(loss: Loss) -> None:
    images, captions, ids = batch(PIDS['some shared'])

    swapped = loss(captions, images, ids, 0.05)

    assert swapped.item() == pytest.approx(
        loss(images, captions, ids, 0.05).item(), rel=1e-5
    )


def test_with_distinct_people_info_nce_is_clips_loss() -> None:
    clip = pytest.importorskip('transformers.models.clip.modeling_clip')
    images, captions, ids = batch(PIDS['distinct'])

    clip_loss = getattr(clip, 'image_text_contrastive_loss', None) or clip.clip_loss
    theirs = clip_loss((captions @ images.t()).float() / 0.07)

    assert info_nce(images, captions, ids, 0.07).item() == pytest.approx(
        theirs.item(), rel=1e-5
    )


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('pids', [PIDS['distinct'][:4], [7, 7, 2, 7]])
def test_the_gradient_against_finite_differences(loss: Loss, pids: list[int]) -> None:
    images, captions, ids = batch(pids, dim=3)
    leaves = [images.float().requires_grad_(), captions.float().requires_grad_()]
    loss(*leaves, ids, 0.1).backward()
    step = 1e-5

    for which, leaf in enumerate(leaves):
        values = [feats.detach().double().numpy() for feats in leaves]
        for position in np.ndindex(*values[which].shape):
            around = []
            for sign in (1, -1):
                moved = [value.copy() for value in values]
                moved[which][position] += sign * step
                around.append(NAIVE[loss](*moved, pids, 0.1))
            slope = (around[0] - around[1]) / (2 * step)
            assert leaf.grad[position].item() == pytest.approx(
                slope, rel=1e-3, abs=1e-4
            )


@pytest.mark.parametrize('loss', LOSSES)
def test_a_learned_temperature_gets_a_gradient(loss: Loss) -> None:
    images, captions, ids = batch(PIDS['some shared'])
    temperature = torch.tensor(0.1, requires_grad=True)

    loss(images, captions, ids, temperature).backward()

    around = [naive(loss, images, captions, ids, 0.1 + step) for step in (1e-5, -1e-5)]
    slope = (around[0] - around[1]) / 2e-5
    assert temperature.grad.item() == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize('loss', LOSSES)
def test_matching_features_beat_others(loss: Loss) -> None:
    images, captions, ids = batch(PIDS['distinct'])

    matched = loss(images, images, ids, 0.02)

    assert matched < 0.1
    assert matched < loss(images, captions, ids, 0.02)
    assert loss(images, images.roll(1, 0), ids, 0.02) > 10


def test_sdm_is_zero_where_both_distributions_agree() -> None:
    feats = F.normalize(torch.ones(4, 8), dim=1)

    assert sdm_loss(feats, feats, torch.zeros(4), 0.02).item() == pytest.approx(
        0, abs=1e-6
    )


@pytest.mark.parametrize('loss', LOSSES)
def test_a_sharp_temperature_stays_finite(loss: Loss) -> None:
    images, captions, ids = batch(PIDS['some shared'])
    images.requires_grad_()

    value = loss(images, captions, ids, 1e-3)
    value.backward()

    assert value.isfinite()
    assert images.grad.isfinite().all()


@pytest.mark.parametrize('pids', PIDS.values(), ids=PIDS)
def test_identity_targets_against_a_loop(pids: list[int]) -> None:
    targets = identity_targets(torch.tensor(pids))

    assert targets.dtype == torch.float32
    for i, one in enumerate(pids):
        for j, other in enumerate(pids):
            expected = (one == other) / pids.count(one)
            assert targets[i, j].item() == pytest.approx(expected)
    assert torch.equal(targets, targets.t())
    torch.testing.assert_close(targets.sum(1), torch.ones(len(pids)))
