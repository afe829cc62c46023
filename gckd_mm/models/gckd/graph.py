"""The heterogeneous graph over the memories: its edges, and propagation along them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.memory import EmbeddingMemory, NeighbourLists, Neighbours
from gckd_mm.models.gckd.relations import MEMORIES, MODALITIES, RELATIONS, edge_type
from gckd_mm.models.necks.graph_checks import EdgeType
from gckd_mm.models.necks.graph_propagation_neck import GraphPropagationNeck
from gckd_mm.registry import MODELS

#: ``<domain>_<modality>`` -> memory
Memories = Mapping[str, EmbeddingMemory]


class Edges(Mapping[EdgeType, Neighbours]):
    """The neighbours of the rows of the target memories: a view of a graph's lists.

    As a mapping it is what :meth:`GraphPropagationNeck.propagate` takes: (memory of the
    senders, relation, memory of the receivers) -> the rows of the senders that are
    neighbours of each receiver. The next :meth:`MemoryGraph.edges` changes it. ``rows``
    are the slots of the receivers by modality, shape (N,), by default all filled ones.
    """

    def __init__(
        self,
        lists: Mapping[EdgeType, NeighbourLists],
        rows: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._lists = lists
        self._of = {(to, relation): each for (_, relation, to), each in lists.items()}
        self._rows = rows or {}

    def of(
        self,
        modality: str,
        relation: str,
        rows: Tensor | None = None,
        k: int | None = None,
    ) -> Neighbours:
        """Return the k nearest of some rows of a target memory, shapes (N, k).

        ``rows`` are slots, shape (N,), by default those of the mapping.
        """
        rows = self._rows.get(modality) if rows is None else rows
        found = self._of[f'target_{modality}', relation].neighbours(rows)
        return Neighbours(found.index[:, :k], found.similarity[:, :k])

    def __getitem__(self, edge: EdgeType) -> Neighbours:
        """Return the neighbours of all receivers."""
        rows = self._rows.get(edge[2].removeprefix('target_'))
        return self._lists[edge].neighbours(rows)

    def __iter__(self) -> Iterator[EdgeType]:
        """Go through the types of edges."""
        return iter(self._lists)

    def __len__(self) -> int:
        """Return the number of types."""
        return len(self._lists)


@MODELS.register_module()
class MemoryGraph(BaseModule):
    """Keep the neighbours of the memories' rows, and propagate embeddings over them.

    Nodes are the rows of the four memories. A target node receives from its neighbours
    of each relation that ``k`` names. All *propagated* embeddings of the target are
    renewed every ``refresh`` steps; in between those of the rows just written.

    Args:
        size: Rows of a memory.
        dim: Size D of an embedding.
        k: Relation of :data:`RELATIONS` -> neighbours from which a node receives; 0, or
            left out, switches it off. Defaults to None: no propagation.
        neck: Config of the :class:`GraphPropagationNeck`; ``in_channels`` and
            ``relations`` are set here. Given with ``k``, or neither.
        refresh: Steps from one renewal to the next. Defaults to 10.
        other_k: Relation -> neighbours that others read from :meth:`edges`.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Source: the graph over memories of both domains and modalities is of Luo et al.,
    *GCKD*, AAAI 2025 (GMP); relations and refresh are ours.
    """

    lists: Mapping[str, NeighbourLists]

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
        #: type of the edges -> name of their lists
        self._names = {
            edge_type(modality, relation): f'{modality}_{relation}'
            for modality in MODALITIES
            for relation in lengths
        }
        self.lists = nn.ModuleDict(  # type: ignore[assignment] # maps as one
            {
                name: NeighbourLists(
                    size, lengths[edge[1]], RELATIONS[edge[1]].excludes_self
                )
                for edge, name in self._names.items()
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
            lists.reset()
        for buffer in self.buffers(recurse=False):
            buffer.zero_()

    @torch.no_grad()
    def edges(
        self, memories: Memories, rows: Mapping[str, Tensor] | None = None
    ) -> Edges:
        """Return the edges, after all that was pushed until now: see :class:`Edges`."""
        written = {}
        for name in MEMORIES:
            seen = self.get_buffer(f'{name}_seen')
            written[name] = memories[name].written_since(seen)
            seen.copy_(memories[name].num_pushed)
        lists = {edge: self.lists[name] for edge, name in self._names.items()}
        for (sender, _, receiver), each in lists.items():
            rows_and_columns = memories[receiver].feats, memories[sender].feats
            each.update(*rows_and_columns, written[receiver], written[sender])
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

        Returns views by modality, shape (M, D), which the next call changes.

        Args:
            memories: ``<domain>_<modality>`` -> memory.
            edges: Of these memories.
            slots: Modality -> target rows that were written in this step, shape (N,).
            neck: See :attr:`GCKD.propagation_neck`; None leaves the embeddings alone.
            step: Step of the adaptation.
        """
        nodes = {name: memory.feats for name, memory in memories.items()}
        if neck is None:
            return {modality: nodes[f'target_{modality}'] for modality in MODALITIES}
        everything = step % self.refresh == 0
        receiver = 'target' if everything else 'written'
        rows = {m: None if everything else slots[m].unique() for m in MODALITIES}
        in_edges = {}
        for modality, picked in rows.items():
            if picked is not None:
                nodes[f'written_{modality}'] = nodes[f'target_{modality}'][picked]
        for sender, relation, to in edges:
            modality = to.removeprefix('target_')
            if relation in self.k:
                near = edges.of(modality, relation, rows[modality], self.k[relation])
                in_edges[sender, relation, f'{receiver}_{modality}'] = near
        new = neck.pass_messages(nodes, in_edges)
        propagated = {}
        for modality, picked in rows.items():
            filled = len(nodes[f'target_{modality}'])
            kept = self.get_buffer(f'propagated_{modality}')[:filled]
            where = slice(filled) if picked is None else picked
            kept[where] = new[f'{receiver}_{modality}']
            propagated[modality] = kept
        return propagated


def _checked(k: Mapping[str, int]) -> dict[str, int]:
    unknown = sorted(set(k) - set(RELATIONS))
    if unknown or min(k.values(), default=0) < 0:
        raise InputError(
            f'MemoryGraph: k counts the neighbours, at least 0, of the relations '
            f'{list(RELATIONS)}; got {dict(k)}'
        )
    return {relation: count for relation, count in k.items() if count}
