"""Graph-based cross-domain knowledge distillation, joint and end to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.graph import (
    DIRECTIONS,
    MEMORIES,
    MODALITIES,
    RELATIONS,
    Edges,
    Memories,
    MemoryGraph,
)
from gckd_mm.models.gckd.labels import PseudoLabels, SoftLabels
from gckd_mm.models.gckd.memory import EmbeddingMemory
from gckd_mm.models.heads.contrastive_head import (
    gather_with_gradient,
    head_losses,
    person_ids,
)
from gckd_mm.models.heads.momentum_distill_head import (
    MomentumDistillHead,
    NeighbourConsistencyHead,
)
from gckd_mm.models.retrievers.staged import Schedule, StagedDualEncoder
from gckd_mm.models.retrievers.towers import TeacherTowers
from gckd_mm.models.teacher import MomentumTeacher
from gckd_mm.registry import MODELS


class AdaptationBatch(NamedTuple):
    """All that the losses of one step of the adaptation are made of.

    Attributes:
        source: What :meth:`GCKD.embed` gives of the N source pairs.
        pids: Person ids of the source pairs, shape (N,).
        target: What :meth:`GCKD.embed` gives of the N target images and captions.
        slots: Memory, ``<domain>_<modality>`` -> its rows that hold the samples of all
            W ranks, shape (W·N,); memories that took in nothing are left out.
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

    One run has two stages. The first iterations are those of
    :class:`DualEncoder` on the source alone. Then the teacher is set equal to the
    student, the memories are emptied, and every later batch is one of :meth:`adapt`.
    :class:`gckd_mm.engine.hooks.AdaptationHook` drives the stages and the teacher.

    ``None`` takes a part out; whatever stays still trains.

    Args:
        embedding_size: D, of both towers.
        memory_size: Rows of each of the four memories: at least as many as the target
            has images and captions, since balanced assignment wants to see them all.
        teacher_momentum: m, the fraction of itself that the teacher keeps in an update,
            in [0, 1]; a number or a schedule. Defaults to 0.98.
        graph: Config of a :class:`MemoryGraph`; None: nothing is propagated.
        labels: Config of :class:`PseudoLabels`; given with ``distill``, or neither.
        distill: Config of a :class:`MomentumDistillHead`, or None.
        consistency: Config of a :class:`NeighbourConsistencyHead`, or None.
        loss_weights: ``distill``, ``consistency`` and ``graph`` -> weight of these
            losses, a number or a schedule. Defaults to 1 each.
        **towers: See :class:`DualEncoder`: the encoders, the source's heads and the
            data preprocessor.

    Raises:
        InputError: If the teacher's momentum leaves [0, 1], for a weight of another
            name, or for one of ``labels`` and ``distill`` without the other.

    Source: Luo et al., *Graph-Based Cross-Domain Knowledge Distillation for
    Cross-Dataset Text-to-Image Person Retrieval*, AAAI 2025: the memories of both
    domains, the propagation over a heterogeneous graph, the momentum teacher and its
    soft labels, all of it trained jointly. The equations and numbers are ours: see
    :mod:`gckd_mm.models.functional`.
    """

    #: whose losses have a weight
    weighted: tuple[str, ...] = ('distill', 'consistency', 'graph')

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
        self.teacher_momentum = Schedule.build(teacher_momentum, 'teacher_momentum')
        _check_momentum(self.teacher_momentum)
        self.loss_weights = _read_weights(loss_weights or {}, self.weighted)
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

        Raises:
            InputError: If the memories do not hold a batch, or have another dimension
                than the embeddings.
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
        if self.graph.learns:
            propagated = self._propagate_source(source, slots)
            of_graph = head_losses(self.heads, propagated, pids, 'loss_graph')
            terms |= {name: weights['graph'] * loss for name, loss in of_graph.items()}

        # Of all ranks, as the slots and the labels are.
        seen = [modality for modality in MODALITIES if modality in student]
        feats = {modality: gather_with_gradient(student[modality]) for modality in seen}
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
        """Embed images and captions with the student: see :meth:`extract_feat`.

        A subclass may add what else its losses need of the encoders.
        """
        return self.extract_feat(inputs)

    @torch.no_grad()
    def remember(
        self,
        source: dict[str, Tensor],
        data_samples: Sequence[BaseDataElement],
        target: dict[str, Any],
    ) -> dict[str, Tensor]:
        """Push a batch into the memories; return the slots: see the batch's.

        The source's embeddings are the student's: they are there, their labels hold
        them in place, and the teacher's would cost another forward pass.
        """
        device = source['images'].device
        slots = {}
        seen = self.teacher.module.extract_feat(target['inputs'])
        for modality, feats in seen.items():
            index = target[f'{modality.removesuffix("s")}_index']
            keys = torch.tensor(index, device=device)
            name = f'target_{modality}'
            slots[name] = self.memories[name].push(feats, keys)
        pairs = torch.tensor([s.sample_idx for s in data_samples], device=device)
        for modality in MODALITIES if self.needs_source_memory else ():
            name = f'source_{modality}'
            slots[name] = self.memories[name].push(source[modality], pairs)
        size = self.memories['target_images'].size
        pushed = max(map(len, slots.values()))
        if pushed > size:
            raise InputError(
                f'GCKD: memory_size={size} is less than the batch of all ranks, '
                f"{pushed}: raise it, best to the size of the target's train set"
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
        neck = self.teacher.module.graph_neck if self.graph.learns else self.graph.neck
        feats = self.graph.propagate(self.memories, edges, rows, neck, step)
        return self.labels(feats, keys, edges, rows, step)

    @property
    def needs_source_memory(self) -> bool:
        """Whether anything receives from the source's memories."""
        used = self.graph.k if self.labels is not None else ()
        across = any(not RELATIONS[name].same_domain for name in used)
        return self.graph.learns or across

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
        for memory in self.memories.values():
            memory.reset()
        self.graph.reset()
        if self.labels is not None:
            self.labels.reset()

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

    def _propagate_source(
        self, source: dict[str, Tensor], slots: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Propagate this rank's source batch with the neck that learns."""
        feats = {modality: source[modality] for modality in MODALITIES}
        rows = {
            modality: slots[f'source_{modality}'].chunk(get_world_size())[get_rank()]
            for modality in MODALITIES
        }
        return self.graph.propagate_source(feats, rows, self.memories)

    def _other_k(self) -> dict[str, int]:
        """Return relation -> neighbours that labels and consistency read."""
        wanted = [('near', self.consistency.k)] if self.consistency else []
        if self.labels is not None:
            wanted.append(('cross_modal', self.labels.candidates))
            if self.labels.propagation is not None:
                wanted.append(('near', self.labels.propagation.k))
        return {name: k for name, k in sorted(wanted)}  # the longest comes last

    def _towers(self) -> TeacherTowers:
        """Return the student's parts that the teacher averages: shared, not copied."""
        return TeacherTowers(self, self.graph.neck if self.graph.learns else None)


def _build(config: dict | None, **sizes: Any) -> Any:
    return None if config is None else MODELS.build({**sizes, **config})


def _read_weights(
    given: Mapping[str, float | dict], names: Sequence[str]
) -> dict[str, Schedule]:
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise InputError(f'loss_weights: unknown {unknown}, expected {list(names)}')
    return {
        name: Schedule.build(given.get(name, 1.0), f'loss_weights.{name}')
        for name in names
    }


def _check_momentum(momentum: Schedule) -> None:
    for value in (momentum.start, momentum.end):
        if not 0 <= value <= 1:
            raise InputError(f'teacher_momentum must be within [0, 1], got {value}')
