"""The graph over the memories against loops over its nodes and relations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gckd_mm.models.memory_neighbours import OTHER_MODALITY, MemoryNeighbours
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models import MemoryGraph
from gckd_mm.models.gckd.memory import EmbeddingMemory

SIZE, DIM = 10, 4
SIZES = {'size': SIZE, 'dim': DIM}
SHARE, TEMPERATURE = 0.4, 0.3
RELATIONS = ('near', 'cross_domain', 'cross_modal', 'pair')
#: different counts, so that none can stand for another
K = {'near': 2, 'cross_domain': 3, 'cross_modal': 1}
WITH_PAIR = {**K, 'pair': 1}
Rows = list[list[float]]
#: sender, relation, receiver -> the neighbours' rows and similarities of each receiver
NaiveEdges = dict[tuple[str, str, str], list[list[tuple[int, float]]]]


@pytest.fixture(autouse=True)
def _scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        yield


class World:
    """Four memories, the lists over them, and pushes of random embeddings."""

    def __init__(self, graph: MemoryGraph) -> None:
        self.graph = graph
        self.memories = nn.ModuleDict(
            {
                f'{domain}_{modality}': EmbeddingMemory(SIZE, DIM)
                for domain in ('source', 'target')
                for modality in OTHER_MODALITY
            }
        )
        self.neighbours = MemoryNeighbours(SIZE, graph.needed_neighbours())
        self.generator = torch.Generator().manual_seed(0)

    def push(
        self, source: list[int], images: list[int], captions: list[int]
    ) -> dict[str, Tensor]:
        samples = {
            'source_images': source,
            'source_captions': source,
            'target_images': images,
            'target_captions': captions,
        }
        written = {
            name: self.memories[name].push(self.unit(len(keys)), torch.tensor(keys))
            for name, keys in samples.items()
        }
        self.neighbours.update(self.memories, written)
        return written

    def refine(self, written: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        graph = self.graph
        graph.refine(self.memories, self.neighbours, written, graph.neck, step)
        return {
            name: graph.refined(name, len(self.memories[f'target_{name}'])).clone()
            for name in OTHER_MODALITY
        }

    def nodes(self) -> dict[str, Rows]:
        return {name: memory.feats.tolist() for name, memory in self.memories.items()}

    def unit(self, rows: int) -> Tensor:
        feats = torch.randn(rows, DIM, generator=self.generator)
        return F.normalize(feats, dim=1)


def build(k: dict[str, int] | None = None, **neck: Any) -> MemoryGraph:
    return MemoryGraph(
        neck={
            'type': 'GraphPropagationNeck',
            'layer': 'parameter_free',
            'num_layers': 1,
            'share': SHARE,
            'temperature': TEMPERATURE,
            **neck,
        },
        k=K if k is None else k,
        size=SIZE,
        dim=DIM,
        refresh=5,
    )


def naive_nearest(
    rows: Rows, columns: Rows, k: int, exclude: list[int] | None = None
) -> list[list[tuple[int, float]]]:
    found = []
    for i, row in enumerate(rows):
        scores = [
            (j, sum(a * b for a, b in zip(row, column, strict=True)))
            for j, column in enumerate(columns)
            if exclude is None or exclude[i] != j
        ]
        found.append(sorted(scores, key=lambda score: -score[1])[:k])
    return found


def naive_edges(nodes: dict[str, Rows], k: dict[str, int]) -> NaiveEdges:
    """Who hears whom, as the class says."""
    edges: NaiveEdges = {}
    for modality, other in OTHER_MODALITY.items():
        receiver = f'target_{modality}'
        itself = list(range(len(nodes[receiver])))
        for relation, sender, exclude in (
            ('near', receiver, itself),
            ('cross_domain', f'source_{modality}', None),
            ('cross_modal', f'target_{other}', None),
        ):
            if relation in k:
                edges[sender, relation, receiver] = naive_nearest(
                    nodes[receiver], nodes[sender], k[relation], exclude
                )
        if 'pair' in k:
            edges[f'source_{other}', 'pair', f'source_{modality}'] = [
                [(row, 1.0)] for row in range(len(nodes[f'source_{modality}']))
            ]
    return edges


def naive_layer(nodes: dict[str, Rows], edges: NaiveEdges) -> dict[str, Rows]:
    """x + share · (average of all neighbours, in one softmax, − x), then L2 norm."""
    result: dict[str, Rows] = {}
    for name, rows in nodes.items():
        result[name] = []
        for i, own in enumerate(rows):
            heard = [
                (math.exp(similarity / TEMPERATURE), nodes[sender][row])
                for (sender, _, receiver), found in edges.items()
                if receiver == name
                for row, similarity in found[i]
            ]
            mixed = own
            if heard:
                total = sum(weight for weight, _ in heard)
                mixed = [
                    (1 - SHARE) * own[d]
                    + SHARE * sum(weight * said[d] for weight, said in heard) / total
                    for d in range(DIM)
                ]
            norm = math.sqrt(sum(value**2 for value in mixed))
            result[name].append([value / norm for value in mixed])
    return result


def naive_refined(
    nodes: dict[str, Rows], k: dict[str, int], layers: int
) -> dict[str, Tensor]:
    edges = naive_edges(nodes, k)
    for _ in range(layers):
        nodes = naive_layer(nodes, edges)
    return {name: torch.tensor(nodes[f'target_{name}']) for name in OTHER_MODALITY}


@pytest.mark.parametrize(
    ('k', 'layers'),
    [
        *(
            (k, layers)
            for k in (
                K,
                *({name: count} for name, count in K.items()),
                {**K, 'near': 0, 'cross_domain': 50},
            )
            for layers in (1, 2)
        ),
        (WITH_PAIR, 2),
        (WITH_PAIR, 3),
        ({'cross_domain': 3, 'pair': 1}, 2),
    ],
    ids=str,
)
def test_all_are_refined_at_a_refresh(k: dict[str, int], layers: int) -> None:
    world = World(build(k, num_layers=layers))
    world.push([0, 1, 2], [0, 1, 2], [3, 4])
    for step in (0, 5):
        # The second time some are new and some are replaced.
        written = world.push([2, 3, 4], [2, 3, 4, 5], [4, 5, 6])

        found = world.refine(written, step)

        on = {name: count for name, count in k.items() if count}
        expected = naive_refined(world.nodes(), on, layers)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_between_two_refreshes_the_rows_just_written_hear_the_memories() -> None:
    world = World(build())
    before = world.refine(world.push([0, 1, 2], [0, 1, 2], [3, 4, 5]), 0)
    written = world.push([2, 3], [2, 3, 2], [6, 4, 7])

    found = world.refine(written, 1)

    expected = naive_refined(world.nodes(), K, layers=1)
    for name, rows in found.items():
        new = set(written[f'target_{name}'].tolist())
        for slot, row in enumerate(rows):
            if slot in new:
                torch.testing.assert_close(row, expected[name][slot])
            else:
                assert torch.equal(row, before[name][slot])


def test_two_layers_between_two_refreshes_hear_the_memories_as_they_are() -> None:
    # The pairs with them: what a source node hears waits for the next renewal.
    world = World(build(WITH_PAIR, num_layers=2))
    world.refine(world.push([0, 1, 2], [0, 1, 2], [3, 4, 5]), 0)
    written = world.push([2, 3], [2, 3], [6, 4])

    found = world.refine(written, 1)

    nodes = world.nodes()
    edges = naive_edges(nodes, WITH_PAIR)
    once = naive_layer(nodes, edges)
    for name in OTHER_MODALITY:
        receiver = f'target_{name}'
        second = naive_layer(
            {**nodes, 'again': once[receiver]},
            {
                (sender, relation, 'again'): rows
                for (sender, relation, heard_by), rows in edges.items()
                if heard_by == receiver
            },
        )
        slots = written[receiver]
        expected = torch.tensor(second['again'])[slots]
        torch.testing.assert_close(found[name][slots], expected)


def test_the_pair_reaches_the_target_through_the_source() -> None:
    # A target image hears a source image, which heard its caption a layer before.
    both = World(build({'cross_domain': 2, 'pair': 1}, num_layers=2))
    alone = World(build({'cross_domain': 2}, num_layers=2))

    found, without = (
        world.refine(world.push([0, 1], [0, 1], [0, 1]), 0) for world in (both, alone)
    )

    assert not torch.allclose(found['images'], without['images'], atol=1e-3)


@pytest.mark.parametrize('off', RELATIONS)
def test_a_relation_that_is_off_is_neither_searched_nor_asked(off: str) -> None:
    # Pairs cannot do without cross_domain.
    k = K if off == 'cross_domain' else WITH_PAIR
    graph = build({**k, off: 0}, num_layers=2)

    needed = graph.needed_neighbours()

    on = {'near', 'cross_domain', 'cross_modal'} - {off}
    assert needed == {
        (modality, name): K[name] for modality in OTHER_MODALITY for name in on
    }
    assert off not in graph.neck.relations
    assert graph.needs_source == (off != 'cross_domain')


@pytest.mark.parametrize(
    ('k', 'needed'),
    [
        ({'near': 2, 'cross_modal': 2}, False),
        ({'near': 2, 'cross_domain': 1}, True),
    ],
)
def test_it_knows_whether_it_hears_the_source(k: dict[str, int], needed: bool) -> None:
    assert build(k).needs_source == needed


def test_target_images_alone() -> None:
    world = World(build())
    generator = world.generator
    written = dict.fromkeys(world.memories, torch.zeros(0, dtype=torch.int64))
    for name in ('source_images', 'source_captions', 'target_images'):
        feats = F.normalize(torch.randn(5, DIM, generator=generator), dim=1)
        written[name] = world.memories[name].push(feats, torch.arange(5))
    world.neighbours.update(world.memories, written)

    for step in (0, 1):
        found = world.refine(written, step)

        assert found['captions'].shape == (0, DIM)
        expected = naive_refined(world.nodes(), K, layers=1)['images']
        torch.testing.assert_close(found['images'], expected)


def source_batch(world: World) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A source batch of the student, and its slots in the source's memories."""
    world.push([0, 1, 2, 3], [0, 1, 2], [3, 4])
    written = world.push([2, 4, 5], [3, 4], [5, 6])
    feats = {name: world.unit(3).requires_grad_() for name in OTHER_MODALITY}
    return feats, {name: written[f'source_{name}'] for name in OTHER_MODALITY}


