"""The graph over the memories against loops over its nodes and relations."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models import MemoryGraph
from gckd_mm.models.gckd.graph import Edges
from gckd_mm.models.gckd.memory import EmbeddingMemory, NeighbourLists
from gckd_mm.models.gckd.relations import RELATIONS, Relation

SIZE, DIM = 10, 4
ALPHA, TEMPERATURE = 0.4, 0.3
OTHER = {'images': 'captions', 'captions': 'images', 'source': 'target'}
OTHER['target'] = 'source'
#: different counts, so that none can stand for another
K = {'near': 2, 'cross_domain': 3, 'cross_modal': 1}
#: a relation that the package does not have, as a user would add it
ADDED = Relation(same_domain=False, same_modality=False, excludes_self=False)
WITH_ADDED = {**K, 'across': 4}
Rows = list[list[float]]
#: sender, relation, receiver -> the neighbours' rows and similarities of each receiver
NaiveEdges = dict[tuple[str, str, str], list[list[tuple[int, float]]]]


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RELATIONS, 'across', ADDED)


class World:
    """Four memories, a graph over them, and pushes of random embeddings."""

    def __init__(self, graph: MemoryGraph) -> None:
        self.graph = graph
        names = [
            f'{d}_{m}' for d in ('source', 'target') for m in ('images', 'captions')
        ]
        self.memories = {name: EmbeddingMemory(SIZE, DIM) for name in names}
        self.generator = torch.Generator().manual_seed(0)

    def push(
        self, source: list[int], images: list[int], captions: list[int]
    ) -> dict[str, Tensor]:
        """Return the slots in the target's memories."""
        samples = {
            'source_images': source,
            'source_captions': source,
            'target_images': images,
            'target_captions': captions,
        }
        slots = {
            name: self.memories[name].push(self.unit(len(keys)), torch.tensor(keys))
            for name, keys in samples.items()
            if keys
        }
        return {m: slots[f'target_{m}'] for m in OTHER if f'target_{m}' in slots}

    def push_any(self) -> dict[str, Tensor]:
        """Push some of 14 samples, more than fit; as many in no two memories."""
        return self.push(
            *(
                torch.randint(14, (count,), generator=self.generator).tolist()
                for count in (2, 4, 5)
            )
        )

    def edges(self) -> Edges:
        return self.graph.edges(self.memories)

    def propagate(self, slots: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        graph = self.graph
        found = graph.propagate(self.memories, self.edges(), slots, graph.neck, step)
        return {name: rows.clone() for name, rows in found.items()}

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
            'alpha': ALPHA,
            'temperature': TEMPERATURE,
            **neck,
        },
        k=WITH_ADDED if k is None else k,
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


def senders(domain: str, modality: str) -> dict[str, str]:
    """Relation -> the memory that a node of this kind receives from."""
    return {
        'near': f'{domain}_{modality}',
        'cross_domain': f'{OTHER[domain]}_{modality}',
        'cross_modal': f'{domain}_{OTHER[modality]}',
        'across': f'{OTHER[domain]}_{OTHER[modality]}',
    }


def naive_edges(nodes: dict[str, Rows], k: dict[str, int]) -> NaiveEdges:
    edges: NaiveEdges = {}
    for modality in ('images', 'captions'):
        receiver = f'target_{modality}'
        for relation, sender in senders('target', modality).items():
            if relation in k:
                itself = list(range(len(nodes[receiver])))
                edges[sender, relation, receiver] = naive_nearest(
                    nodes[receiver],
                    nodes[sender],
                    k[relation],
                    itself if relation == 'near' else None,
                )
    return edges


def naive_layer(nodes: dict[str, Rows], edges: NaiveEdges) -> dict[str, Rows]:
    """x + α · (average of all neighbours, in one softmax, − x), then L2 norm."""
    result: dict[str, Rows] = {}
    for name, rows in nodes.items():
        result[name] = []
        for i, own in enumerate(rows):
            received = [
                (math.exp(similarity / TEMPERATURE), nodes[sender][row])
                for (sender, _, receiver), found in edges.items()
                if receiver == name
                for row, similarity in found[i]
            ]
            mixed = own
            if received:
                total = sum(weight for weight, _ in received)
                mixed = [
                    (1 - ALPHA) * own[d]
                    + ALPHA * sum(weight * sent[d] for weight, sent in received) / total
                    for d in range(DIM)
                ]
            norm = math.sqrt(sum(value**2 for value in mixed))
            result[name].append([value / norm for value in mixed])
    return result


def naive_propagated(
    nodes: dict[str, Rows], k: dict[str, int], layers: int = 1
) -> dict[str, Tensor]:
    edges = naive_edges(nodes, k)
    for _ in range(layers):
        nodes = naive_layer(nodes, edges)
    return {m: torch.tensor(nodes[f'target_{m}']) for m in ('images', 'captions')}


