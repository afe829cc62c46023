"""Contrast with clusters, in a world whose persons are known to the test alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.uda.adaptation_head import CrossDomainFeats
from gckd_mm.models.uda.cluster_contrast_head import ClusterContrastHead
from tests.training import on_ranks

pytest.importorskip('sklearn')

PERSONS, EACH, DIM = 8, 4, 16
NUM = PERSONS * EACH
#: the person of each target image and caption
PERSON = torch.arange(NUM) // EACH
LOSSES = ('loss_cluster_source', 'loss_cluster_images', 'loss_cluster_captions')


def around(centres: Tensor, noise: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    chance = torch.randn(NUM, DIM, generator=generator) / math.sqrt(DIM)
    return F.normalize(centres[PERSON] + noise * chance, dim=1)


class World:
    """Embeddings of a source and of a target with other persons."""

    def __init__(self, noise: float = 0.3, spread: float = 1.0) -> None:
        middle = F.normalize(torch.ones(DIM), dim=0)
        centres = F.normalize((1 - spread) * middle + spread * torch.eye(DIM), dim=1)
        self.images = around(centres[:PERSONS], noise, seed=1)
        self.captions = around(centres[:PERSONS], 2 * noise, seed=2)
        self.source = around(torch.eye(DIM)[PERSONS:], noise, seed=3)

    def batch(
        self, rows: Tensor, captions: Tensor | None = None, source: Tensor | None = None
    ) -> CrossDomainFeats:
        """Some images, captions (of the same rows by default) and source images."""
        captions = rows if captions is None else captions
        source = rows if source is None else source
        return CrossDomainFeats(
            {'images': self.source[source], 'captions': self.source[source]},
            PERSON[source] + 100,
            {'images': self.images[rows], 'captions': self.captions[captions]},
            {'images': rows, 'captions': captions},
        )


def build(**options: Any) -> ClusterContrastHead:
    defaults = dict(k1=4, k2=2, min_samples=2, refresh=3)
    return ClusterContrastHead(
        **{'embedding_size': DIM, 'memory_size': 64, **defaults, **options}
    )


def halves() -> tuple[Tensor, Tensor]:
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(4))
    return order[: NUM // 2], order[NUM // 2 :]


def see_all(head: ClusterContrastHead, world: World) -> None:
    """Show all of the world in steps 0 and 1; step 2 will cluster."""
    for step, rows in enumerate(halves()):
        head.terms(world.batch(rows), step)


def same(classes: Tensor) -> Tensor:
    return classes[:, None] == classes[None]


def test_the_clusters_are_the_persons_and_captions_find_theirs() -> None:
    head, world = build(), World()
    see_all(head, world)

    terms = head.terms(world.batch(*halves()), 2)

    keys = head.memories['images'].keys
    classes = head.images_classes[:NUM]
    assert torch.equal(same(classes), same(PERSON[keys]))
    person_of_class = dict(zip(classes.tolist(), PERSON[keys].tolist(), strict=True))
    keys = head.memories['captions'].keys
    found = [person_of_class[each] for each in head.captions_classes[:NUM].tolist()]
    assert found == PERSON[keys].tolist()
    assert terms['clusters'] == PERSONS
    assert terms['clustered_images'] == terms['labelled_captions'] == 1


def test_until_the_first_clustering_the_losses_are_zero_with_a_gradient_path() -> None:
    head, world = build(), World()
    for step, rows in enumerate(halves()):
        world.images.requires_grad_()
        world.captions.requires_grad_()
        world.source.requires_grad_()

        terms = head.terms(world.batch(rows), step)
        sum(terms[name] for name in LOSSES).backward()

        assert [terms[name].item() for name in LOSSES] == [0, 0, 0]
        for feats in (world.images, world.captions, world.source):
            assert torch.equal(feats.grad, torch.zeros(NUM, DIM))
        assert head.last_clustering == -1
        assert terms['clusters'] == terms['clustered_images'] == 0


def naive_cross_entropy(
    feats: Tensor, centroids: Tensor, labels: list[int], temperature: float
) -> float:
    losses = []
    for feat, label in zip(feats.double(), labels, strict=True):
        logits = [float(feat @ each) / temperature for each in centroids.double()]
        losses.append(math.log(sum(map(math.exp, logits))) - logits[label])
    return sum(losses) / len(losses)


def test_the_losses_against_a_loop() -> None:
    head, world = build(temperature=0.2, source_weight=3.0, caption_weight=0.5), World()
    see_all(head, world)
    # The source's persons are momentum means; with each seen in both halves, two steps.
    persons = torch.zeros(PERSONS, DIM)
    for rows in halves():
        for person in PERSON[rows].unique().tolist():
            new = world.source[rows[PERSON[rows] == person]].mean(dim=0)
            old = persons[person]
            mixed = new if old.norm() == 0 else 0.2 * old + 0.8 * new
            persons[person] = F.normalize(mixed, dim=0)
    target = torch.stack([world.images[p == PERSON].mean(0) for p in range(PERSONS)])
    centroids = torch.cat([F.normalize(target, dim=1), persons])
    moved = World(noise=0.5)  # not what the memory holds
    images, captions = halves()
    source = captions.flip(0)

    terms = head.terms(moved.batch(images, captions, source), 2)

    expected = (
        3.0
        * naive_cross_entropy(
            moved.source[source], centroids, (PERSONS + PERSON[source]).tolist(), 0.2
        ),
        naive_cross_entropy(
            moved.images[images], centroids, PERSON[images].tolist(), 0.2
        ),
        0.5
        * naive_cross_entropy(
            moved.captions[captions], centroids, PERSON[captions].tolist(), 0.2
        ),
    )
    assert [terms[name].item() for name in LOSSES] == pytest.approx(expected, rel=1e-4)


def test_the_memory_mixes_what_it_holds_with_the_mean_of_what_comes() -> None:
    head, world, later = build(memory_momentum=0.25), World(), World(noise=0.6)
    rows = torch.tensor([3, 9])
    head.terms(world.batch(rows), 0)

    head.terms(later.batch(torch.tensor([9, 3, 9])), 1)

    memory = head.memories['images']
    assert memory.keys.tolist() == [3, 9]
    mixed = 0.25 * world.images[rows] + 0.75 * later.images[rows]
    torch.testing.assert_close(memory.feats, F.normalize(mixed, dim=1))


def test_persons_of_a_batch_enter_the_memory_as_their_mean() -> None:
    head, world = build(), World()
    rows = torch.tensor([0, 4, 1, 2])

    head.terms(world.batch(rows), 0)

    memory = head.memories['persons']
    means = {
        100: world.source[[0, 1, 2]].mean(dim=0),
        101: world.source[4],
    }
    assert sorted(memory.keys.tolist()) == [100, 101]
    for key, feat in zip(memory.keys.tolist(), memory.feats, strict=True):
        torch.testing.assert_close(feat, F.normalize(means[key], dim=0))


@pytest.mark.parametrize(
    ('options', 'clusterings'),
    [
        (dict(), [-1, -1, 2, 2, 2, 5, 5]),  # all held from step 2 on
        (dict(warmup=1), [-1, 1, 1, 1, 4, 4, 4]),
        (dict(warmup=0), [-1, 1, 1, 1, 4, 4, 4]),  # nothing is held at step 0
        (dict(memory_size=16), [-1, 1, 1, 1, 4, 4, 4]),  # full after step 0
    ],
)
def test_when_the_images_are_clustered(options: dict, clusterings: list[int]) -> None:
    head, world = build(**options), World()
    found = []
    for step in range(7):
        head.terms(world.batch(halves()[step % 2]), step)
        found.append(int(head.last_clustering))

    assert found == clusterings


def test_samples_that_came_since_the_clustering_have_no_class() -> None:
    head, world = build(), World()
    head.terms(world.batch(torch.arange(16)), 0)
    head.terms(world.batch(torch.arange(16)), 1)
    rows = torch.tensor([0, 20, 21, 1])
    head.terms(world.batch(rows), 2)  # 20 and 21 are held now, but were not
    images = world.images.clone().requires_grad_()
    world.images = images

    terms = head.terms(world.batch(rows), 3)
    terms['loss_cluster_images'].backward()

    assert terms['clustered_images'] == terms['labelled_captions'] == 0.5
    moved = images.grad[rows].abs().sum(dim=1) > 0
    assert moved.tolist() == [True, False, False, True]


def test_a_slot_that_another_sample_took_loses_its_class() -> None:
    head, world = build(memory_size=16, refresh=50), World()
    head.terms(world.batch(torch.arange(16)), 0)
    assert head.terms(world.batch(torch.arange(16)), 1)['clusters'] == 4
    head.terms(world.batch(torch.arange(16, 32)), 2)

    terms = head.terms(world.batch(torch.arange(16)), 3)

    assert terms['clusters'] == terms['clustered_images'] == 0
    assert terms['loss_cluster_images'] == terms['loss_cluster_captions'] == 0


def gap(feats: Tensor, others: Tensor) -> float:
    """Return the mean similarity of pairs of one person less that of other pairs."""
    similarity, mates = feats @ others.t(), same(PERSON)
    return float(similarity[mates].mean() - similarity[~mates].mean())


def descend(head: ClusterContrastHead, world: World, steps: int) -> World:
    """Move the embeddings themselves down the losses; return where they end."""
    raw = {
        name: getattr(world, name).clone().requires_grad_()
        for name in ('images', 'captions', 'source')
    }
    optimizer = torch.optim.SGD(raw.values(), lr=2.0)
    generator = torch.Generator().manual_seed(5)
    now = World()
    for step in range(steps):
        for name, feats in raw.items():
            setattr(now, name, F.normalize(feats, dim=1))
        images, captions, source = (
            torch.randperm(NUM, generator=generator)[:16] for _ in range(3)
        )
        terms = head.loss(now.batch(images, captions, source), step)
        loss = sum(value for name, value in terms.items() if name.startswith('loss'))
        assert loss.isfinite()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, feats in raw.items():
        setattr(now, name, F.normalize(feats.detach(), dim=1))
    return now


def test_descending_tightens_persons_and_brings_captions_to_their_images() -> None:
    world = World(noise=0.6, spread=0.6)

    after = descend(build(temperature=0.2), world, steps=60)

    for one, other in (('images', 'images'), ('captions', 'images')):
        before = gap(getattr(world, one), getattr(world, other))
        assert gap(getattr(after, one), getattr(after, other)) > before + 0.15


def test_images_outside_all_clusters_train_as_instances() -> None:
    head, world = build(eps=1e-6, margin=0.0, k2=1), World(noise=0.6, spread=0.3)
    see_all(head, world)
    world.images.requires_grad_()

    terms = head.terms(world.batch(halves()[0]), 2)
    terms['loss_cluster_images'].backward()

    assert terms['clusters'] == terms['clustered_images'] == 0
    assert head.images_classes[:NUM].tolist() == list(range(NUM))
    assert (world.images.grad[halves()[0]].abs().sum(dim=1) > 0).all()
    world.images = world.images.detach()
    after = descend(build(eps=1e-6, margin=0.0, k2=1), world, steps=40)
    others = ~torch.eye(NUM, dtype=torch.bool)
    similarity = [each.images @ each.images.t() for each in (world, after)]
    assert similarity[1][others].mean() < similarity[0][others].mean() - 0.1


@pytest.mark.parametrize('with_source', [True, False])
def test_one_cluster_for_all_stays_finite(with_source: bool) -> None:
    head, world = build(k1=40, k2=3), World()
    world.images = F.normalize(torch.ones(NUM, DIM), dim=1)
    see_all(head, world)
    if not with_source:
        head.memories['persons'].reset()
    world.images.requires_grad_()
    world.captions.requires_grad_()

    terms = head.terms(world.batch(*halves()), 2)
    sum(terms[name] for name in LOSSES).backward()

    assert terms['clusters'] == 1
    assert all(terms[name].isfinite() for name in LOSSES)
    assert world.images.grad.isfinite().all()
    assert world.captions.grad.isfinite().all()


def without_captions(batch: CrossDomainFeats) -> CrossDomainFeats:
    return batch._replace(
        target={'images': batch.target['images']},
        keys={'images': batch.keys['images']},
    )


def test_without_target_captions_the_images_still_train() -> None:
    heads, world = (build(), build()), World()
    see_all(heads[0], world)
    for step, rows in enumerate(halves()):
        heads[1].terms(without_captions(world.batch(rows)), step)
    batch = world.batch(*halves())

    both = heads[0].terms(batch, 2)
    alone = heads[1].terms(without_captions(batch), 2)

    assert both.keys() - alone.keys() == {'loss_cluster_captions', 'labelled_captions'}
    assert alone['loss_cluster_images'] > 0
    assert all(alone[name] == both[name] for name in alone)


def test_a_resumed_head_goes_on_exactly() -> None:
    head, world = build(), World(noise=0.8, spread=0.5)
    see_all(head, world)
    head.terms(world.batch(*halves()), 2)
    resumed = build()
    resumed.load_state_dict(head.state_dict())

    for step in range(3, 7):
        expected = head.terms(world.batch(*halves()), step)
        found = resumed.terms(world.batch(*halves()), step)

        assert found == expected
    torch.testing.assert_close(resumed.state_dict(), head.state_dict(), rtol=0, atol=0)


def test_reset_forgets_everything() -> None:
    head, world = build(), World()
    fresh = {name: value.clone() for name, value in head.state_dict().items()}
    see_all(head, world)
    head.terms(world.batch(*halves()), 2)
    changed = {
        name
        for name, value in head.state_dict().items()
        if not torch.equal(value, fresh[name])
    }

    head.reset()

    assert {'images_classes', 'captions_keys', 'threshold'} <= changed
    torch.testing.assert_close(head.state_dict(), fresh, rtol=0, atol=0, equal_nan=True)


def test_autocast_changes_nothing() -> None:
    heads, world = (build(), build()), World()
    see_all(heads[0], world)
    expected = heads[0].terms(world.batch(*halves()), 2)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        see_all(heads[1], world)
        found = heads[1].terms(world.batch(*halves()), 2)

    assert found == expected


def _terms_on_this_rank(folder: Path) -> None:
    torch.distributed.init_process_group('gloo')
    rank = torch.distributed.get_rank()
    torch.save(_run(rank, 2), folder / f'{rank}.pth')


def _run(rank: int, ranks: int) -> dict[str, Any]:
    """Terms, gradients and the memories' contents of four steps of one rank."""
    head, world = build(), World(noise=0.8, spread=0.5)
    terms = {}
    for step in range(4):
        # A sample twice in a batch, on two ranks.
        rows = torch.cat([halves()[step % 2], halves()[step % 2][:2]])
        parts = (rows, rows.flip(0), rows.roll(3))
        world.images = world.images.detach().requires_grad_()
        batch = world.batch(*(part.chunk(ranks)[rank] for part in parts))
        terms = head.terms(batch, step)
        sum(terms[name] for name in LOSSES).backward()
    if ranks > 1:
        torch.distributed.all_reduce(world.images.grad)
    names = ('images_classes', 'captions_classes', 'threshold')
    return {
        'terms': {name: value.detach() for name, value in terms.items()},
        'gradient': world.images.grad / ranks,
        'state': {name: head.state_dict()[name] for name in names},
        'memory': head.memories['images'].feats.clone(),
        'persons': head.memories['persons'].feats.clone(),
    }


