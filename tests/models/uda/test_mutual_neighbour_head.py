"""Self-training on mutual neighbours against loops, and in a world of clear pairs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.uda.adaptation_head import CrossDomainFeats
from gckd_mm.models.uda.mutual_neighbour_head import MutualNeighbourHead

SIZE, DIM, TAU = 20, 6, 0.2
OTHER = {'images': 'captions', 'captions': 'images'}
LOSS_OF = {
    'captions': 'loss_mutual_text_to_image',
    'images': 'loss_mutual_image_to_text',
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


def build(**options: Any) -> MutualNeighbourHead:
    return MutualNeighbourHead(
        **{'embedding_size': DIM, 'memory_size': SIZE, 'temperature': TAU, **options}
    )


def filled(**options: Any) -> tuple[MutualNeighbourHead, CrossDomainFeats]:
    """A head that has seen 9 images and 8 captions, and its next batch.

    The batch has a caption twice, and two of its images were seen before.
    """
    head = build(**options)
    for schedule in head.schedules.values():
        schedule.num_steps = 32
    head.loss(batch(unit(9, 0), list(range(9)), unit(8, 1), list(range(8))), 0)
    return head, batch(unit(5, 2), [4, 20, 7, 21, 22], unit(4, 3), [8, 9, 8, 10])


def held(head: MutualNeighbourHead, modality: str) -> dict[int, list[float]]:
    memory = head.memories[modality]
    return dict(zip(memory.keys.tolist(), memory.feats.tolist(), strict=True))


def product(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def nearest(query: list[float], rows: dict[int, list[float]], k: int) -> list[int]:
    return sorted(rows, key=lambda row: -product(query, rows[row]))[:k]


def naive_loss(
    head: MutualNeighbourHead, feats: CrossDomainFeats, modality: str, k: int
) -> tuple[float, float]:
    """The loss of a batch whose embeddings are remembered already, and its rate."""
    queries, keys = held(head, modality), held(head, OTHER[modality])
    losses = []
    for sample, feat in zip(
        feats.keys[modality].tolist(), feats.target[modality].tolist(), strict=True
    ):
        pairs = [
            key
            for key in nearest(queries[sample], keys, k)
            if sample in nearest(keys[key], queries, k)
        ]
        logits = {key: product(feat, keys[key]) / TAU for key in keys}
        log_total = math.log(sum(math.exp(logit) for logit in logits.values()))
        if pairs:
            losses.append(sum(log_total - logits[key] for key in pairs) / len(pairs))
    rate = len(losses) / len(feats.target[modality])
    return sum(losses) / max(1, len(losses)), rate


@pytest.mark.parametrize('k', [1, 2, 3, 30])
def test_the_loss_against_a_loop(k: int) -> None:
    head, feats = filled(k=k)

    terms = head.loss(feats, 0)

    for modality, name in LOSS_OF.items():
        loss, rate = naive_loss(head, feats, modality, k)
        assert terms[name].item() == pytest.approx(loss, rel=1e-5)
        assert terms[f'pair_rate_{modality}'].item() == pytest.approx(rate)


def test_the_loops_have_rows_with_and_without_pairs() -> None:
    """Else the comparison would not see which rows count."""
    head, feats = filled()

    terms = head.loss(feats, 0)

    assert all(0 < terms[f'pair_rate_{modality}'] < 1 for modality in OTHER)


def test_what_has_no_pair_gets_no_gradient() -> None:
    # the caption's nearest image prefers the other caption, which is not in the batch
    image, near, far = F.normalize(
        torch.tensor([[1.0, 0, 0, 0, 0, 0], [1, 0.1, 0, 0, 0, 0], [1, 2, 0, 0, 0, 0]]),
        dim=1,
    ).split(1)
    head = build()
    head.loss(batch(image, [0], near, [0]), 0)
    feats = batch(-image, [1], torch.cat([far, near]), [1, 0])

    head.loss(feats, 0)[LOSS_OF['captions']].backward()

    assert torch.equal(feats.target['captions'].grad[0], torch.zeros(DIM))
    assert feats.target['captions'].grad[1].any()


def world() -> tuple[Tensor, Tensor]:
    """Images and captions of 6 people; row i of both is one person."""
    people = torch.eye(6)
    return (
        F.normalize(people + 0.4 * unit(6, 0), dim=1),
        F.normalize(people + 0.4 * unit(6, 1) + 0.3 * torch.ones(6), dim=1),
    )


def test_the_pairs_of_a_clear_world_are_the_true_ones() -> None:
    images, captions = world()
    head, order = build(), torch.tensor([3, 0, 5])
    head.loss(batch(images, list(range(6)), captions, list(range(6))), 0)

    # images of other people than the captions, in another order than the memory
    terms = head.loss(batch(images[:3], [0, 1, 2], captions[order], order.tolist()), 0)

    expected = {
        'captions': F.cross_entropy(captions[order] @ images.t() / TAU, order),
        'images': F.cross_entropy(images[:3] @ captions.t() / TAU, torch.arange(3)),
    }
    for modality, name in LOSS_OF.items():
        assert terms[f'pair_rate_{modality}'] == 1
        torch.testing.assert_close(terms[name], expected[modality])


def test_training_brings_true_pairs_together() -> None:
    weights = [part.clone().requires_grad_() for part in world()]
    head, optimizer = build(), torch.optim.SGD(weights, lr=0.2)
    generator = torch.Generator().manual_seed(0)

    def margin() -> float:
        """How much nearer true pairs are than the nearest wrong ones, on average."""
        images, captions = (F.normalize(part.detach(), dim=1) for part in weights)
        similarity = captions @ images.t()
        wrong = similarity.masked_fill(torch.eye(6, dtype=torch.bool), -1).amax(dim=1)
        return (similarity.diagonal() - wrong).mean().item()

    before = margin()
    for step in range(40):
        rows = [torch.randperm(6, generator=generator)[:3] for _ in weights]
        images, captions = (
            F.normalize(part, dim=1)[chosen]
            for part, chosen in zip(weights, rows, strict=True)
        )
        keys = dict(zip(OTHER, rows, strict=True))
        target = {'images': images, 'captions': captions}
        terms = head.loss(CrossDomainFeats({}, keys['images'], target, keys), step)
        optimizer.zero_grad()
        sum(terms[name] for name in LOSS_OF.values()).backward()
        optimizer.step()

    assert margin() > before + 0.1


def test_the_gradient_reaches_both_modalities() -> None:
    head, feats = filled()

    terms = head.loss(feats, 0)
    sum(terms[name] for name in LOSS_OF.values()).backward()

    for modality in OTHER:
        assert feats.target[modality].grad.isfinite().all()
        assert feats.target[modality].grad.any()


@pytest.mark.parametrize('k', [1, 3])
def test_the_first_batch_of_one_is_finite(k: int) -> None:
    """One caption and one image have but each other."""
    feats = batch(unit(1, 0), [0], unit(1, 1), [0])

    terms = build(k=k).loss(feats, 0)
    loss = sum(terms[name] for name in LOSS_OF.values())
    loss.backward()

    assert loss == 0
    assert all(torch.equal(part.grad, 0 * part) for part in feats.target.values())


@pytest.mark.parametrize('k', [1, 8])
def test_samples_that_the_memory_cannot_hold_have_no_pair(k: int) -> None:
    images, captions = world()

    terms = build(memory_size=2, k=k).loss(
        batch(images, list(range(6)), captions, list(range(6))), 0
    )

    assert terms['pair_rate_images'].item() == pytest.approx(2 / 6)
    assert terms['pair_rate_captions'].item() == pytest.approx(2 / 6)


def test_a_loss_without_pairs_is_zero_with_a_gradient() -> None:
    # caption 1 is seen with image 1, far from both: image 0 and caption 0 are a pair
    head = build()
    near = torch.eye(DIM)[:1]
    head.loss(batch(near, [0], near, [0]), 0)
    middle = F.normalize(torch.tensor([[1.0, 1, 0, 0, 0, 0]]), dim=1)
    away = F.normalize(torch.tensor([[0.5, 0, 1.0, 0, 0, 0]]), dim=1)
    feats = batch(away, [1], middle, [1])

    terms = head.loss(feats, 0)
    sum(terms[name] for name in LOSS_OF.values()).backward()

    assert terms['pair_rate_captions'] == terms['pair_rate_images'] == 0
    assert all(terms[name] == 0 for name in LOSS_OF.values())
    assert all(torch.equal(part.grad, 0 * part) for part in feats.target.values())


def test_a_target_without_captions_is_refused() -> None:
    head, feats = filled()
    feats.target.pop('captions')

    with pytest.raises(InputError, match=r'MutualNeighbourHead .* has no captions'):
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


def test_the_weight_is_of_the_losses_alone() -> None:
    ramp = dict(start=0.0, end=4.0, length=0.25)
    (one, feats), (other, _) = filled(), filled(loss_weight=ramp)

    once, twice = one.loss(feats, 4), other.loss(feats, 4)

    for modality, name in LOSS_OF.items():
        torch.testing.assert_close(twice[name], 2 * once[name])
        rate = f'pair_rate_{modality}'
        assert twice[rate] == once[rate]


def test_autocast_changes_nothing() -> None:
    (one, feats), (other, _) = filled(), filled()
    expected = one.loss(feats, 0)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = other.loss(feats, 0)

    assert found == expected


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(k=0), 'k must be at least 1 .* got 0, 0.2'),
        (dict(temperature=0), 'temperature positive, got 1, 0'),
        (dict(memory_size=0), 'at least 1 embedding'),
        (dict(embedding_size=0), 'at least 1 number'),
        (dict(loss_weight='much'), 'loss_weight must be a number or a ramp'),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**options)