def assert_edges(edges: Edges, nodes: dict[str, Rows], k: dict[str, int]) -> None:
    expected = naive_edges(nodes, k)
    assert set(edges) == expected.keys()
    assert len(edges) == len(expected)
    for edge, rows in expected.items():
        count = k[edge[1]]
        missing = [(-1, -math.inf)] * count
        padded = [(row + missing)[:count] for row in rows]
        found = edges[edge]
        assert found.index.tolist() == [[j for j, _ in row] for row in padded]
        torch.testing.assert_close(
            found.similarity, torch.tensor([[s for _, s in row] for row in padded])
        )


def test_the_edges_after_every_push_against_brute_force() -> None:
    # Lists that are shorter and longer than the memories are at first.
    world = World(build({**WITH_ADDED, 'near': 7}))
    pushes = 0
    for asked in (1, 1, 3, 2, 1, 4):  # several pushes between two looks, too
        for _ in range(asked):
            world.push_any()
            pushes += 1

        edges = world.edges()

        assert_edges(edges, world.nodes(), {**WITH_ADDED, 'near': 7})
    assert len(world.memories['target_captions']) == SIZE
    assert pushes * 5 > 2 * SIZE  # so that rows were replaced


def test_only_what_was_written_since_the_last_look_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(build())
    world.push_any()
    world.edges()
    given: list[list[list[int]]] = []
    monkeypatch.setattr(
        NeighbourLists,
        'update',
        lambda *args: given.append([slots.tolist() for slots in args[3:]]),
    )

    world.edges()
    world.push([], [3], [])
    edges = world.edges()

    written: dict[str, list[int]] = {name: [] for name in world.memories}
    keys = world.memories['target_images'].keys.tolist()
    image = {**written, 'target_images': [keys.index(3)]}
    assert given == [
        [slots[receiver], slots[sender]]
        for slots in (written, image)
        for sender, _, receiver in edges
    ]


def test_some_rows_and_fewer_neighbours_are_a_part_of_the_whole() -> None:
    world = World(build())
    world.push_any()
    world.push_any()
    whole = world.edges()
    rows = {'images': torch.tensor([2, 0, 2]), 'captions': torch.tensor([1])}
    part = world.graph.edges(world.memories, rows)

    for edge, every in whole.items():
        modality = edge[2].removeprefix('target_')
        picked = rows[modality]
        assert torch.equal(part[edge].index, every.index[picked])
        assert torch.equal(part[edge].similarity, every.similarity[picked])
        one = whole.of(modality, edge[1], picked, k=1)
        assert torch.equal(one.index, every.index[picked, :1])
        assert torch.equal(one.similarity, every.similarity[picked, :1])
    for wrong in (('target_images', 'near', 'target_captions'), 'images_near'):
        assert wrong not in whole
        with pytest.raises(KeyError):
            whole[wrong]


def test_the_edges_are_what_the_neck_takes() -> None:
    world = World(build())
    world.push_any()
    nodes = {name: memory.feats for name, memory in world.memories.items()}

    found = world.graph.neck.propagate(nodes, world.edges())

    for modality, rows in naive_propagated(world.nodes(), WITH_ADDED).items():
        torch.testing.assert_close(found[f'target_{modality}'], rows)


def test_a_list_is_as_long_as_the_longest_that_anybody_wants() -> None:
    neck = dict(type='GraphPropagationNeck', layer='parameter_free')
    wanted = {'near': 5, 'cross_domain': 1, 'cross_modal': 4}
    graph = MemoryGraph(SIZE, DIM, {'near': 2, 'cross_domain': 3}, neck, 5, wanted)
    world = World(graph)
    slots = world.push_any()

    assert_edges(world.edges(), world.nodes(), {**wanted, 'cross_domain': 3})
    # What others want is not propagated along.
    found = world.propagate(slots, 0)
    graph.k['near'] = 5
    assert not torch.allclose(found['images'], world.propagate(slots, 0)['images'])
    assert graph.neck.relations == ('near', 'cross_domain')


def test_lists_without_a_neck() -> None:
    graph = MemoryGraph(SIZE, DIM, other_k={'cross_modal': 2})
    world = World(graph)
    slots = world.push_any()

    assert_edges(world.edges(), world.nodes(), {'cross_modal': 2})
    found = world.propagate(slots, 0)

    for modality, rows in found.items():
        assert torch.equal(rows, world.memories[f'target_{modality}'].feats)
    assert not graph.learns
    assert not any(name.startswith('propagated') for name in graph.state_dict())


