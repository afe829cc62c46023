"""The MMD of both modalities: what counts, its weight, and what it does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.uda.adaptation_head import CrossDomainFeats
from gckd_mm.models.uda.alignment import mmd
from gckd_mm.models.uda.mmd_head import MMDHead
from gckd_mm.registry import MODELS
from tests.training import on_ranks


def unit(rows: int, seed: int, shift: float = 0.0, dim: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator) + shift, dim=1)


def both_domains(rows: int = 8) -> CrossDomainFeats:
    index = torch.arange(rows)
    return CrossDomainFeats(
        {'images': unit(rows, 0), 'captions': unit(rows, 1)},
        index,
        {'images': unit(rows, 2, 0.5), 'captions': unit(rows, 3, 1.0)},
        {'images': index, 'captions': index},
    )


def test_each_modality_is_compared_with_itself_across_the_domains() -> None:
    feats = both_domains()

    terms = MMDHead(kernels=3, factor=4.0, loss_weight=2.0).loss(feats, 0)

    assert terms.keys() == {'loss_mmd_images', 'loss_mmd_captions'}
    for modality in ('images', 'captions'):
        expected = 2 * mmd(feats.source[modality], feats.target[modality], 3, 4.0)
        torch.testing.assert_close(terms[f'loss_mmd_{modality}'], expected)


def test_a_target_without_captions_aligns_its_images() -> None:
    feats = both_domains()
    expected = MMDHead().loss(feats, 0)
    images = {'images': feats.target['images']}

    terms = MMDHead().loss(feats._replace(target=images), 0)

    assert terms == {'loss_mmd_images': expected['loss_mmd_images']}


def test_the_weight_follows_its_schedule() -> None:
    head = MMDHead(loss_weight=dict(start=0.0, end=4.0, length=0.25))
    for schedule in head.schedules.values():
        schedule.num_steps = 32
    once = MMDHead(loss_weight=1.0).loss(both_domains(), 0)['loss_mmd_images'].item()

    values = [
        head.loss(both_domains(), step)['loss_mmd_images'].item() for step in (0, 2, 30)
    ]

    assert values == pytest.approx([0, once, 4 * once], rel=1e-5)


def test_two_gaussians_come_together() -> None:
    source = unit(64, 0)
    outputs = unit(64, 1, shift=1.5)
    encoder = nn.Linear(6, 6)
    nn.init.eye_(encoder.weight)
    nn.init.zeros_(encoder.bias)
    head = MMDHead(loss_weight=1.0)
    optimiser = torch.optim.Adam(encoder.parameters(), lr=0.05)
    losses, gaps = [], []
    for step in range(60):
        target = F.normalize(encoder(outputs), dim=1)
        feats = CrossDomainFeats(
            {'images': source, 'captions': source},
            torch.arange(64),
            {'images': target},
            {'images': torch.arange(64)},
        )
        loss = head.loss(feats, step)['loss_mmd_images']
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        gaps.append((target.mean(0) - source.mean(0)).norm().item())

    assert losses[-1] < 0.2 * losses[0]
    assert gaps[-1] < 0.2 * gaps[0]


def _step_on_this_rank(folder: Path) -> None:
    """Write the losses and the gradient of this rank's part of the target images."""
    torch.distributed.init_process_group('gloo')
    rank = torch.distributed.get_rank()
    whole = both_domains()
    part = [
        {name: value.chunk(2)[rank] for name, value in domain.items()}
        for domain in (whole.source, whole.target)
    ]
    leaf = part[1]['images'].clone().requires_grad_()
    # The other order of the modalities on the other rank.
    target = dict(sorted({**part[1], 'images': leaf}.items(), reverse=rank == 1))
    feats = CrossDomainFeats(part[0], whole.pids.chunk(2)[rank], target, {})
    losses = MMDHead().loss(feats, 0)
    sum(losses.values()).backward()
    torch.save((losses, leaf.grad), folder / f'{rank}.pth')


def test_two_ranks_compute_what_one_process_does(tmp_path: Path) -> None:
    feats = both_domains()
    feats.target['images'].requires_grad_()
    expected = MMDHead().loss(feats, 0)
    sum(expected.values()).backward()

    on_ranks(_step_on_this_rank, 2, tmp_path)

    found = [torch.load(tmp_path / f'{rank}.pth') for rank in range(2)]
    for losses, _ in found:
        for name, value in expected.items():
            torch.testing.assert_close(losses[name], value)
    # Of the sum over the ranks, which DistributedDataParallel divides by their number.
    gradient = torch.cat([part for _, part in found]) / 2
    torch.testing.assert_close(gradient, feats.target['images'].grad)


def test_a_config_finds_it() -> None:
    assert isinstance(MODELS.build(dict(type='MMDHead')), MMDHead)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(kernels=0), 'kernels must be at least 1 .* got 0 and 2.0'),
        (dict(factor=1.0), 'factor more than 1, got 5 and 1.0'),
        (dict(loss_weight='much'), 'loss_weight must be a number or a ramp'),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MMDHead(**options)
