"""The heterogeneous graph over the memories, and what it makes of their embeddings."""

from __future__ import annotations

from typing import cast

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.functional.neighbours import Neighbours, nearest_neighbours
from gckd_mm.models.functional.walk import Walk, lazy_walk
from gckd_mm.models.memory import EmbeddingMemory
from gckd_mm.models.memory_neighbours import OTHER_MODALITY, MemoryNeighbours
from gckd_mm.models.necks.graph_propagation_neck import GraphPropagationNeck
from gckd_mm.models.schedule import Schedule
from gckd_mm.registry import MODELS

Edges = dict[tuple[str, str, str], Neighbours]


@MODELS.register_module()
class MemoryGraph(BaseModule):
    """Propagate the teacher's embeddings over the memories of both domains.

    Nodes are the rows of the four memories. A target node hears its nearest neighbours
    of its own modality in the target (``near``) and in the source (``cross_domain``),
    and the teacher's best matches of the other modality (``cross_modal``). A source
    node hears its own pair (``pair``), which is certain. What comes out for the target
    are the *refined* embeddings that soft labels are made of.

    Everything is renewed every ``refresh`` steps; in between the rows that were just
    written hear the memories as they are.

    A neck that learns is trained on the source: its batch is propagated over the same
    relations, and the source's heads judge the result. What the memories hold of the
    same pair is left out, since it would give the answer away; other pairs of the same
    person are neighbours like any.

    Args:
        neck: Config of the :class:`GraphPropagationNeck`. Its ``relations`` are set
            here, to those that have neighbours to hear.
        k: relation -> neighbours a node hears: ``near``, ``cross_domain``,
            ``cross_modal`` and ``pair`` (0 or 1). 0, or left out, switches it off.
        size: Rows of a memory.
        dim: Size D of an embedding.
        label_share: From 0 to 1, how much of its labels a target node takes from its
            ``near`` neighbours, as weighed by the neck's temperature: see
            :class:`MomentumDistillHead`. Defaults to 0: none.
        refresh: Steps from one renewal to the next. Defaults to 10.
        loss_weight: Of the propagated source loss; a number or a schedule. Defaults to
            1. Has no meaning for a neck without weights.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If a relation does not exist or none is on, for ``label_share``
            outside [0, 1] or without ``near``, or for ``pair`` with a neck that learns,
            without ``cross_domain`` or with a single layer.

    Source: the graph over batch and memories of both domains and modalities is the
    paper's (GMP); relations, refresh and training on the source are ours.
    """

    def __init__(
        self,
        neck: dict,
        k: dict[str, int],
        size: int,
        dim: int,
        label_share: float = 0.0,
        refresh: int = 10,
        loss_weight: float | dict = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        known = ('near', 'cross_domain', 'cross_modal', 'pair')
        if (
            set(k) - set(known)
            or max(k.values(), default=0) < 1
            or min(k.values()) < 0
            or k.get('pair', 0) > 1
        ):
            raise InputError(
                f'MemoryGraph: k counts the neighbours of {known}, at least one of '
                f'them not 0 and pair at most 1; got {k}'
            )
        if refresh < 1:
            raise InputError(f'MemoryGraph: refresh must be at least 1, got {refresh}')
        self.k = {relation: count for relation, count in k.items() if count}
        if not 0 <= label_share <= 1 or (label_share and 'near' not in self.k):
            raise InputError(
                f'MemoryGraph: label_share must be from 0 to 1, and needs k.near; got '
                f'{label_share} and {k}'
            )
        self.label_share = label_share
        self.refresh = refresh
        relations = {'in_channels': dim, 'relations': tuple(self.k)}
        self.neck = cast(GraphPropagationNeck, MODELS.build({**neck, **relations}))
        if 'pair' in self.k and (
            'cross_domain' not in self.k or self.neck.num_layers < 2
        ):
            raise InputError(
                "MemoryGraph: the relation 'pair' reaches the target through "
                'cross_domain, one layer later: it needs k.cross_domain and '
                'neck.num_layers of at least 2'
            )
        if self.learns and 'pair' in self.k:
            raise InputError(
                "MemoryGraph: the relation 'pair' is for layer='parameter_free': the "
                'source, which trains a neck that learns, must not hear its own answer'
            )
        self.schedules = {'loss_weight': Schedule.build(loss_weight, 'loss_weight')}
        self.register_buffer('images', torch.zeros(size, dim))
        self.register_buffer('captions', torch.zeros(size, dim))

    @property
    def learns(self) -> bool:
        """Whether the neck has weights."""
        return any(True for _ in self.neck.parameters())

    @property
    def needs_source(self) -> bool:
        """Whether a node hears the source's memories."""
        return 'cross_domain' in self.k

    def needed_neighbours(self) -> dict[tuple[str, str], int]:
        """Return what :class:`MemoryNeighbours` must keep for this graph."""
        return {
            (modality, relation): count
            for modality in OTHER_MODALITY
            for relation, count in self.k.items()
            if relation != 'pair'
        }

    def refined(self, modality: str, filled: int) -> Tensor:
        """Return the refined target embeddings, shape (filled, D), without a copy."""
        return cast(Tensor, getattr(self, modality))[:filled]

    def label_walks(self, neighbours: MemoryNeighbours) -> dict[str, Walk]:
        """Return modality -> how labels spread over its target memory; none at 0."""
        if not self.label_share:
            return {}
        return {
            modality: lazy_walk(
                neighbours.of(modality, 'near', k=self.k['near']),
                self.label_share,
                self.neck.temperature,
            )
            for modality in OTHER_MODALITY
        }

    @torch.no_grad()
    def refine(
        self,
        memories: nn.ModuleDict,
        neighbours: MemoryNeighbours,
        written: dict[str, Tensor],
        neck: GraphPropagationNeck,
        step: int,
    ) -> None:
        """Renew the refined embeddings: all of them, or of the rows just written.

        Args:
            memories: ``<domain>_<modality>`` -> memory.
            neighbours: Up to date with the memories.
            written: ``<domain>_<modality>`` -> slots written in this step.
            neck: The teacher's copy of the neck.
            step: Step of the adaptation.
        """
        nodes = {
            name: cast(EmbeddingMemory, memory).feats
            for name, memory in memories.items()
        }
        if step % self.refresh == 0:
            edges = self._target_edges(neighbours)
            edges |= self._pair_edges(memories)
            refined = neck.propagate(nodes, edges)
            for modality in OTHER_MODALITY:
                result = refined[f'target_{modality}']
                self.refined(modality, len(result)).copy_(result)
            return
        rows = {m: written[f'target_{m}'].unique() for m in OTHER_MODALITY}
        for modality, slots in rows.items():
            nodes[f'written_{modality}'] = nodes[f'target_{modality}'][slots]
        refined = neck.propagate(
            nodes, self._target_edges(neighbours, rows, receiver='written')
        )
        for modality, slots in rows.items():
            buffer = cast(Tensor, getattr(self, modality))
            buffer[slots] = refined[f'written_{modality}']

    def propagate_source(
        self,
        feats: dict[str, Tensor],
        slots: dict[str, Tensor],
        memories: nn.ModuleDict,
    ) -> dict[str, Tensor]:
        """Propagate the student's source batch with the neck that learns.

        Args:
            feats: Modality -> the student's embeddings, shape (N, D).
            slots: Modality -> rows of the source memories that hold the same samples.
            memories: ``<domain>_<modality>`` -> memory.

        Returns:
            Modality -> shape (N, D).
        """
        nodes = {
            name: cast(EmbeddingMemory, memory).feats
            for name, memory in memories.items()
        }
        edges: Edges = {}
        for modality, other in OTHER_MODALITY.items():
            receiver = f'batch_{modality}'
            nodes[receiver] = feats[modality]
            for relation, sender in (
                ('near', f'source_{modality}'),
                ('cross_domain', f'target_{modality}'),
                ('cross_modal', f'source_{other}'),
            ):
                if relation not in self.k:
                    continue
                own = None if relation == 'cross_domain' else slots[modality]
                edges[sender, relation, receiver] = nearest_neighbours(
                    feats[modality].detach().float(),
                    nodes[sender],
                    self.k[relation],
                    exclude=own,
                )
        propagated = self.neck.propagate(nodes, edges)
        return {modality: propagated[f'batch_{modality}'] for modality in feats}

    def _target_edges(
        self,
        neighbours: MemoryNeighbours,
        rows: dict[str, Tensor] | None = None,
        receiver: str = 'target',
    ) -> Edges:
        edges: Edges = {}
        for modality, other in OTHER_MODALITY.items():
            senders = {
                'near': f'target_{modality}',
                'cross_domain': f'source_{modality}',
                'cross_modal': f'target_{other}',
            }
            for relation, sender in senders.items():
                if relation in self.k:
                    slots = None if rows is None else rows[modality]
                    edges[sender, relation, f'{receiver}_{modality}'] = neighbours.of(
                        modality, relation, slots, self.k[relation]
                    )
        return edges

    def _pair_edges(self, memories: nn.ModuleDict) -> Edges:
        """Both source memories are written together: a pair has the same slot."""
        if 'pair' not in self.k:
            return {}
        filled = len(cast(EmbeddingMemory, memories['source_images']))
        device = cast(EmbeddingMemory, memories['source_images']).feats.device
        index = torch.arange(filled, device=device)[:, None]
        pairs = Neighbours(index, torch.ones(filled, 1, device=device))
        return {
            (f'source_{other}', 'pair', f'source_{modality}'): pairs
            for modality, other in OTHER_MODALITY.items()
        }