def test_the_propagated_source_against_a_loop() -> None:
    world = World(build())
    feats, slots = source_batch(world)

    found = world.graph.propagate_source(feats, slots, world.memories)

    nodes = world.nodes()
    edges: NaiveEdges = {}
    for modality, other in OTHER_MODALITY.items():
        receiver = f'batch_{modality}'
        nodes[receiver] = feats[modality].tolist()
        own = slots[modality].tolist()
        for relation, sender, exclude in (
            ('near', f'source_{modality}', own),
            ('cross_domain', f'target_{modality}', None),
            ('cross_modal', f'source_{other}', own),
        ):
            edges[sender, relation, receiver] = naive_nearest(
                nodes[receiver], nodes[sender], K[relation], exclude
            )
    expected = naive_layer(nodes, edges)
    for modality, rows in found.items():
        torch.testing.assert_close(rows, torch.tensor(expected[f'batch_{modality}']))


def test_a_source_pair_hears_nothing_of_its_own_in_the_memories() -> None:
    world = World(build({**K, 'near': 3, 'cross_modal': 3}))
    feats, slots = source_batch(world)
    first = {name: rows[:1] for name, rows in feats.items()}
    own = {name: rows[:1] for name, rows in slots.items()}
    expected = world.graph.propagate_source(first, own, world.memories)

    for name, rows in own.items():
        # What would be heard before all else.
        world.memories[f'source_{name}'].slot_feats[rows] = feats[name][:1].detach()
    found = world.graph.propagate_source(first, own, world.memories)

    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_learned_neck_changes_nothing_at_first() -> None:
    world = World(build(K, layer='SAGEConv', num_layers=2))
    assert world.graph.learns
    feats, slots = source_batch(world)
    written = world.push([1, 6], [4, 5], [6, 7])

    for step in (0, 1):
        refined = world.refine(written, step)
        for name, rows in refined.items():
            memory = world.memories[f'target_{name}'].feats
            torch.testing.assert_close(rows, memory)
    propagated = world.graph.propagate_source(feats, slots, world.memories)
    torch.testing.assert_close(propagated, feats)