def test_two_ranks_compute_what_one_process_does(tmp_path: Path) -> None:
    expected = _run(0, 1)
    assert expected['terms']['clusters'] > 0

    on_ranks(_terms_on_this_rank, 2, tmp_path)

    for rank in range(2):
        found = torch.load(tmp_path / f'{rank}.pth')
        torch.testing.assert_close(found, expected)


def test_the_weight_scales_the_losses_alone() -> None:
    heads, world = (build(), build(loss_weight=0.5)), World()
    for head in heads:
        see_all(head, world)

    one, half = (head.loss(world.batch(*halves()), 2) for head in heads)

    assert all(half[name] == 0.5 * one[name] for name in LOSSES)
    assert half['clusters'] == one['clusters'] > 0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(k1=0), 'k1 must be at least 1, got 0'),
        (dict(k2=0), 'k2 must be at least 1, got 0'),
        (dict(min_samples=0), 'min_samples must be at least 1, got 0'),
        (dict(refresh=0), 'refresh must be at least 1, got 0'),
        (dict(warmup=-1), 'must not be negative, got -1, 1.0 and 1.0'),
        (dict(source_weight=-1.0), 'must not be negative, got 50, -1.0 and 1.0'),
        (dict(caption_weight=-1.0), 'must not be negative, got 50, 1.0 and -1.0'),
        (dict(eps=0.0), 'got eps=0.0 and margin=0.02'),
        (dict(eps=0.99), 'got eps=0.99 and margin=0.02'),
        (dict(margin=-0.1), 'got eps=0.6 and margin=-0.1'),
        (dict(memory_momentum=1.0), r'must be in \[0, 1\), got 1.0'),
        (dict(temperature=0.0), 'must be positive, got 0.0 and 1.0'),
        (dict(capacity=0.0), 'must be positive, got 0.05 and 0.0'),
        (dict(loss_weight='much'), 'loss_weight must be a number or a ramp'),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**options)
