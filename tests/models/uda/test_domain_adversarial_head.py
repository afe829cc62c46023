"""DANN: the game of encoders and discriminators, and who gets which gradient."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.uda.adaptation_head import CrossDomainFeats
from gckd_mm.models.uda.domain_adversarial_head import DomainAdversarialHead
from gckd_mm.registry import MODELS
from tests.training import on_ranks

MODALITIES = ('images', 'captions')


def unit(rows: int, seed: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, 6, generator=generator) + shift, dim=1)


def both_domains(rows: int = 8) -> CrossDomainFeats:
    index = torch.arange(rows)
    return CrossDomainFeats(
        {'images': unit(rows, 0), 'captions': unit(rows, 1)},
        index,
        {'images': unit(rows, 2, 0.5), 'captions': unit(rows, 3, 1.0)},
        {'images': index, 'captions': index},
    )


def build(**options: Any) -> DomainAdversarialHead:
    torch.manual_seed(1)
    return DomainAdversarialHead(6, **{'hidden': 16, **options})


def gradients(head: DomainAdversarialHead, step: int = 0) -> tuple[Tensor, Tensor]:
    """That of the target's images, and that of their discriminator's first layer."""
    feats = both_domains()
    images = feats.target['images'].requires_grad_()
    head.zero_grad()
    sum(head.loss(feats, step)[f'loss_domain_{each}'] for each in MODALITIES).backward()
    return images.grad, head.discriminators['images'][0].weight.grad


def test_the_loss_and_the_accuracy_against_a_loop() -> None:
    head, feats = build(loss_weight=3.0), both_domains(6)
    feats.target['images'] = feats.target['images'][:4]

    terms = head.loss(feats, 0)

    for modality in MODALITIES:
        means, shares = [], []
        for domain, label in ((feats.source, 0), (feats.target, 1)):
            inputs = domain[modality] * math.sqrt(6)
            logits = head.discriminators[modality](inputs).flatten().tolist()
            target = [1 / (1 + math.exp(-logit)) for logit in logits]
            chosen = [p if label else 1 - p for p in target]
            means.append(sum(-math.log(p) for p in chosen) / len(chosen))
            shares.append(sum(p > 0.5 for p in chosen) / len(chosen))
        # 3, the weight, over 2, the number of domains; the accuracy has no weight.
        loss = terms.pop(f'loss_domain_{modality}').item()
        assert loss == pytest.approx(1.5 * sum(means), rel=1e-5)
        accuracy = terms.pop(f'domain_accuracy_{modality}').item()
        assert accuracy == pytest.approx(sum(shares) / 2)
    assert not terms


def test_the_encoder_gets_the_opposite_of_what_helps_the_discriminator() -> None:
    head, feats = build(reversal=1.0), both_domains()
    gradient, _ = gradients(head)

    losses = []
    for sign in (-1, 1):
        images = feats.target['images'] - sign * 1e-3 * gradient
        moved = feats._replace(target={'images': images})
        losses.append(head.loss(moved, 0)['loss_domain_images'].item())

    # A step against the gradient, as an optimiser takes it, confuses.
    assert losses[1] > losses[0]


def test_the_reversal_follows_its_schedule_for_the_encoder_alone() -> None:
    head = build(reversal=dict(start=0.0, end=2.0, length=0.25))
    for schedule in head.schedules.values():
        schedule.num_steps = 32
    once, expected = gradients(build(reversal=1.0))

    for step, coefficient in ((0, 0.0), (4, 1.0), (30, 2.0)):
        encoder, discriminator = gradients(head, step)
        torch.testing.assert_close(encoder, coefficient * once)
        torch.testing.assert_close(discriminator, expected)


def test_the_weight_follows_its_schedule_for_both() -> None:
    head = build(loss_weight=dict(start=0.0, end=2.0, length=0.25))
    for schedule in head.schedules.values():
        schedule.num_steps = 32
    once = gradients(build())

    for step, weight in ((0, 0.0), (4, 1.0), (30, 2.0)):
        for found, expected in zip(gradients(head, step), once, strict=True):
            torch.testing.assert_close(found, weight * expected)


def test_a_target_without_captions_trains_no_discriminator_of_captions() -> None:
    head, feats = build(), both_domains()
    expected = head.loss(feats, 0)
    images = {'images': feats.target['images']}

    terms = head.loss(feats._replace(target=images), 0)
    terms['loss_domain_images'].backward()

    assert terms == {
        name: value for name, value in expected.items() if name.endswith('images')
    }
    assert all(p.grad is None for p in head.discriminators['captions'].parameters())
    assert all(p.grad is not None for p in head.discriminators['images'].parameters())


def play(reversal: float) -> tuple[float, float]:
    """Return accuracy and distance of the means, at the end of a game of 150 steps.

    Both domains are Gaussians, on the sphere; the encoder may shift the target's. It
    takes plain gradient steps: Adam would not see how large the coefficient is.
    """
    head = build(reversal=reversal, layers=1)
    shift = torch.full((6,), 1.5, requires_grad=True)
    optimisers = [
        torch.optim.Adam(head.parameters(), lr=0.03),
        torch.optim.SGD([shift], lr=0.3),
    ]
    accuracies, gaps = [], []
    generator = torch.Generator().manual_seed(0)
    for step in range(150):
        source, outputs = torch.randn(2, 64, 6, generator=generator)
        source, target = F.normalize(source, dim=1), F.normalize(outputs + shift, dim=1)
        feats = CrossDomainFeats(
            {'images': source, 'captions': source},
            torch.arange(64),
            {'images': target},
            {'images': torch.arange(64)},
        )
        terms = head.loss(feats, step)
        for optimiser in optimisers:
            optimiser.zero_grad()
        terms['loss_domain_images'].backward()
        for optimiser in optimisers:
            optimiser.step()
        accuracies.append(terms['domain_accuracy_images'].item())
        gaps.append((target.mean(0) - source.mean(0)).norm().item())
    return sum(accuracies[-30:]) / 30, sum(gaps[-30:]) / 30


def test_two_gaussians_come_together_unless_nothing_is_reversed() -> None:
    accuracy, gap = play(reversal=0.0)
    confused_accuracy, confused_gap = play(reversal=1.0)

    assert accuracy > 0.9
    assert confused_accuracy < 0.6
    assert confused_gap < 0.4 * gap


def test_autocast_changes_nothing() -> None:
    head, feats = build(), both_domains()
    expected = head.loss(feats, 0)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        images = feats.source['images']
        assert head.discriminators['images'](images).dtype == torch.bfloat16
        assert head.loss(feats, 0) == expected


def test_half_precision_embeddings_train_in_float32() -> None:
    feats = both_domains()
    half = feats._replace(
        source={name: value.bfloat16() for name, value in feats.source.items()},
        target={name: value.bfloat16() for name, value in feats.target.items()},
    )

    loss = build().loss(half, 0)['loss_domain_images']

    assert loss.dtype == torch.float32


def test_a_reset_forgets_the_game() -> None:
    head = build()
    before = {name: value.clone() for name, value in head.state_dict().items()}

    head.reset()

    assert before
    for name, value in head.state_dict().items():
        assert not torch.equal(value, before[name]), name
        # Fresh: as large as before, but not the same.
        assert 0.2 < value.norm() / before[name].norm() < 5


def test_layers_and_width_of_a_discriminator() -> None:
    head = build(hidden=12, layers=3)

    shapes = [
        tuple(module.weight.shape)
        for module in head.discriminators['captions']
        if isinstance(module, nn.Linear)
    ]

    assert shapes == [(12, 6), (12, 12), (12, 12), (1, 12)]


class _Adapted(nn.Module):
    """A head behind one weight of an encoder, as DistributedDataParallel sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = build()
        self.encoder = nn.Linear(6, 6)

    def forward(self, feats: CrossDomainFeats) -> dict[str, Tensor]:
        target = {name: self.encoder(each) for name, each in feats.target.items()}
        return self.head.loss(feats._replace(target=target), 0)


