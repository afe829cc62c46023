"""Graph-based cross-domain knowledge distillation, joint and end to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.graph import Edges, Memories, MemoryGraph
from gckd_mm.models.gckd.labels import PseudoLabels, SoftLabels
from gckd_mm.models.gckd.memory import EmbeddingMemory
from gckd_mm.models.gckd.relations import DIRECTIONS, MEMORIES, MODALITIES, RELATIONS
from gckd_mm.models.heads.contrastive_head import (
    gather_with_gradient,
    head_losses,
    person_ids,
)
from gckd_mm.models.heads.momentum_distill_head import (
    MomentumDistillHead,
    NeighbourConsistencyHead,
)
from gckd_mm.models.necks.graph_propagation_neck import GraphPropagationNeck
from gckd_mm.models.retrievers.schedule_settings import read_schedule, read_schedules
from gckd_mm.models.retrievers.staged import Schedule, StagedDualEncoder
from gckd_mm.models.teacher import MomentumTeacher, TeacherTowers
from gckd_mm.registry import MODELS


class AdaptationBatch(NamedTuple):
    """All that the losses of one step of the adaptation are made of.

    Attributes:
        source: What :meth:`GCKD.embed` gives of the N source pairs.
        pids: Person ids of the source pairs, shape (N,).
        target: What :meth:`GCKD.embed` gives of the N target images and captions.
        slots: Memory that took samples in -> their rows, of all W ranks, shape (W·N,).
        edges: Of the graph over the memories.
        labels: Direction -> soft labels of the target's samples of all ranks.
        step: Step of the adaptation.
    """

    source: dict[str, Tensor]
    pids: Tensor
    target: dict[str, Tensor]
    slots: dict[str, Tensor]
    edges: Edges
    labels: dict[str, SoftLabels]
    step: int


@MODELS.register_module()
class GCKD(StagedDualEncoder):
    """A dual encoder that adapts to an unlabelled target domain.

    The source stage is that of :class:`StagedDualEncoder`. Then the teacher is set
    equal to the student, the memories are emptied, and every later batch is one of
    :meth:`adapt`. ``None`` takes a part out; whatever stays still trains.

    Args:
        embedding_size: D, of both towers.
        memory_size: Rows of each memory: at least as many as the target has images and
            captions, since balanced assignment wants to see them all.
        teacher_momentum: m, the fraction of itself that the teacher keeps in an update,
            in [0, 1]; a number or a schedule. Defaults to 0.98.
        graph: Config of a :class:`MemoryGraph`; None: nothing is propagated.
        labels: Config of :class:`PseudoLabels`; given with ``distill``, or neither.
        distill: Config of a :class:`MomentumDistillHead`, or None.
        consistency: Config of a :class:`NeighbourConsistencyHead`, or None.
        loss_weights: ``distill`` and ``consistency`` -> weight of these losses, a
            number or a schedule. Defaults to 1 each.
        **towers: The arguments of :class:`DualEncoder`.

    Raises:
        InputError: If the momentum leaves [0, 1], for a weight of another name, for
            one of ``labels`` and ``distill`` alone, or a graph that nothing trains.

    Source: Luo et al., *Graph-Based Cross-Domain Knowledge Distillation for
    Cross-Dataset Text-to-Image Person Retrieval*, AAAI 2025: memories of both domains,
    a heterogeneous graph, a momentum teacher and its soft labels. Equations are ours.
    """

    #: whose losses have a weight
    weighted: tuple[str, ...] = ('distill', 'consistency')
    #: whether a loss reaches the weights of the graph's neck
    trains_graph = False

    memories: Memories
    labels: PseudoLabels | None
    distill: MomentumDistillHead | None
    consistency: NeighbourConsistencyHead | None
    graph: MemoryGraph

    def __init__(
        self,
        *,
        embedding_size: int,
        memory_size: int,
        teacher_momentum: float | dict = 0.98,
        graph: dict | None = None,
        labels: dict | None = None,
        distill: dict | None = None,
        consistency: dict | None = None,
        loss_weights: Mapping[str, float | dict] | None = None,
        **towers: Any,
    ) -> None:
        super().__init__(**towers)
        self.embedding_size = embedding_size
        self.teacher_momentum = read_schedule(
            teacher_momentum, 'teacher_momentum', least=0, most=1
        )
        self.loss_weights = read_schedules(
            loss_weights or {}, self.weighted, 'loss_weights'
        )
        if (labels is None) != (distill is None):
            raise InputError(
                'GCKD: labels (PseudoLabels) and distill (MomentumDistillHead) go '
                'together: set both, or both to None'
            )
        self.memories = nn.ModuleDict(  # type: ignore[assignment] # maps as one
            {name: EmbeddingMemory(memory_size, embedding_size) for name in MEMORIES}
        )
        self.labels = _build(labels, size=memory_size)
        self.distill = _build(distill)
        self.consistency = _build(consistency)
        self.graph = _build(
            {'type': 'MemoryGraph', **(graph or {})},
            size=memory_size,
            dim=embedding_size,
            other_k=self._other_k(),
        )
        if self.graph.learns != self.trains_graph:
            raise InputError(
                f'{type(self).__name__}: graph.neck must have weights in '
                f'GCKDWithLearnedGraph, which trains them, and in no other model'
            )
        self.teacher = MomentumTeacher(self._towers())

    def adapt(
        self,
        inputs: dict[str, Any],
        data_samples: Sequence[BaseDataElement],
        target: dict[str, Any],
        step: int,
    ) -> dict[str, Tensor]:
        """Return the losses of one step of the adaptation: see :meth:`loss`.

        1. The student embeds the source pairs, the target images and the captions.
        2. The memories take in the target as the teacher embeds it, and the source as
           the student does; the edges of the graph follow.
        3. The target's memories are propagated along the edges, and give soft labels.
        4. :meth:`losses` compares the student with the memories.
        """
        source, student = self.embed(inputs), self.embed(target['inputs'])
        self.check_source(source)
        pids = person_ids(data_samples, source['images'])
        slots = self.remember(source, data_samples, target)
        edges = self.graph.edges(self.memories)
        labels = self.pseudo_labels(edges, slots, step)
        return self.losses(
            AdaptationBatch(source, pids, student, slots, edges, labels, step)
        )

    def losses(self, batch: AdaptationBatch) -> dict[str, Tensor]:
        """Return every loss of one step by its name, weighted, and diagnostics."""
        source, pids, student, slots, edges, labels, step = batch
        weights = {name: ramp.at(step) for name, ramp in self.loss_weights.items()}
        terms = head_losses(self.heads, source, pids)
        # Of all ranks, as the slots and the labels are.
        feats = {
            m: gather_with_gradient(student[m]) for m in MODALITIES if m in student
        }
        memory = {m: self.memories[f'target_{m}'].feats for m in MODALITIES}
        if self.consistency is not None:
            for modality, queries in feats.items():
                keys, own = memory[modality], slots[f'target_{modality}']
                near = edges.of(modality, 'near', own, self.consistency.k)
                soft = self.consistency.labels(near, len(keys))
                loss = self.consistency.loss(queries, keys, *soft, exclude=own)
                terms[f'loss_consistency_{modality}'] = weights['consistency'] * loss
        if self.distill is not None:
            for direction, soft in labels.items():
                query, key = DIRECTIONS[direction]
                loss = self.distill.loss(feats[query], memory[key], *soft)
                terms[f'loss_distill_{direction}'] = weights['distill'] * loss
                about = self.distill.describe(feats[query], memory[key], *soft)
                terms |= {f'{name}_{direction}': term for name, term in about.items()}
        return terms

    def embed(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Embed with the student; a subclass may add what else its losses need."""
        return self.extract_feat(inputs)

    @torch.no_grad()
    def remember(
        self,
        source: dict[str, Tensor],
        data_samples: Sequence[BaseDataElement],
        target: dict[str, Any],
    ) -> dict[str, Tensor]:
        """Push a batch into the memories; return the slots: see the batch's.

        The source's embeddings are the student's: its labels hold them in place.
        """
        device = source['images'].device
        pushed = {}
        seen = self.teacher.module.extract_feat(target['inputs'])
        for modality, feats in seen.items():
            pushed['target', modality] = feats, target[f'{modality[:-1]}_index']
        for modality in MODALITIES if self.needs_source_memory else ():
            pairs = [sample.sample_idx for sample in data_samples]
            pushed['source', modality] = source[modality], pairs
        slots = {
            f'{domain}_{modality}': self.memories[f'{domain}_{modality}'].push(
                feats, torch.tensor(index, device=device)
            )
            for (domain, modality), (feats, index) in pushed.items()
        }
        size, most = self.memories['target_images'].size, max(map(len, slots.values()))
        if most > size:
            raise InputError(
                f'GCKD: memory_size={size} is less than the batch of all ranks, '
                f"{most}: raise it, best to the size of the target's train set"
            )
        return slots

    def pseudo_labels(
        self, edges: Edges, slots: dict[str, Tensor], step: int
    ) -> dict[str, SoftLabels]:
        """Label the target's batch; nothing without captions or :attr:`labels`."""
        if self.labels is None or 'target_captions' not in slots:
            return {}
        rows = {m: slots[f'target_{m}'] for m in MODALITIES}
        keys = {m: self.memories[f'target_{m}'].keys for m in MODALITIES}
        neck = self.propagation_neck
        feats = self.graph.propagate(self.memories, edges, rows, neck, step)
        return self.labels(feats, keys, edges, rows, step)

    @property
    def propagation_neck(self) -> GraphPropagationNeck | None:
        """What propagates the target's memories."""
        return self.graph.neck

    @property
    def needs_source_memory(self) -> bool:
        """Whether anything receives from the source's memories."""
        used = self.graph.k if self.labels is not None else ()
        return any(not RELATIONS[name].same_domain for name in used)

    def schedules(self) -> dict[str, Schedule]:
        """Return everything that changes over the adaptation, by name."""
        found = {'teacher_momentum': self.teacher_momentum}
        if self.labels is not None:
            found['labels.temperature'] = self.labels.temperature
        return found | {
            f'loss_weights.{name}': ramp for name, ramp in self.loss_weights.items()
        }

    def start_adaptation(self) -> None:
        """Set the teacher equal to the student, and empty the memories."""
        self.teacher.synchronise(self._towers())
        for part in (*self.memories.values(), self.graph, self.labels):
            if part is not None:
                part.reset()

    def update_teacher(self) -> None:
        """Move the teacher towards the student; after each step of the optimiser."""
        momentum = self.teacher_momentum.at(self.step())
        self.teacher.update(self._towers(), momentum)

    def check_source(self, feats: dict[str, Tensor]) -> None:
        """Refuse embeddings of another dimension than the memories'."""
        for modality in MODALITIES:
            found = feats[modality].shape[1]
            if found != self.embedding_size:
                raise InputError(
                    f'GCKD: the embeddings of {modality} have {found} numbers, '
                    f'embedding_size is {self.embedding_size}: the two towers, and the '
                    f'memories, must agree'
                )

    def _other_k(self) -> dict[str, int]:
        """Return relation -> neighbours that labels and consistency read."""
        near = [self.consistency.k] if self.consistency is not None else []
        if self.labels is None:
            return {'near': max(near, default=0)}
        if self.labels.propagation is not None:
            near.append(self.labels.propagation.k)
        return {'near': max(near, default=0), 'cross_modal': self.labels.candidates}

    def _towers(self) -> TeacherTowers:
        """Return the student's parts that the teacher averages: shared, not copied."""
        return TeacherTowers(self)


def _build(config: dict | None, **sizes: Any) -> Any:
    return None if config is None else MODELS.build({**sizes, **config})
