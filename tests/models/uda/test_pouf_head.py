"""POUF's two terms against loops, and in a world of clear pairs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.uda.adaptation_head import CrossDomainFeats
from gckd_mm.models.uda.pouf_head import POUFHead

SIZE, DIM, TAU = 20, 6, 0.2
DIRECTIONS = {
    'text_to_image': ('captions', 'images'),
    'image_to_text': ('images', 'captions'),
}


def unit(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, DIM, generator=generator), dim=1)


def batch(
    images: Tensor, image_keys: list[int], captions: Tensor, caption_keys: list[int]
) -> CrossDomainFeats:
    return CrossDomainFeats(
        source={},
        pids=torch.empty(0, dtype=torch.int64),
        target={
            'images': images.detach().requires_grad_(),
            'captions': captions.detach().requires_grad_(),
        },
        keys={
            'images': torch.tensor(image_keys),
            'captions': torch.tensor(caption_keys),
        },
    )


def build(**options: Any) -> POUFHead:
    return POUFHead(
        **{'embedding_size': DIM, 'memory_size': SIZE, 'temperature': TAU, **options}
    )


def filled(**options: Any) -> tuple[POUFHead, CrossDomainFeats]:
    """A head that has seen 9 images and 8 captions, and its next batch."""
    head = build(**options)
    head.loss(batch(unit(9, 0), list(range(9)), unit(8, 1), list(range(8))), 0)
    return head, batch(unit(5, 2), [4, 20, 7, 21, 22], unit(4, 3), [8, 9, 8, 10])


def total(terms: dict[str, Tensor]) -> Tensor:
    return sum(value for name, value in terms.items() if 'loss' in name)


def naive_entropy(distribution: list[float]) -> float:
    return -sum(p * math.log(p) for p in distribution)


@pytest.mark.parametrize(
    'weights', [{}, dict(transport_weight=0.5, information_weight=2)]
)
def test_the_losses_against_a_loop(weights: dict[str, float]) -> None:
    head, feats = filled(**weights)

    terms = head.loss(feats, 0)

    for direction, (query, key) in DIRECTIONS.items():
        # the memory includes the batch itself
        rows = head.memories[key].feats.tolist()
        assert len(rows) == {'images': 12, 'captions': 11}[key]
        cost, plans = 0.0, []
        for feat in feats.target[query].tolist():
            cosines = [
                sum(a * b for a, b in zip(feat, row, strict=True)) for row in rows
            ]
            exponentials = [math.exp(cosine / TAU) for cosine in cosines]
            plan = [each / sum(exponentials) for each in exponentials]
            cost += sum(p * (1 - s) for p, s in zip(plan, cosines, strict=True))
            plans.append(plan)
        number = len(plans)
        each = sum(naive_entropy(plan) for plan in plans) / number
        mean = [sum(column) / number for column in zip(*plans, strict=True)]
        marginal = naive_entropy(mean)
        expected = {
            'loss_transport': weights.get('transport_weight', 1.0) * cost / number,
            'loss_information': (
                weights.get('information_weight', 0.3) * (each - marginal) / 2
            ),
            'prediction_entropy': each,
            'marginal_entropy': marginal,
        }
        for name, value in expected.items():
            found = terms[f'{name}_{direction}'].item()
            assert found == pytest.approx(value, rel=1e-4)


def test_only_losses_are_added_up() -> None:
    head, feats = filled()

    terms = head.loss(feats, 0)

    assert sorted(name for name in terms if 'loss' in name) == [
        f'loss_{term}_{direction}'
        for term in ('information', 'transport')
        for direction in sorted(DIRECTIONS)
    ]
    for name, value in terms.items():
        assert value.requires_grad == ('loss' in name)


def test_it_trains_each_modality_towards_the_other() -> None:
    """A batch reaches its own direction alone: memories have no gradient."""
    head, feats = filled()
    terms = head.loss(feats, 0)

    for direction, (query, key) in DIRECTIONS.items():
        for term in ('loss_transport', 'loss_information'):
            own, other = torch.autograd.grad(
                terms[f'{term}_{direction}'],
                [feats.target[query], feats.target[key]],
                allow_unused=True,
                retain_graph=True,
            )
            assert own.isfinite().all()
            assert (own.abs().sum(dim=1) > 0).all()
            assert other is None


@pytest.mark.parametrize(
    'weights', [{}, dict(information_weight=0), dict(transport_weight=0)]
)
def test_training_brings_true_pairs_together(weights: dict[str, float]) -> None:
    people = torch.eye(6)
    weight = {
        'images': (people + 0.4 * unit(6, 0)).requires_grad_(),
        'captions': (people + 0.4 * unit(6, 1) + 0.3).requires_grad_(),
    }
    head = build(**{'information_weight': 1.0, **weights})
    optimizer = torch.optim.SGD(list(weight.values()), lr=0.5)
    generator = torch.Generator().manual_seed(0)

    def margin() -> float:
        """How much nearer true pairs are than the nearest wrong ones, on average."""
        images, captions = (F.normalize(weight[m].detach(), dim=1) for m in weight)
        similarity = captions @ images.t()
        wrong = similarity.masked_fill(torch.eye(6, dtype=torch.bool), -1).amax(dim=1)
        return (similarity.diagonal() - wrong).mean().item()

    before = margin()
    for step in range(40):
        keys = {m: torch.randperm(6, generator=generator)[:3] for m in weight}
        target = {m: F.normalize(weight[m], dim=1)[keys[m]] for m in weight}
        loss = total(
            head.loss(CrossDomainFeats({}, keys['images'], target, keys), step)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    assert margin() > before + 0.1


def test_the_first_batch_of_one_is_finite() -> None:
    feats = batch(unit(1, 0), [0], unit(1, 1), [0])

    terms = build().loss(feats, 0)
    total(terms).backward()

    assert all(value.isfinite() for value in terms.values())
    assert all(part.grad.isfinite().all() for part in feats.target.values())


def test_a_target_without_captions_is_refused() -> None:
    head, feats = filled()
    feats.target.pop('captions')

    with pytest.raises(InputError, match=r'POUFHead .* has no captions'):
        head.loss(feats, 0)


def test_a_resumed_head_goes_on() -> None:
    head, feats = filled()
    resumed = build()
    resumed.load_state_dict(head.state_dict())

    assert resumed.loss(feats, 1) == head.loss(feats, 1)


def test_a_reset_head_is_a_new_one() -> None:
    head, feats = filled()
    head.reset()

    assert head.loss(feats, 0) == build().loss(feats, 0)


def test_autocast_changes_nothing() -> None:
    (one, feats), (other, _) = filled(), filled()
    expected = one.loss(feats, 0)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = other.loss(feats, 0)

    assert found == expected


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(temperature=0), 'temperature must be positive, got 0'),
        (dict(transport_weight=-1), 'at least 0, got -1, 0.3'),
        (dict(information_weight=-2), 'at least 0, got 1.0, -2'),
        (dict(memory_size=0), 'at least 1 embedding'),
        (dict(embedding_size=0), 'at least 1 number'),
        (dict(loss_weight='much'), 'loss_weight must be a number or a ramp'),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**options)