def test_the_source_trains_the_weights_of_every_relation() -> None:
    world = World(build(K, layer='SAGEConv', num_layers=2))
    feats, slots = source_batch(world)
    with torch.no_grad():
        for name, weight in world.graph.named_parameters():
            if name.endswith('gate'):
                weight.fill_(0.5)

    propagated = world.graph.propagate_source(feats, slots, world.memories)
    (propagated['images'] @ propagated['captions'].t()).diagonal().sum().backward()

    for name, weight in world.graph.named_parameters():
        assert weight.grad.abs().sum() > 0, name
    assert all(rows.grad.abs().sum() > 0 for rows in feats.values())


def test_a_closed_gate_can_be_opened_by_the_source() -> None:
    world = World(build(K, layer='SAGEConv'))
    feats, slots = source_batch(world)

    propagated = world.graph.propagate_source(feats, slots, world.memories)
    (propagated['images'] @ propagated['captions'].t()).diagonal().sum().backward()

    gates = {
        name: weight
        for name, weight in world.graph.named_parameters()
        if name.endswith('gate')
    }
    assert len(gates) == 3
    assert all(weight.grad.abs() > 0 for weight in gates.values())


def test_a_neck_that_learns_must_not_hear_the_pairs() -> None:
    with pytest.raises(InputError, match='own answer'):
        build(WITH_PAIR, layer='SAGEConv', num_layers=2)


