"""Heads on memories of the target: two ranks do what one process does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from gckd_mm.models.uda import (
    CrossDomainFeats,
    MutualNeighbourHead,
    POUFHead,
)
from tests.training import in_process, on_ranks

HEADS = {'pouf': POUFHead, 'mutual_neighbour': MutualNeighbourHead}
MODALITIES = ('images', 'captions')
DIM, BATCH, STEPS = 6, 8, 3


def _steps(out: Path, name: str, world_size: int) -> None:
    """Write the losses, gradients and state of steps on a rank's part of each batch."""
    if world_size > 1:
        torch.distributed.init_process_group('gloo')
    rank = torch.distributed.get_rank() if world_size > 1 else 0
    head = HEADS[name](embedding_size=DIM, memory_size=20, temperature=0.2)
    generator = torch.Generator().manual_seed(0)
    results = []
    for step in range(STEPS):
        target, keys = {}, {}
        for modality in MODALITIES:
            feats = F.normalize(torch.randn(BATCH, DIM, generator=generator), dim=1)
            part = feats.chunk(world_size)[rank].requires_grad_()
            target[modality] = part
            # half of each batch has been seen in the one before
            keys[modality] = torch.arange(BATCH).chunk(world_size)[rank] + 4 * step
        feats = CrossDomainFeats({}, torch.empty(0, dtype=torch.int64), target, keys)
        losses = head.loss(feats, step)
        sum(v for name, v in losses.items() if 'loss' in name).backward()
        gradients = {m: target[m].grad / world_size for m in MODALITIES}
        results.append(({k: v.detach() for k, v in losses.items()}, gradients))
    torch.save((results, head.state_dict()), out.with_suffix(f'.{rank}'))


@pytest.mark.parametrize('name', HEADS)
def test_two_ranks_do_what_one_process_does(name: str, tmp_path: Path) -> None:
    one, two = tmp_path / 'one', tmp_path / 'two'
    assert in_process(_steps, one, name, 1) == 0
    on_ranks(_steps, 2, two, name, 2)

    expected, state = torch.load(one.with_suffix('.0'))
    ranks = [torch.load(two.with_suffix(f'.{rank}')) for rank in (0, 1)]
    for step, (losses, gradients) in enumerate(expected):
        for results, _ in ranks:
            torch.testing.assert_close(results[step][0], losses)
        for modality, gradient in gradients.items():
            assert gradient.any()
            parts = [results[step][1][modality] for results, _ in ranks]
            torch.testing.assert_close(torch.cat(parts), gradient)
    for _, found in ranks:
        torch.testing.assert_close(found, state)
