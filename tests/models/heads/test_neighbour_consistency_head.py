"""The pull to the teacher's neighbours against a loop, in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.neighbours import Neighbours
from gckd_mm.models.heads import NeighbourConsistencyHead

SLOTS = torch.tensor([0, 4, 2, 2])
#: of the four rows of a batch among 6; the third has one, the last has none
INDEX = torch.tensor([[3, 5], [0, 1], [1, -1], [-1, -1]])


def unit(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, 5, generator=generator), dim=1)


def example() -> tuple[Tensor, Tensor, Neighbours]:
    """The student's batch, the teacher's memory, and neighbours in it."""
    memory = unit(6, seed=0)
    similarity = (memory[SLOTS][:, None] * memory[INDEX.clamp_min(0)]).sum(dim=2)
    similarity = similarity.masked_fill(INDEX < 0, -math.inf)
    return unit(4, seed=1).requires_grad_(), memory, Neighbours(INDEX, similarity)


def build(**options: Any) -> NeighbourConsistencyHead:
    return NeighbourConsistencyHead(
        **{
            'neighbour_temperature': 0.2,
            'student_temperature': 0.3,
            'loss_weight': 1.0,
            **options,
        }
    )


def naive_loss(feats: Tensor, memory: Tensor, neighbours: Neighbours) -> float:
    losses = []
    for i, slot in enumerate(SLOTS.tolist()):
        near = [
            (row, math.exp(similarity / 0.2))
            for row, similarity in zip(
                neighbours.index[i].tolist(),
                neighbours.similarity[i].tolist(),
                strict=True,
            )
            if row >= 0
        ]
        if not near:
            continue
        logits = {
            row: sum(a * b for a, b in zip(feats[i].tolist(), rows, strict=True)) / 0.3
            for row, rows in enumerate(memory.tolist())
            if row != slot
        }
        log_total = math.log(sum(math.exp(logit) for logit in logits.values()))
        total = sum(weight for _, weight in near)
        losses.append(sum(w / total * (log_total - logits[row]) for row, w in near))
    return sum(losses) / len(losses)


def test_the_loss_against_a_loop() -> None:
    feats, memory, neighbours = example()

    loss = build().loss(feats, SLOTS, memory, neighbours, step=0)

    assert loss.item() == pytest.approx(naive_loss(feats, memory, neighbours), rel=1e-5)


def test_what_the_own_slot_holds_never_counts() -> None:
    feats, memory, neighbours = example()
    one = [part[:1] for part in (feats, SLOTS)]
    first = Neighbours(neighbours.index[:1], neighbours.similarity[:1])
    changed = memory.clone()
    changed[SLOTS[0]] = feats[0].detach()  # as similar as can be

    losses = [build().loss(*one, rows, first, 0) for rows in (memory, changed)]

    assert losses[0] == losses[1]


def test_a_row_without_neighbours_is_left_alone() -> None:
    feats, memory, neighbours = example()

    build().loss(feats, SLOTS, memory, neighbours, 0).backward()

    assert (feats.grad[:3].abs().sum(dim=1) > 0).all()
    assert torch.equal(feats.grad[3], torch.zeros(5))


def test_without_any_neighbour_the_loss_is_zero_with_gradients_of_zero() -> None:
    feats, memory, _ = example()
    none = Neighbours(torch.full((4, 2), -1), torch.full((4, 2), -math.inf))

    loss = build().loss(feats, SLOTS, memory, none, 0)
    loss.backward()

    assert loss == 0
    assert torch.equal(feats.grad, torch.zeros_like(feats))


def test_the_weight_follows_its_schedule() -> None:
    ramp = dict(start=0.0, end=4.0, length=8)
    feats, memory, neighbours = example()

    values = [
        build(loss_weight=ramp).loss(feats, SLOTS, memory, neighbours, step).item()
        for step in (0, 2, 30)
    ]

    once = naive_loss(feats, memory, neighbours)
    assert values == pytest.approx([0, once, 4 * once], rel=1e-5)


def test_autocast_changes_nothing() -> None:
    feats, memory, neighbours = example()
    expected = build().loss(feats, SLOTS, memory, neighbours, 0)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = build().loss(feats, SLOTS, memory, neighbours, 0)

    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(k=0), 'k must be at least 1 .* got 0, 0.2, 0.3'),
        (dict(neighbour_temperature=0), 'temperatures positive, got 6, 0, 0.3'),
        (dict(student_temperature=-1), 'temperatures positive, got 6, 0.2, -1'),
        (dict(loss_weight='much'), 'loss_weight must be a number or a ramp'),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**options)