def _gradients_of(model: nn.Module, feats: CrossDomainFeats) -> dict[str, Tensor]:
    terms = model(feats)
    sum(terms[f'loss_domain_{modality}'] for modality in MODALITIES).backward()
    return {
        name.removeprefix('module.'): parameter.grad
        for name, parameter in model.named_parameters()
    }


def _play_on_this_rank(folder: Path) -> None:
    torch.distributed.init_process_group('gloo')
    rank = torch.distributed.get_rank()
    whole = both_domains()
    part = CrossDomainFeats(
        *(
            {name: value.chunk(2)[rank] for name, value in each.items()}
            if isinstance(each, dict)
            else each.chunk(2)[rank]
            for each in whole
        )
    )
    model = _Adapted()
    found = _gradients_of(MMDistributedDataParallel(model), part)
    torch.manual_seed(100 + rank)
    model.head.reset()
    torch.save((found, model.head.state_dict()), folder / f'{rank}.pth')


def test_two_ranks_train_as_one_process_and_stay_equal(tmp_path: Path) -> None:
    expected = _gradients_of(_Adapted(), both_domains())

    on_ranks(_play_on_this_rank, 2, tmp_path)

    (first, fresh), (second, other) = (
        torch.load(tmp_path / f'{rank}.pth') for rank in range(2)
    )
    assert first.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(first[name], gradient, msg=name)
        assert torch.equal(first[name], second[name]), name
    torch.testing.assert_close(fresh, other, rtol=0, atol=0)


def test_a_config_finds_it() -> None:
    config = dict(type='DomainAdversarialHead', embedding_size=6)

    assert isinstance(MODELS.build(config), DomainAdversarialHead)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(hidden=0), 'must be at least 1, got 6, 0 and 2'),
        (dict(layers=0), 'must be at least 1, got 6, 16 and 0'),
        (dict(dropout=1.0), 'dropout must be at least 0 and below 1, got 1.0'),
        (dict(reversal=-0.5), 'reversal must not be negative, got -0.5'),
        (dict(reversal='much'), 'reversal must be a number or a ramp'),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**options)


def test_another_size_is_refused() -> None:
    head = DomainAdversarialHead(embedding_size=5)

    with pytest.raises(InputError, match=r'=5, but the images .* size 6'):
        head.loss(both_domains(), 0)