@pytest.mark.parametrize(
    ('k', 'layers'),
    [
        (k, layers)
        for k in (
            WITH_ADDED,
            *({name: count} for name, count in WITH_ADDED.items()),
            {**K, 'near': 0, 'cross_domain': 50},
        )
        for layers in (1, 2)
    ],
    ids=str,
)
def test_everything_is_propagated_at_a_refresh(k: dict[str, int], layers: int) -> None:
    world = World(build(k, num_layers=layers))
    world.push([0, 1, 2], [0, 1, 2], [3, 4])
    for step in (0, 5, 10):
        # From the second time on some are new and some are replaced.
        slots = world.push([2, 3, 4], [2, 3, 4, 5 + step], [4, 5, 6 + step])

        found = world.propagate(slots, step)

        on = {name: count for name, count in k.items() if count}
        expected = naive_propagated(world.nodes(), on, layers)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_between_two_refreshes_only_the_rows_just_written_are() -> None:
    world = World(build())
    before = world.propagate(world.push([0, 1, 2], [0, 1, 2], [3, 4, 5]), 0)
    for step in (1, 4, 6, 9):
        if step == 6:
            before = world.propagate(world.push_any(), 5)
        slots = world.push([2, 3], [2, 3 + step, 2], [6, 4 + step, 7])

        found = world.propagate(slots, step)

        expected = naive_propagated(world.nodes(), WITH_ADDED)
        for name, rows in found.items():
            new = set(slots[name].tolist())
            for slot, row in enumerate(rows):
                if slot in new:
                    torch.testing.assert_close(row, expected[name][slot])
                else:
                    assert torch.equal(row, before[name][slot])
        before = found


def test_two_layers_between_two_refreshes_read_the_memories_as_they_are() -> None:
    world = World(build(num_layers=2))
    world.propagate(world.push([0, 1, 2], [0, 1, 2], [3, 4, 5]), 0)
    slots = world.push([2, 3], [2, 3], [6, 4])

    found = world.propagate(slots, 1)

    nodes = world.nodes()
    edges = naive_edges(nodes, WITH_ADDED)
    once = naive_layer(nodes, edges)
    for name, rows in slots.items():
        receiver = f'target_{name}'
        of_receiver = {
            (sender, relation, 'again'): found
            for (sender, relation, own), found in edges.items()
            if own == receiver
        }
        second = naive_layer({**nodes, 'again': once[receiver]}, of_receiver)
        torch.testing.assert_close(
            found[name][rows], torch.tensor(second['again'])[rows]
        )


def test_target_images_alone() -> None:
    world = World(build(K))
    for step in (0, 1):
        slots = world.push([0, 1, 2], [step, 3, 4], [])
        slots['captions'] = slots['images'][:0]

        found = world.propagate(slots, step)

        assert found['captions'].shape == (0, DIM)
        expected = naive_propagated(world.nodes(), K)['images']
        rows = slots['images']
        torch.testing.assert_close(found['images'][rows], expected[rows])


def test_a_reset_graph_is_a_new_one() -> None:
    graph = build()
    fresh = copy.deepcopy(graph.state_dict())
    world = World(graph)
    world.propagate(world.push_any(), 0)
    assert any(not torch.equal(v, fresh[k]) for k, v in graph.state_dict().items())

    graph.reset()

    for name, value in graph.state_dict().items():
        assert torch.equal(value, fresh[name]), name


def test_a_reloaded_graph_goes_on_bit_for_bit() -> None:
    world = World(build())
    for step in range(3):
        world.propagate(world.push_any(), step)
    resumed = World(build())
    resumed.memories = world.memories
    # Between a push and the look at its edges, too.
    slots = world.push_any()
    resumed.graph.load_state_dict(world.graph.state_dict())

    for step in range(3, 7):
        expected, found = (each.propagate(slots, step) for each in (world, resumed))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        slots = world.push_any()
    state = resumed.graph.state_dict()
    for name, value in world.graph.state_dict().items():
        assert torch.equal(state[name], value), name


NECK = dict(type='GraphPropagationNeck', layer='parameter_free')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(neck=NECK), r'go together, got k=\{\}'),
        (dict(neck=NECK, k={'near': 0}), 'at least one relation .* go together'),
        (dict(k={'near': 2}), 'go together, .* neck=None'),
        (dict(neck=NECK, k={'near': 2, 'far': 1}), "got {'near': 2, 'far': 1}"),
        (dict(neck=NECK, k={'near': -1}), "got {'near': -1}"),
        (dict(other_k={'far': 1}), r"of the relations \['near', .*got {'far': 1}"),
        (dict(refresh=0), 'refresh must be at least 1, got 0'),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MemoryGraph(SIZE, DIM, **options)


def test_a_relation_without_lists_has_no_neighbours_of_another() -> None:
    world = World(build(K))
    world.push_any()
    with pytest.raises(KeyError):
        world.edges().of('images', 'across')
