"""What is read of a model's graph is what the model propagates along."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from gckd_mm.datasets import CrossDomainDataset
from gckd_mm.errors import InputError
from gckd_mm.models import GCKD
from gckd_mm.registry import MODELS
from gckd_mm.visualization.propagation_graph import (
    GraphNode,
    fill_memories,
    neighbourhood,
    read_edges,
)
from tests.training import small_gckd_config

STEPS, BATCH = 3, 8
K = {'near': 3, 'cross_domain': 2, 'cross_modal': 1}


class World(NamedTuple):
    """A model that has not begun to adapt, and the batches that it would see."""

    model: GCKD
    loader: Any

    @property
    def dataset(self) -> CrossDomainDataset:
        return self.loader.dataset


@pytest.fixture(autouse=True)
def _scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        yield


def _world(data: Path, **overrides: Any) -> World:
    overrides = {
        'model__graph__k': {'_delete_': True, **K},
        **overrides,
    }
    cfg = small_gckd_config(data, data / 'unused', **overrides)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    model.data_preprocessor.tokenizer.fit(loader.dataset.captions())
    return World(model, loader)


@pytest.fixture
def world(miniature: Path) -> World:
    return _world(miniature)


def test_the_memories_hold_what_the_batches_held(world: World) -> None:
    before = {name: value.clone() for name, value in world.model.state_dict().items()}
    batch = fill_memories(world.model, world.loader, STEPS)
    expected: dict[str, list[int]] = {'images': [], 'captions': []}
    for _, drawn in zip(range(STEPS), world.loader, strict=False):
        expected['images'] += drawn['target']['image_index']
        expected['captions'] += drawn['target']['caption_index']
    for modality, keys in expected.items():
        assert batch[modality] == keys[-BATCH:]
        memory = world.model.memories[f'target_{modality}']
        assert sorted(memory.keys.tolist()) == sorted(set(keys))
    # The weights stay what they were: nothing is trained.
    for name, parameter in world.model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_an_adaptation_that_has_begun_keeps_its_memories(world: World) -> None:
    fill_memories(world.model, world.loader, STEPS)
    held = set(world.model.memories['target_images'].keys.tolist())
    later = [batch for _, batch in zip(range(STEPS + 1), world.loader, strict=False)]
    world.model.teacher.steps.fill_(1)
    batch = fill_memories(world.model, later[-1:], 1)
    now = set(world.model.memories['target_images'].keys.tolist())
    assert now == held | set(batch['images'])
    world.model.teacher.steps.fill_(0)
    batch = fill_memories(world.model, later[-1:], 1)
    assert set(world.model.memories['target_images'].keys.tolist()) == {
        *batch['images']
    }


def test_the_edges_are_those_that_the_neck_is_given(world: World) -> None:
    fill_memories(world.model, world.loader, STEPS)
    before = copy.deepcopy(world.model.state_dict())
    edges = read_edges(world.model)
    for name, value in world.model.state_dict().items():
        assert torch.equal(value, before[name]), f'it only looks: {name}'
    assert {(sender, relation, to) for sender, relation, to in edges} == {
        ('target_images', 'near', 'target_images'),
        ('source_images', 'cross_domain', 'target_images'),
        ('target_captions', 'cross_modal', 'target_images'),
        ('target_captions', 'near', 'target_captions'),
        ('source_captions', 'cross_domain', 'target_captions'),
        ('target_images', 'cross_modal', 'target_captions'),
    }
    feats = {name: memory.feats for name, memory in world.model.memories.items()}
    for (sender, relation, receiver), neighbours in edges.items():
        similarity = feats[receiver] @ feats[sender].t()
        if sender == receiver:
            similarity.fill_diagonal_(-torch.inf)
        best = similarity.topk(K[relation])
        assert neighbours.similarity == pytest.approx(best.values, abs=1e-6)


def test_the_neighbourhood_of_the_seeds_is_what_the_neck_averages(
    world: World,
) -> None:
    model = world.model
    batch = fill_memories(model, world.loader, STEPS)
    graph = neighbourhood(model, world.dataset, batch, num_seeds=6, most=99)
    neck, edges = model.graph.neck, read_edges(model)
    feats = {name: memory.feats for name, memory in model.memories.items()}
    propagated = neck.propagate(feats, edges)
    vectors = [_row_of(world, node, feats) for node in graph.nodes]
    seeds = [number for number, node in enumerate(graph.nodes) if node.is_seed]
    assert seeds == list(range(6))
    for seed in seeds:
        received = [edge for edge in graph.edges if edge.receiver == seed]
        assert Counter(edge.relation for edge in received) == K
        average = sum(edge.weight * vectors[edge.sender] for edge in received)
        own = vectors[seed]
        expected = F.normalize(own + neck.alpha * (average - own), dim=0)
        node = graph.nodes[seed]
        assert _row_of(world, node, propagated) == pytest.approx(expected, abs=1e-5)


def _row_of(
    world: World, node: GraphNode, feats: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Return the embedding of the sample that a node shows."""
    dataset, kind = world.dataset, f'{node.domain}_{node.modality}'
    names: list[str]
    if node.domain == 'target':
        names = list(getattr(dataset, f'target_{node.modality}'))
    else:
        field = 'img_path' if node.modality == 'images' else 'caption'
        items = [dataset.source.get_data_info(i) for i in range(len(dataset.source))]
        names = [item[field] for item in items]
    keys = world.model.memories[kind].keys.tolist()
    # A caption may be of several samples, whose embeddings are then the same.
    rows = [row for row, key in enumerate(keys) if names[key] == node.content]
    assert rows
    return feats[kind][rows[0]]


