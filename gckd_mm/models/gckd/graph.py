"""The heterogeneous graph over the memories: its edges, and propagation along them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, cast

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.memory import (
    EmbeddingMemory,
    NeighbourLists,
    Neighbours,
    nearest_neighbours,
)
from gckd_mm.models.necks.graph_propagation_neck import EdgeType, GraphPropagationNeck
from gckd_mm.registry import MODELS

DOMAINS = ('source', 'target')
MODALITIES = ('images', 'captions')
#: direction -> modality of the queries, modality of what they search
DIRECTIONS = {
    'text_to_image': ('captions', 'images'),
    'image_to_text': ('images', 'captions'),
}
#: the memories, ``<domain>_<modality>``: node types of the graph
MEMORIES = ('source_images', 'source_captions', 'target_images', 'target_captions')


class Relation(NamedTuple):
    """Where the neighbours of a memory row are, relative to that row."""

    same_domain: bool
    same_modality: bool
    #: the memory is the row's own, and no row is its own neighbour
    excludes_self: bool

    def sender(self, domain: str, modality: str) -> str:
        """Return the memory that holds the neighbours of a domain and modality."""
        of_domain = DOMAINS.index(domain) ^ (not self.same_domain)
        of_modality = MODALITIES.index(modality) ^ (not self.same_modality)
        return f'{DOMAINS[of_domain]}_{MODALITIES[of_modality]}'


#: A new relation is one line here; its neighbours per row are one key of the config,
#: ``model.graph.k``.
RELATIONS = {
    'near': Relation(True, True, excludes_self=True),
    'cross_domain': Relation(False, True, excludes_self=False),
    'cross_modal': Relation(True, False, excludes_self=False),
}

#: ``<domain>_<modality>`` -> memory
Memories = Mapping[str, EmbeddingMemory]


class Edges(Mapping[EdgeType, Neighbours]):
    """The neighbours of every row of the target memories, by relation.

    A mapping from (type of the senders, relation, type of the receivers), where a type
    is the name of a memory, to the rows of the senders that each receiver's row has as
    neighbours: what :meth:`GraphPropagationNeck.propagate` takes. A view of the
    graph's lists: the next :meth:`MemoryGraph.edges` changes it.

    Args:
        lists: ``<modality>_<relation>`` -> lists of the rows of that target memory.
        rows: Modality -> slots that the mapping is restricted to, shape (N,). Defaults
            to None: all filled ones.
    """

    def __init__(
        self,
        lists: Mapping[str, NeighbourLists],
        rows: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._lists = lists
        self._rows = rows or {}

    def of(
        self,
        modality: str,
        relation: str,
        rows: Tensor | None = None,
        k: int | None = None,
    ) -> Neighbours:
        """Return the neighbours of some rows of a target memory, the nearest first.

        Args:
            modality: ``'images'`` or ``'captions'``: which target memory.
            relation: One of :data:`RELATIONS`.
            rows: Slots, shape (N,). Defaults to None: those of the mapping.
            k: At most this many of each row. Defaults to None: all that are kept.

        Returns:
            Shapes (N, k).
        """
        lists = self._lists[f'{modality}_{relation}']
        rows = self._rows.get(modality) if rows is None else rows
        index, similarity = lists.neighbours(rows)
        return Neighbours(index[:, :k], similarity[:, :k])

    def __getitem__(self, edge: EdgeType) -> Neighbours:
        """Return the neighbours of all receivers."""
        if edge not in self:
            raise KeyError(edge)
        _, relation, receiver = edge
        return self.of(receiver.removeprefix('target_'), relation)

    def __iter__(self) -> Iterator[EdgeType]:
        """Go through the types of edges."""
        for name in self._lists:
            modality, relation = name.split('_', 1)
            yield edge_type(modality, relation)

    def __contains__(self, edge: object) -> bool:
        """Whether there are edges of this type."""
        return edge in list(self)

    def __len__(self) -> int:
        """Return the number of types."""
        return len(self._lists)


@MODELS.register_module()
class MemoryGraph(BaseModule):
    """Keep the neighbours of the memories' rows, and propagate embeddings over them.

    Nodes are the rows of the four memories of the teacher's embeddings. A target node
    receives from its neighbours of each relation that ``k`` names: see
    :data:`gckd_mm.models.gckd.graph.RELATIONS`. What comes out for the target are
    the *propagated* embeddings that soft labels are made of. All are renewed every
    ``refresh`` steps; in between those of the rows that were just written.

    A neck that learns is trained on the source: its batch is propagated over the same
    relations, and the source's heads judge the result. What the memories hold of the
    same pair is left out, since it would give the answer away; other pairs of the same
    person are neighbours like any.

    Args:
        size: Rows of a memory.
        dim: Size D of an embedding.
        k: Relation -> neighbours from which a node receives; 0, or left out, switches
            it off. Defaults to None: no propagation.
        neck: Config of the :class:`GraphPropagationNeck`. Its ``in_channels`` and
            ``relations`` are set here. Defaults to None: no propagation.
        refresh: Steps from one renewal to the next. Defaults to 10.
        other_k: Relation -> neighbours that others want to read from :meth:`edges`.
            The lists are as long as the longest that anybody wants. Defaults to None.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If a relation does not exist, or if one of ``k`` and ``neck`` is
            given without the other.

    Source: the graph over batch and memories of both domains and modalities is of Luo
    et al., *GCKD*, AAAI 2025 (GMP); relations, refresh and training on the source are
    ours.
    """

    def __init__(
        self,
        size: int,
        dim: int,
        k: Mapping[str, int] | None = None,
        neck: dict | None = None,
        refresh: int = 10,
        other_k: Mapping[str, int] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.k = _checked(k or {})
        if bool(self.k) != (neck is not None):
            raise InputError(
                f'MemoryGraph: k (at least one relation with neighbours) and neck go '
                f'together, got k={dict(k or {})} and neck={neck}'
            )
        if refresh < 1:
            raise InputError(f'MemoryGraph: refresh must be at least 1, got {refresh}')
        self.refresh = refresh
        self.neck: GraphPropagationNeck | None = None
        if neck is not None:
            relations = {'in_channels': dim, 'relations': tuple(self.k)}
            self.neck = MODELS.build({**neck, **relations})
        lengths = _checked(other_k or {})
        for relation, count in self.k.items():
            lengths[relation] = max(count, lengths.get(relation, 0))
        self.lists = nn.ModuleDict(
            {
                f'{modality}_{relation}': NeighbourLists(
                    size, count, exclude_self=RELATIONS[relation].excludes_self
                )
                for modality in MODALITIES
                for relation, count in lengths.items()
            }
        )
        for name in MEMORIES:
            self.register_buffer(f'{name}_seen', torch.tensor(0))
        for modality in MODALITIES if neck else ():
            self.register_buffer(f'propagated_{modality}', torch.zeros(size, dim))

    @property
    def learns(self) -> bool:
        """Whether the neck has weights."""
        return self.neck is not None and any(True for _ in self.neck.parameters())

    def reset(self) -> None:
        """Forget everything."""
        for lists in self.lists.values():
            cast(NeighbourLists, lists).reset()
        for buffer in self.buffers(recurse=False):
            buffer.zero_()

    @torch.no_grad()
    def edges(
        self, memories: Memories, rows: Mapping[str, Tensor] | None = None
    ) -> Edges:
        """Return the edges of the graph, after all that was pushed until now.

        Args:
            memories: ``<domain>_<modality>`` -> memory.
            rows: Modality -> slots of the receivers. Defaults to None: all filled ones.
        """
        written = {}
        for name in MEMORIES:
            seen = self.get_buffer(f'{name}_seen')
            written[name] = memories[name].written_since(seen)
            seen.copy_(memories[name].num_pushed)
        lists = {name: cast(NeighbourLists, each) for name, each in self.lists.items()}
        for name, each in lists.items():
            sender, _, receiver = edge_type(*name.split('_', 1))
            each.update(
                memories[receiver].feats,
                memories[sender].feats,
                written[receiver],
                written[sender],
            )
        return Edges(lists, rows)

    @torch.no_grad()
    def propagate(
        self,
        memories: Memories,
        edges: Edges,
        slots: Mapping[str, Tensor],
        neck: GraphPropagationNeck | None,
        step: int,
    ) -> dict[str, Tensor]:
        """Propagate the target's memories: every row, or those just written.

        Args:
            memories: ``<domain>_<modality>`` -> memory.
            edges: Of these memories.
            slots: Modality -> target rows that were written in this step, shape (N,).
            neck: The teacher's copy of the neck; None leaves the embeddings alone.
            step: Step of the adaptation.

        Returns:
            Modality -> propagated embeddings of the target, shape (M, D): views, which
            the next call changes.
        """
        nodes = {name: memory.feats for name, memory in memories.items()}
        if neck is None:
            return {modality: nodes[f'target_{modality}'] for modality in MODALITIES}
        everything = step % self.refresh == 0
        receiver = 'target' if everything else 'written'
        rows = {m: None if everything else slots[m].unique() for m in MODALITIES}
        typed = {}
        for modality, picked in rows.items():
            if picked is not None:
                target = nodes[f'target_{modality}']
                nodes[f'written_{modality}'] = target[picked]
            for relation, k in self.k.items():
                sender, *_ = edge_type(modality, relation)
                typed[sender, relation, f'{receiver}_{modality}'] = edges.of(
                    modality, relation, picked, k
                )
        found = neck.propagate(nodes, typed)
        propagated = {}
        for modality, picked in rows.items():
            filled = len(nodes[f'target_{modality}'])
            buffer = self.get_buffer(f'propagated_{modality}')[:filled]
            buffer[slice(filled) if picked is None else picked] = found[
                f'{receiver}_{modality}'
            ]
            propagated[modality] = buffer
        return propagated

    def propagate_source(
        self,
        feats: Mapping[str, Tensor],
        slots: Mapping[str, Tensor],
        memories: Memories,
    ) -> dict[str, Tensor]:
        """Propagate the student's source batch with the neck that learns.

        Args:
            feats: Modality -> the student's embeddings, shape (N, D).
            slots: Modality -> rows of the source memories that hold the same samples.
            memories: ``<domain>_<modality>`` -> memory.

        Returns:
            Modality -> shape (N, D).
        """
        nodes = {name: memory.feats for name, memory in memories.items()}
        typed = {}
        for modality, rows in feats.items():
            nodes[f'batch_{modality}'] = rows
            for name, k in self.k.items():
                relation = RELATIONS[name]
                sender = relation.sender('source', modality)
                # Both source memories are written together: a pair has the same slot.
                own = slots[modality] if relation.same_domain else None
                typed[sender, name, f'batch_{modality}'] = nearest_neighbours(
                    rows.detach().float(), nodes[sender], k, exclude=own
                )
        propagated = cast(GraphPropagationNeck, self.neck).propagate(nodes, typed)
        return {modality: propagated[f'batch_{modality}'] for modality in feats}


def edge_type(modality: str, relation: str) -> EdgeType:
    """Return the type of the edges by which a target row of a modality receives."""
    sender = RELATIONS[relation].sender('target', modality)
    return sender, relation, f'target_{modality}'


def _checked(k: Mapping[str, int]) -> dict[str, int]:
    unknown = sorted(set(k) - set(RELATIONS))
    if unknown or min(k.values(), default=0) < 0:
        raise InputError(
            f'MemoryGraph: k counts the neighbours, at least 0, of the relations '
            f'{list(RELATIONS)}; got {dict(k)}'
        )
    return {relation: count for relation, count in k.items() if count}
