"""A part of the graph over the memories that a GCKD propagates along."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch

from gckd_mm.datasets.cross_domain import CrossDomainDataset
from gckd_mm.errors import InputError
from gckd_mm.models import GCKD
from gckd_mm.models.gckd.memory import EmbeddingMemory, Neighbours
from gckd_mm.models.gckd.relations import MODALITIES, edge_type
from gckd_mm.models.necks.graph_propagation_neck import EdgeType


class GraphNode(NamedTuple):
    """A row of a memory, by what it is the embedding of."""

    domain: str  # 'source' or 'target'
    modality: str  # 'images' or 'captions'
    content: str  # path of the image, or the caption
    is_seed: bool = False  # one whose neighbours are shown


class GraphEdge(NamedTuple):
    """One node receives the message of another."""

    sender: int  # position among the nodes
    receiver: int
    relation: str
    weight: float


class PropagationGraph(NamedTuple):
    """Some seeds, and the neighbours that their in-edges come from."""

    nodes: list[GraphNode]
    edges: list[GraphEdge]
    weights: str  # what the weights of the edges are


@torch.no_grad()
def fill_memories(
    model: GCKD, batches: Iterable[Any], steps: int
) -> dict[str, list[int]]:
    """Run steps of the adaptation without training: the memories and lists follow.

    A model that has not begun to adapt begins now, with empty memories; one that has
    keeps what its checkpoint holds, and renews the rows of these batches.

    Args:
        model: Put into evaluation mode, and changed.
        batches: Of the adaptation, as the loader gives them.
        steps: How many of them, at least 1.

    Returns:
        Modality -> which samples of the target the last batch holds.
    """
    if steps < 1:
        raise InputError(f'steps must be at least 1, got {steps}')
    model.eval()
    if int(model.teacher.steps) == 0:
        model.start_adaptation()
    target: dict[str, Any] = {}
    model.set_stages(source_iters=0, adapt_iters=steps)
    for step, batch in zip(range(steps), batches, strict=False):
        model.set_iteration(step)
        model(**model.data_preprocessor(batch), mode='loss')
        target = batch['target']
    if not target:
        raise InputError('the loader gave no batch of the adaptation')
    keys = {'images': target['image_index'], 'captions': target.get('caption_index')}
    return {name: list(map(int, found)) for name, found in keys.items() if found}


def held_samples(model: GCKD) -> dict[str, list[int]]:
    """Return modality -> which samples of the target the memories hold, ascending."""
    found = {name: _memory(model, f'target_{name}').keys for name in MODALITIES}
    return {name: sorted(keys.tolist()) for name, keys in found.items() if len(keys)}


def read_edges(model: GCKD) -> dict[EdgeType, Neighbours]:
    """Return the edges that a GCKD propagates along, of all rows of its memories.

    Returns:
        (type of the senders, relation, type of the receivers) -> the rows of the
        senders' memory that are neighbours of each row of the receivers'. Types are
        ``<domain>_<modality>``.
    """
    if model.graph.neck is None:
        raise InputError(
            'the model has no graph to plot: its config must have model.graph'
        )
    edges = model.graph.edges(model.memories)
    return {
        edge_type(modality, relation): edges.of(modality, relation, k=k)
        for modality in MODALITIES
        for relation, k in model.graph.k.items()
    }


def neighbourhood(
    model: GCKD,
    dataset: CrossDomainDataset,
    batch: Mapping[str, list[int]],
    num_seeds: int = 8,
    most: int = 4,
) -> PropagationGraph:
    """Choose some target samples of a batch, and their in-edges.

    Of each modality the first sample of the batch and those most similar to it are the
    seeds: they share neighbours, so that the figure holds together.

    Args:
        model: Its memories filled: see :func:`fill_memories`.
        dataset: The training data whose samples the memories hold.
        batch: Modality -> samples of the target.
        num_seeds: Target nodes, of both modalities together, at least one of each that
            there is.
        most: Neighbours of a seed by each relation, the first of its list.

    Returns:
        The seeds, images first, then their neighbours, in the order of the seeds.
    """
    if min(num_seeds, most) < 1:
        raise InputError(
            f'a figure needs at least 1 seed and 1 neighbour, got {num_seeds} and '
            f'{most}'
        )
    edges = read_edges(model)
    of_each = max(1, num_seeds // len(batch))
    seeds = [
        (f'target_{modality}', slot)
        for modality, keys in batch.items()
        for slot in _similar(_memory(model, f'target_{modality}'), keys, of_each)
    ]
    places = {seed: place for place, seed in enumerate(seeds)}
    shown = []
    neck: Any = model.graph.neck
    averages = neck.layer == 'parameter_free'
    for receiver, row in seeds:
        received = _in_edges(edges, receiver, row)
        similarity = torch.tensor([value for *_, value in received])
        weights = similarity.clamp(min=0)
        if averages:
            weights = (similarity / neck.temperature).softmax(dim=0)
        for (sender, relation, place, slot, _), weight in zip(
            received, weights.tolist(), strict=True
        ):
            if place < most:
                number = places.setdefault((sender, slot), len(places))
                receiving = places[receiver, row]
                shown.append(GraphEdge(number, receiving, relation, weight))
    nodes = [
        _node(model, dataset, kind, slot, number < len(seeds))
        for (kind, slot), number in places.items()
    ]
    # A neck that learns weighs by what it has learned, which is no one number an edge.
    weights_are = "part of the neck's average" if averages else 'cosine similarity'
    return PropagationGraph(nodes, shown, weights_are)


def _memory(model: GCKD, kind: str) -> EmbeddingMemory:
    memories: Any = model.memories
    return memories[kind]


def _similar(memory: EmbeddingMemory, keys: list[int], num: int) -> list[int]:
    """Return the slots of a batch's first sample and of those most similar to it."""
    # A memory smaller than the batch has lost some of it.
    slot_of = {key: slot for slot, key in enumerate(memory.keys.tolist())}
    held = [slot_of[key] for key in dict.fromkeys(keys) if key in slot_of]
    slots = torch.tensor(held, device=memory.feats.device)
    feats = memory.feats[slots]
    similarity = feats @ feats[0]
    similarity[0] = torch.inf
    order = similarity.argsort(descending=True, stable=True)
    return slots[order[:num]].tolist()


def _in_edges(
    edges: Mapping[EdgeType, Neighbours], receiver: str, row: int
) -> list[tuple[str, str, int, int, float]]:
    """Return sender, relation, place on the list, slot and similarity of each."""
    found = []
    for (sender, relation, to), neighbours in edges.items():
        if to != receiver:
            continue
        slots = neighbours.index[row].tolist()
        similarity = neighbours.similarity[row].tolist()
        for place, slot in enumerate(slots):
            if slot >= 0:
                found.append((sender, relation, place, slot, similarity[place]))
    return found


def _node(
    model: GCKD, dataset: CrossDomainDataset, kind: str, slot: int, is_seed: bool
) -> GraphNode:
    domain, modality = kind.split('_')
    key = int(_memory(model, kind).keys[slot])
    try:
        if domain == 'source':
            item = dataset.source.get_data_info(key)
            content = item['img_path' if modality == 'images' else 'caption']
        elif modality == 'images':
            content = dataset.target_images[key]
        else:
            content = dataset.target_captions[key]
    except IndexError as error:
        raise InputError(
            f'the memory {kind} holds sample {key}, which the training data do not '
            f'have: give the config and the data that the checkpoint was trained with'
        ) from error
    return GraphNode(domain, modality, content, is_seed)