def test_seeds_are_samples_of_the_batch_that_are_alike(world: World) -> None:
    model = world.model
    batch = fill_memories(model, world.loader, STEPS)
    graph = neighbourhood(model, world.dataset, batch, num_seeds=6)
    for modality in ('images', 'captions'):
        names = getattr(world.dataset, f'target_{modality}')
        drawn = {names[key]: key for key in batch[modality]}
        seeds = [n.content for n in graph.nodes if n.is_seed and n.modality == modality]
        assert len(seeds) == 3
        assert set(seeds) <= drawn.keys()
        assert seeds[0] == names[batch[modality][0]]
        memory = model.memories[f'target_{modality}']
        rows = {key: row for row, key in enumerate(memory.keys.tolist())}
        first = memory.feats[rows[batch[modality][0]]]
        similarity = {
            name: float(memory.feats[rows[key]] @ first) for name, key in drawn.items()
        }
        others = [value for name, value in similarity.items() if name not in seeds]
        assert max(others) <= min(similarity[seed] for seed in seeds) + 1e-6


def test_a_few_neighbours_are_the_first_and_their_weights_stay(world: World) -> None:
    batch = fill_memories(world.model, world.loader, STEPS)
    full, few = (
        neighbourhood(world.model, world.dataset, batch, num_seeds=2, most=most)
        for most in (99, 1)
    )
    for seed in (0, 1):
        received = [edge for edge in few.edges if edge.receiver == seed]
        assert Counter(edge.relation for edge in received) == dict.fromkeys(K, 1)
        for edge in received:
            best = max(
                (
                    e
                    for e in full.edges
                    if (e.receiver, e.relation) == (seed, edge.relation)
                ),
                key=lambda e: e.weight,
            )
            assert edge.weight == best.weight
            assert few.nodes[edge.sender] == full.nodes[best.sender]
    assert neighbourhood(world.model, world.dataset, batch, 2, 1) == few


def test_a_neck_that_learns_shows_similarities(miniature: Path) -> None:
    pytest.importorskip('torch_geometric')
    world = _world(
        miniature,
        model__type='GCKDWithLearnedGraph',
        model__graph__neck={
            '_delete_': True,
            'type': 'GraphPropagationNeck',
            'layer': 'SAGEConv',
            'num_layers': 1,
        },
    )
    batch = fill_memories(world.model, world.loader, STEPS)
    graph = neighbourhood(world.model, world.dataset, batch, num_seeds=2)
    assert graph.weights == 'cosine similarity'
    feats = {name: memory.feats for name, memory in world.model.memories.items()}
    vectors = [_row_of(world, node, feats) for node in graph.nodes]
    for edge in graph.edges:
        expected = float(vectors[edge.sender] @ vectors[edge.receiver])
        assert edge.weight == pytest.approx(max(0, expected), abs=1e-5)


def test_a_target_without_captions_shows_images_alone(miniature: Path) -> None:
    world = _world(
        miniature,
        train_dataloader__dataset__target_captions=False,
        model__graph__k={'_delete_': True, 'near': 3, 'cross_domain': 2},
    )
    batch = fill_memories(world.model, world.loader, STEPS)
    assert list(batch) == ['images']
    graph = neighbourhood(world.model, world.dataset, batch, num_seeds=4)
    assert {node.modality for node in graph.nodes} == {'images'}
    assert sum(node.is_seed for node in graph.nodes) == 4


def test_what_cannot_be_read(world: World) -> None:
    model = world.model
    with pytest.raises(InputError, match='steps must be at least 1, got 0'):
        fill_memories(model, world.loader, 0)
    with pytest.raises(InputError, match='no batch of the adaptation'):
        fill_memories(model, [], 1)
    batch = fill_memories(model, world.loader, 1)
    with pytest.raises(InputError, match='at least 1 seed and 1 neighbour, got 0'):
        neighbourhood(model, world.dataset, batch, num_seeds=0)
    model.memories['source_images'].slot_keys += 10**6
    with pytest.raises(InputError, match=r'the memory source_images holds sample 100'):
        neighbourhood(model, world.dataset, batch)
    model.graph.neck = None
    with pytest.raises(InputError, match='no graph to plot'):
        read_edges(model)