@pytest.mark.parametrize(
    ('k', 'layers'),
    [
        ({'near': 2, 'pair': 1}, 2),
        ({**WITH_PAIR, 'cross_domain': 0}, 3),
        (WITH_PAIR, 1),
    ],
    ids=str,
)
def test_pairs_that_the_target_could_not_hear_are_refused(
    k: dict[str, int], layers: int
) -> None:
    message = r"'pair' .* needs k\.cross_domain and neck\.num_layers of at least 2"
    with pytest.raises(InputError, match=message):
        build(k, num_layers=layers)


def test_a_neck_without_weights_does_not_learn() -> None:
    assert not build().learns


@pytest.mark.parametrize(
    ('k', 'message'),
    [
        ({}, 'at least one of them not 0'),
        ({'near': 0, 'pair': 0}, 'at least one of them not 0'),
        ({'near': 2, 'far': 1}, "got {'near': 2, 'far': 1}"),
        ({'near': 2, 'pair': 2}, 'pair at most 1'),
        ({'near': -1}, "got {'near': -1}"),
    ],
)
def test_relations_that_make_no_sense_are_refused(
    k: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build(k)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(refresh=0), 'refresh must be at least 1, got 0'),
        (dict(loss_weight='much'), 'loss_weight must be a number or a ramp'),
        (dict(label_share=1.5), 'label_share must be from 0 to 1'),
        (dict(label_share=0.5, k={'cross_modal': 1}), 'and needs k.near'),
    ],
)
def test_other_numbers_that_make_no_sense_are_refused(
    options: dict, message: str
) -> None:
    neck = dict(type='GraphPropagationNeck', layer='parameter_free')
    with pytest.raises(InputError, match=message):
        MemoryGraph(**{'neck': neck, 'k': {'near': 2}, **SIZES, **options})


def test_labels_walk_to_near_neighbours_alone() -> None:
    graph = build()
    world = World(graph)
    world.push([0, 1, 2], [3, 4, 5, 6], [7, 8, 9])
    assert graph.label_walks(world.neighbours) == {}
    graph.label_share = 0.25

    walks = graph.label_walks(world.neighbours)

    for name, walk in walks.items():
        rows = world.nodes()[f'target_{name}']
        near = naive_nearest(rows, rows, K['near'], [*range(len(rows))])
        for row, found in enumerate(near):
            assert walk.ends[row].tolist() == [row, *(end for end, _ in found)]
            weights = [math.exp(score / TEMPERATURE) for _, score in found]
            moves = [0.25 * weight / sum(weights) for weight in weights]
            assert walk.chances[row].tolist() == pytest.approx([0.75, *moves])
    assert set(walks) == {'images', 'captions'}
