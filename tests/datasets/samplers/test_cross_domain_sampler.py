"""Triples of three streams that know nothing of each other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gckd_mm.datasets.draw import Draw
from gckd_mm.datasets.samplers import CrossDomainSampler, PairedSampler, draw_sampler
from gckd_mm.errors import InputError


class Pairs:
    """As much of a labelled dataset as the sampler may look at."""

    def __init__(self, size: int) -> None:
        self.pids = np.arange(size) // 2

    def __len__(self) -> int:
        return len(self.pids)


class CrossDomain:
    """As much of a cross-domain dataset as the sampler may look at."""

    def __init__(self, source: int, images: int, captions: int) -> None:
        self.source = Pairs(source)
        self.num_target_images = images
        self.num_target_captions = captions

    def __len__(self) -> int:
        return len(self.source)


def triples(sampler: CrossDomainSampler, number: int) -> list[tuple]:
    return [draw.index for draw in itertools.islice(sampler, number)]


def test_each_stream_has_passes_of_its_own() -> None:
    sizes = (6, 10, 15)
    drawn = triples(CrossDomainSampler(CrossDomain(*sizes), seed=0), 60)

    for stream, size in zip(zip(*drawn, strict=True), sizes, strict=True):
        passes = [stream[start : start + size] for start in range(0, 60, size)]
        assert all(sorted(one_pass) == list(range(size)) for one_pass in passes)
        assert len(set(passes)) == len(passes)


def test_streams_of_equal_size_are_independent() -> None:
    size = 200
    dataset = CrossDomain(size, size, size)
    drawn = triples(CrossDomainSampler(dataset, seed=0), 3 * size)

    for one, other in itertools.combinations(zip(*drawn, strict=True), 2):
        # Independent permutations agree in one place a pass, on average.
        assert sum(a == b for a, b in zip(one, other, strict=True)) < 15
        assert len(set(zip(one, other, strict=True))) > 2.9 * size


@pytest.mark.parametrize('captions', [0, 7, 100])
def test_no_stream_depends_on_the_size_of_another(captions: int) -> None:
    drawn = triples(CrossDomainSampler(CrossDomain(6, 10, captions), seed=0), 40)
    expected = triples(CrossDomainSampler(CrossDomain(6, 10, 15), seed=0), 40)

    assert [triple[:2] for triple in drawn] == [triple[:2] for triple in expected]


def test_the_source_is_drawn_as_without_a_target() -> None:
    dataset = CrossDomain(12, 10, 15)

    for instances in (None, 3):
        drawn = triples(CrossDomainSampler(dataset, 0, instances), 40)
        paired = PairedSampler(dataset.source, 0, instances)
        assert [triple[0] for triple in drawn] == [
            draw.index for draw in itertools.islice(paired, 40)
        ]


def test_a_target_without_captions() -> None:
    drawn = triples(CrossDomainSampler(CrossDomain(6, 10, 0), seed=0), 20)

    assert {triple[2] for triple in drawn} == {None}


def test_a_target_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match='at least one index'):
        CrossDomainSampler(CrossDomain(6, 0, 10), seed=0)


def test_seeds_differ_in_every_stream() -> None:
    dataset = CrossDomain(30, 30, 30)
    streams = [
        stream
        for seed in range(4)
        for stream in zip(*triples(CrossDomainSampler(dataset, seed), 30), strict=True)
    ]

    assert len(set(streams)) == 12


@pytest.mark.parametrize('world_size', [2, 3])
@pytest.mark.parametrize('skipped', [0, 11])
def test_the_ranks_interleave_to_one_stream(
    monkeypatch: pytest.MonkeyPatch, world_size: int, skipped: int
) -> None:
    dataset = CrossDomain(6, 10, 15)
    alone = list(
        itertools.islice(
            CrossDomainSampler(dataset, seed=0),
            skipped * world_size,
            (skipped + 40) * world_size,
        )
    )

    ranks = []
    for rank in range(world_size):
        info = (rank, world_size)
        monkeypatch.setattr(draw_sampler, 'get_dist_info', lambda info=info: info)
        sampler = CrossDomainSampler(dataset, seed=0)
        sampler.skip(skipped)
        ranks.append(itertools.islice(sampler, 40))

    assert [draw for draws in zip(*ranks, strict=True) for draw in draws] == alone


def test_a_dataset_without_target_is_refused() -> None:
    with pytest.raises(InputError, match='for one domain use PairedSampler'):
        CrossDomainSampler([1, 2, 3], seed=0)


@pytest.mark.parametrize('instances', [None, 3])
@pytest.mark.parametrize('world_size', [1, 2])
def test_the_source_stage_draws_what_a_source_only_run_draws(
    monkeypatch: pytest.MonkeyPatch, world_size: int, instances: int | None
) -> None:
    dataset = CrossDomain(12, 10, 15)
    for rank in range(world_size):
        info = (rank, world_size)
        monkeypatch.setattr(draw_sampler, 'get_dist_info', lambda info=info: info)
        sampler = CrossDomainSampler(dataset, 0, instances, 5, batch_size=4)
        paired = PairedSampler(dataset.source, 0, instances)

        drawn = list(itertools.islice(sampler, 20))
        assert drawn == [  # the augmentation's seeds included
            Draw((draw.index, None, None), draw.seed)
            for draw in itertools.islice(paired, 20)
        ]


@pytest.mark.parametrize('world_size', [1, 2])
@pytest.mark.parametrize('captions', [0, 15])
def test_the_target_begins_with_its_first_entry_when_the_adaptation_does(
    monkeypatch: pytest.MonkeyPatch, world_size: int, captions: int
) -> None:
    dataset = CrossDomain(12, 10, captions)
    for rank in range(world_size):
        info = (rank, world_size)
        monkeypatch.setattr(draw_sampler, 'get_dist_info', lambda info=info: info)
        staged = triples(CrossDomainSampler(dataset, 0, None, 5, batch_size=4), 60)
        plain = triples(CrossDomainSampler(dataset, 0), 60)

        assert [triple[0] for triple in staged] == [triple[0] for triple in plain]
        assert [triple[1:] for triple in staged[20:]] == [
            triple[1:] for triple in plain[:40]
        ]


@pytest.mark.parametrize('skipped', [0, 7, 20, 33])
def test_skipping_knows_of_the_source_stage(skipped: int) -> None:
    dataset = CrossDomain(12, 10, 15)
    whole = itertools.islice(
        CrossDomainSampler(dataset, 0, None, 5, batch_size=4), skipped, 60
    )
    sampler = CrossDomainSampler(dataset, 0, None, 5, batch_size=4)
    sampler.skip(skipped)

    assert list(itertools.islice(sampler, 60 - skipped)) == list(whole)


@pytest.mark.parametrize(
    ('source_iters', 'batch_size', 'message'),
    [
        (-1, 4, 'source_iters must not be negative, got -1'),
        (5, None, 'needs the batch_size of the loader'),
        (5, 0, 'needs the batch_size of the loader'),
    ],
)
def test_a_source_stage_that_cannot_be_counted_is_refused(
    source_iters: int, batch_size: int | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        CrossDomainSampler(CrossDomain(6, 10, 15), 0, None, source_iters, batch_size)
