"""The model with a learned neck: the source trains it, the teacher propagates."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.gckd import learned_graph as module
from gckd_mm.models.gckd.learned_graph import propagate_source
from gckd_mm.models.gckd.model import AdaptationBatch
from gckd_mm.models.gckd.relations import MODALITIES, RELATIONS
from tests.models.gckd import test_graph
from tests.models.gckd.test_graph import (
    ADDED,
    WITH_ADDED,
    K,
    NaiveEdges,
    World,
    naive_layer,
    naive_nearest,
    senders,
)
from tests.models.gckd.test_model import (
    LEARNED,
    adapt,
    begin,
    build,
    collated,
    losses_of,
    of_teacher,
    without,
)


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RELATIONS, 'across', ADDED)


def source_batch(world: World) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A source batch of the student, and its slots in the source's memories."""
    world.push([0, 1, 2, 3], [0, 1, 2], [3, 4])
    feats = {m: world.unit(3).requires_grad_() for m in ('images', 'captions')}
    keys = torch.tensor([2, 4, 5])
    slots = {m: world.memories[f'source_{m}'].push(feats[m], keys) for m in feats}
    return feats, slots


def test_the_propagated_source_against_a_loop() -> None:
    world = World(test_graph.build())
    feats, slots = source_batch(world)
    for modality, rows in feats.items():  # what the student has by now
        feats[modality] = F.normalize(rows + 0.1 * world.unit(3), dim=1)

    found = propagate_source(world.graph, feats, slots, world.memories)

    nodes = world.nodes()
    edges: NaiveEdges = {}
    for modality in feats:
        receiver = f'batch_{modality}'
        nodes[receiver] = feats[modality].tolist()
        for relation, sender in senders('source', modality).items():
            # Neither itself nor its other half, which would give the answer away.
            own = slots[modality].tolist() if sender.startswith('source') else None
            edges[sender, relation, receiver] = naive_nearest(
                nodes[receiver], nodes[sender], WITH_ADDED[relation], own
            )
    expected = naive_layer(nodes, edges)
    for modality, rows in found.items():
        torch.testing.assert_close(rows, torch.tensor(expected[f'batch_{modality}']))


def test_a_learned_neck_changes_nothing_at_first() -> None:
    world = World(test_graph.build(K, layer='SAGEConv', num_layers=2))
    assert world.graph.learns
    feats, slots = source_batch(world)
    rows = world.push([1, 6], [4, 5], [6, 7])

    for step in (0, 1):
        for name, propagated in world.propagate(rows, step).items():
            memory = world.memories[f'target_{name}'].feats
            torch.testing.assert_close(propagated, memory)
    propagated = propagate_source(world.graph, feats, slots, world.memories)
    torch.testing.assert_close(propagated, feats)


@pytest.mark.parametrize('gate', [0.0, 0.5])
def test_the_source_trains_the_weights_of_every_relation(gate: float) -> None:
    world = World(test_graph.build(layer='SAGEConv', num_layers=2))
    feats, slots = source_batch(world)
    weights = dict(world.graph.named_parameters())
    gates = {name for name in weights if name.endswith('gate')}
    with torch.no_grad():
        for name in gates:
            weights[name].fill_(gate)

    propagated = propagate_source(world.graph, feats, slots, world.memories)
    (propagated['images'] @ propagated['captions'].t()).diagonal().sum().backward()

    # A closed gate can be opened; behind it nothing is trained.
    for name in gates if gate == 0 else weights:
        assert weights[name].grad.abs().sum() > 0, name
    assert len(gates) >= len(WITH_ADDED)
    assert all(rows.grad.abs().sum() > 0 for rows in feats.values())


def test_a_learned_neck_is_trained_and_its_teacher_follows() -> None:
    model = begin(build(graph=LEARNED, teacher_momentum=0.5))
    for step in range(3):
        adapt(model, collated(step), step, lr=0.5)

    state, teacher = model.graph.neck.state_dict(), of_teacher(model)
    gates = [name for name in state if name.endswith('gate')]
    assert len(gates) == 3
    for name in gates:
        own, averaged = state[name].item(), teacher[f'graph_neck.{name}'].item()
        assert own != 0
        assert averaged not in (0, own)


@pytest.mark.parametrize('rank', [0, 1])
def test_a_learned_neck_leaves_out_the_own_pairs_of_its_rank(
    monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    model = begin(build(graph=LEARNED))
    given: list[dict[str, Tensor]] = []
    monkeypatch.setattr(module, 'get_world_size', lambda: 2)
    monkeypatch.setattr(module, 'get_rank', lambda: rank)
    monkeypatch.setattr(
        module,
        'propagate_source',
        lambda graph, feats, rows, _: given.append(rows) or feats,
    )
    feats = {m: torch.nn.functional.normalize(torch.randn(2, 16)) for m in MODALITIES}
    slots = {
        'source_images': torch.tensor([4, 2, 0, 1]),
        'source_captions': torch.tensor([7, 9, 8, 5]),
    }
    batch = AdaptationBatch(
        feats, torch.arange(2), {}, slots, model.graph.edges(model.memories), {}, 0
    )

    model.losses(batch)

    assert [rows.tolist() for rows in given[0].values()] == [
        slots[f'source_{modality}'].tolist()[2 * rank : 2 * rank + 2]
        for modality in given[0]
    ]


def test_the_target_is_propagated_with_the_neck_of_the_teacher() -> None:
    model = begin(build(graph=LEARNED))
    with torch.no_grad():
        for name, weight in model.graph.neck.named_parameters():
            if name.endswith('gate'):
                weight.fill_(1)  # the teacher's is still closed

    losses_of(model, collated())

    for modality in ('images', 'captions'):
        memory = model.memories[f'target_{modality}'].feats
        propagated = model.graph.get_buffer(f'propagated_{modality}')[:5]
        torch.testing.assert_close(propagated, memory)


def test_without_soft_labels_a_learned_neck_still_trains() -> None:
    model = begin(build(**without('distill'), graph=LEARNED))

    terms = losses_of(model, collated())
    terms['loss_graph_sdm'].backward()

    for name, weight in model.graph.neck.named_parameters():
        if name.endswith('gate'):
            assert weight.grad.abs() > 0, name
    assert not model.graph.propagated_images.any()


def test_a_graph_whose_weights_nothing_trains_is_refused() -> None:
    with pytest.raises(InputError, match='in GCKDWithLearnedGraph, which trains them'):
        build(graph=dict(LEARNED, refresh=4))
    with pytest.raises(InputError, match=r'graph\.neck must have weights'):
        build(type='GCKDWithLearnedGraph')


def test_a_graph_without_a_neck_propagates_no_source() -> None:
    world = World(test_graph.build())
    world.graph.neck = None

    with pytest.raises(InputError, match='no neck'):
        propagate_source(world.graph, {}, {}, world.memories)
