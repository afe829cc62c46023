"""CORAL of both modalities: what counts, its scale, and what it does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gckd_mm.models.uda import coral_head
from gckd_mm.models.uda.adaptation_head import CrossDomainFeats
from gckd_mm.models.uda.coral_head import CORALHead
from gckd_mm.registry import MODELS


def unit(rows: int, seed: int, stretch: float = 1.0, dim: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    feats = torch.randn(rows, dim, generator=generator)
    return F.normalize(feats * torch.linspace(1, stretch, dim), dim=1)


def both_domains(rows: int = 8, dim: int = 6) -> CrossDomainFeats:
    index = torch.arange(rows)
    return CrossDomainFeats(
        {'images': unit(rows, 0, dim=dim), 'captions': unit(rows, 1, dim=dim)},
        index,
        {'images': unit(rows, 2, 3, dim), 'captions': unit(rows, 3, 9, dim)},
        {'images': index, 'captions': index},
    )


def naive(feats: CrossDomainFeats, modality: str) -> float:
    """A quarter of the squared distance of the covariances of unit embeddings."""
    source, target = (
        np.cov(domain[modality].double().numpy(), rowvar=False)
        for domain in (feats.source, feats.target)
    )
    return float(((source - target) ** 2).sum() / 4)


@pytest.mark.parametrize('dim', [3, 128])
def test_the_scale_is_that_of_unit_embeddings_for_every_size(dim: int) -> None:
    feats = both_domains(dim=dim)

    terms = CORALHead(loss_weight=2.0).loss(feats, 0)

    assert terms.keys() == {'loss_coral_images', 'loss_coral_captions'}
    for modality in ('images', 'captions'):
        assert terms[f'loss_coral_{modality}'].item() == pytest.approx(
            2 * naive(feats, modality), rel=1e-4
        )


def test_a_target_without_captions_aligns_its_images() -> None:
    feats = both_domains()
    expected = CORALHead().loss(feats, 0)
    images = {'images': feats.target['images']}

    terms = CORALHead().loss(feats._replace(target=images), 0)

    assert terms == {'loss_coral_images': expected['loss_coral_images']}


def test_the_covariances_are_those_of_all_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = both_domains()
    expected = CORALHead().loss(whole, 0)
    halves = {
        part: {name: feats[:4] for name, feats in getattr(whole, part).items()}
        for part in ('source', 'target')
    }
    gathered = {
        half.data_ptr(): getattr(whole, part)[name]
        for part, modalities in halves.items()
        for name, half in modalities.items()
    }
    monkeypatch.setattr(
        coral_head, 'gather_with_gradient', lambda feats: gathered[feats.data_ptr()]
    )

    assert CORALHead().loss(whole._replace(**halves), 0) == expected


def test_the_weight_follows_its_schedule() -> None:
    head = CORALHead(loss_weight=dict(start=0.0, end=4.0, length=0.25))
    for schedule in head.schedules.values():
        schedule.num_steps = 32
    once = naive(both_domains(), 'images')

    values = [
        head.loss(both_domains(), step)['loss_coral_images'].item()
        for step in (0, 2, 30)
    ]

    assert values == pytest.approx([0, once, 4 * once], rel=1e-4)


def test_two_gaussians_come_together() -> None:
    source, outputs = unit(64, 0), unit(64, 1, stretch=6)
    encoder = nn.Linear(6, 6, bias=False)
    nn.init.eye_(encoder.weight)
    head = CORALHead(loss_weight=1.0)
    optimiser = torch.optim.Adam(encoder.parameters(), lr=0.05)
    gaps = []
    for step in range(60):
        target = F.normalize(encoder(outputs), dim=1)
        feats = CrossDomainFeats(
            {'images': source, 'captions': source},
            torch.arange(64),
            {'images': target},
            {'images': torch.arange(64)},
        )
        optimiser.zero_grad()
        head.loss(feats, step)['loss_coral_images'].backward()
        optimiser.step()
        gaps.append(naive(feats._replace(target={'images': target.detach()}), 'images'))

    assert gaps[-1] < 0.05 * gaps[0]


def test_a_config_finds_it() -> None:
    assert isinstance(MODELS.build(dict(type='CORALHead')), CORALHead)
