"""Graph-based cross-domain knowledge distillation, joint and end to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank, get_world_size
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.functional.gather import gather_with_gradient
from gckd_mm.models.heads.image_text_matching_head import ImageTextMatchingHead
from gckd_mm.models.heads.momentum_distill_head import (
    MomentumDistillHead,
    PseudoPairs,
    TargetBatch,
)
from gckd_mm.models.heads.neighbour_consistency_head import NeighbourConsistencyHead
from gckd_mm.models.memory import EmbeddingMemory
from gckd_mm.models.memory_graph import MemoryGraph
from gckd_mm.models.memory_neighbours import MemoryNeighbours
from gckd_mm.models.retrievers.staged import StagedDualEncoder
from gckd_mm.models.retrievers.towers import TeacherTowers
from gckd_mm.models.schedule import Schedule
from gckd_mm.models.teacher import MomentumTeacher
from gckd_mm.registry import MODELS

MODALITIES = ('images', 'captions')


@MODELS.register_module()
class GCKD(StagedDualEncoder):
    """A dual encoder that adapts to an unlabelled target domain.

    One run has two stages. The first ``source_iters`` iterations are those of
    :class:`DualEncoder` on the source alone. Then the teacher is set equal to the
    student, the memories are emptied, and every step of the adaptation

    1. embeds the source pairs, the target images and the target captions with the
       student, and the target (no gradient, no dropout) with the teacher;
    2. pushes the teacher's embeddings of the target, and the student's of the source,
       into the memories and brings the neighbour lists up to date;
    3. refines the target's memories over the ``graph``;
    4. adds to the source's losses those of ``distill`` (soft matching of target
       captions and images), of ``consistency`` (neighbours within a modality), of the
       graph's own training, and of ``matching``.

    Without ``distill`` nothing uses refined embeddings, and only a graph that learns is
    made.

    ``None`` takes a part out; whatever stays still trains.
    :class:`gckd_mm.engine.hooks.AdaptationHook` drives the stages and the teacher.

    Args:
        embedding_size: D, of both towers.
        memory_size: Rows of each of the four memories: at least as many as the target
            has images and captions, since balanced assignment wants to see them all.
        source_iters: Iterations on the source alone. Defaults to 0.
        teacher_momentum: m, the share of itself that the teacher keeps in an update, in
            [0, 1]; a number or a schedule. Defaults to 0.98.
        graph: Config of a :class:`MemoryGraph`, or None.
        distill: Config of a :class:`MomentumDistillHead`, or None.
        consistency: Config of a :class:`NeighbourConsistencyHead`, or None.
        matching: Config of an :class:`ImageTextMatchingHead`, or None.
        **towers: See :class:`DualEncoder`: the encoders, the source's heads and the
            data preprocessor.

    Raises:
        InputError: If the teacher's momentum leaves [0, 1].

    Source: Luo et al., *Graph-Based Cross-Domain Knowledge Distillation for
    Cross-Dataset Text-to-Image Person Retrieval*, AAAI 2025: the memories of both
    domains, the propagation over a heterogeneous graph, the momentum teacher and its
    soft labels, matching with cross-domain hard negatives, all of it trained jointly.
    The equations and numbers are ours: see :mod:`gckd_mm.models.functional`.
    """

    def __init__(
        self,
        *,
        embedding_size: int,
        memory_size: int,
        source_iters: int = 0,
        teacher_momentum: float | dict = 0.98,
        graph: dict | None = None,
        distill: dict | None = None,
        consistency: dict | None = None,
        matching: dict | None = None,
        **towers: Any,
    ) -> None:
        super().__init__(source_iters=source_iters, **towers)
        self.embedding_size = embedding_size
        self.teacher_momentum = Schedule.build(teacher_momentum, 'teacher_momentum')
        _check_momentum(self.teacher_momentum)
        size = {'size': memory_size}
        self.memories = nn.ModuleDict(
            {
                f'{domain}_{modality}': EmbeddingMemory(memory_size, embedding_size)
                for domain in ('source', 'target')
                for modality in MODALITIES
            }
        )
        self.graph = _build(graph, **size, dim=embedding_size)
        self.distill = _build(distill, **size)
        self.consistency = _build(consistency)
        self.matching = _build(matching)
        self.neighbours = MemoryNeighbours(memory_size, self._needed_neighbours())
        self.teacher = MomentumTeacher(self._towers())
        #: whether :meth:`predict` also gives the tokens that ``matching`` compares
        self.keep_tokens = False

    @property
    def needs_source_memory(self) -> bool:
        """Whether anything hears the source's memories."""
        graph = cast('MemoryGraph | None', self.graph)
        if graph is None:
            return False
        return graph.learns or (graph.needs_source and self.distill is not None)

    @property
    def last_pairs(self) -> PseudoPairs | None:
        """What the teacher believed in the last step; None without distillation."""
        distill = cast('MomentumDistillHead | None', self.distill)
        return None if distill is None else distill.last_pairs

    def schedules(self) -> dict[str, Schedule]:
        """Return everything that changes over the adaptation, by name."""
        found = {'teacher_momentum': self.teacher_momentum}
        for name in ('graph', 'distill', 'consistency', 'matching'):
            part = getattr(self, name)
            for key, schedule in getattr(part, 'schedules', {}).items():
                found[f'{name}.{key}'] = schedule
        return found

    def start_adaptation(self) -> None:
        """Set the teacher equal to the student, and empty the memories."""
        self.teacher.synchronise(self._towers())
        for memory in self.memories.values():
            cast(EmbeddingMemory, memory).reset()
        self.neighbours.reset()
        if self.distill is not None:
            cast(MomentumDistillHead, self.distill).reset()

    def update_teacher(self) -> None:
        """Move the teacher towards the student; after each step of the optimiser."""
        momentum = self.teacher_momentum.at(self.step())
        self.teacher.update(self._towers(), momentum)

    def predict(
        self, inputs: dict[str, Any], data_samples: Sequence[BaseDataElement]
    ) -> list[BaseDataElement]:
        """Embed a batch of one modality.

        Args:
            inputs: Either ``images`` or ``captions``, N of them.
            data_samples: N samples.

        Returns:
            As :meth:`DualEncoder.predict`. With :attr:`keep_tokens` and a matching head
            each also has ``tokens``, float16 on the CPU, of shape (T, C) or (L, C), and
            that of a caption ``token_mask``, bool, of shape (L,), False on padding.

        Raises:
            ValueError: If the inputs hold both modalities or none.
        """
        if not self.keep_tokens or self.matching is None or len(inputs) != 1:
            return super().predict(inputs, data_samples)
        feats, tokens = self._embed(inputs)
        ((modality, rows),) = feats.items()
        fields = {'feat': rows, 'tokens': tokens[modality].half().cpu()}
        if 'mask' in tokens:
            fields['token_mask'] = tokens['mask'].bool().cpu()
        for index, sample in enumerate(data_samples):
            for name, values in fields.items():
                sample.set_field(values[index], name)
            sample.set_field(modality, 'modality')
        return list(data_samples)

    def adapt(
        self,
        inputs: dict[str, Any],
        data_samples: Sequence[BaseDataElement],
        target: dict[str, Any],
        step: int,
    ) -> dict[str, Tensor]:
        """Return the losses of one step of the adaptation: see :meth:`loss`.

        Raises:
            InputError: If the memories do not hold a batch, or have another dimension
                than the embeddings.
        """
        source, source_tokens = self._embed(inputs)
        student, target_tokens = self._embed(target['inputs'])
        pids = self._pids(data_samples)
        device = pids.device
        keys = {
            'source': torch.tensor([s.sample_idx for s in data_samples], device=device),
            'images': torch.tensor(target['image_index'], device=device),
        }
        if 'captions' in student:
            keys['captions'] = torch.tensor(target['caption_index'], device=device)
        self.check_source(source)
        written = self._remember(source, target['inputs'], keys, pids)
        self.neighbours.update(self.memories, written)
        terms = self.head_losses(source, pids)
        batch = self._target_batch(student, written, step)
        if self.graph is not None:
            terms |= self._graph_loss(source, written, pids, step)
        if self.consistency is not None:
            for modality, feats in batch.feats.items():
                terms[f'loss_consistency_{modality}'] = self._consistency_loss(
                    batch, modality, feats, step
                )
        if self.distill is not None and 'captions' in student:
            distill = cast(MomentumDistillHead, self.distill)
            distill.assign(batch, self.neighbours, step)
            terms |= distill.loss(batch, self.neighbours, step)
        if self.matching is not None:
            terms |= self._matching_loss(
                [source, student], [source_tokens, target_tokens], pids, batch, step
            )
        return terms

    def _embed(
        self, inputs: dict[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Embed with the student; also give the tokens, if there is matching."""
        if self.matching is None:
            return self.extract_feat(inputs), {}
        head = cast(ImageTextMatchingHead, self.matching)
        feats, tokens = {}, {}
        if 'images' in inputs:
            feats['images'], maps = self.embed_images(inputs['images'])
            tokens['images'] = head.tokens_of_images(maps)
        if 'captions' in inputs:
            feats['captions'], words = self.embed_captions(inputs['captions'])
            tokens['captions'] = head.tokens_of_captions(words)
            tokens['mask'] = inputs['captions']['attention_mask']
        return feats, tokens

    def _matching_loss(
        self,
        feats: list[dict[str, Tensor]],
        tokens: list[dict[str, Tensor]],
        pids: Tensor,
        batch: TargetBatch,
        step: int,
    ) -> dict[str, Tensor]:
        """Match the pairs of this rank; ``feats`` and ``tokens``: source, target."""
        captions = [part['captions'] for part in feats if 'captions' in part]
        images = [part['images'] for part in feats]
        similarity = torch.cat(captions).detach() @ torch.cat(images).detach().t()
        num = len(pids)
        positives = torch.arange(num, device=pids.device)[:, None].expand(-1, 2)
        weights = torch.ones(num, device=pids.device)
        # People of one domain are not those of the other; within the target nobody
        # knows but the teacher.
        same = torch.zeros_like(similarity, dtype=torch.bool)
        same[:num, :num] = pids[:, None] == pids[None, :]
        same[num:, num:] = True
        if len(captions) > 1 and self.distill is not None:
            distill = cast(MomentumDistillHead, self.distill)
            rank = get_rank()
            own = slice(rank * len(images[1]), (rank + 1) * len(images[1]))
            pairs, trust, possible = distill.matches_in_batch(batch, own)
            same[num:, num:] = possible
            positives = torch.cat([positives, pairs + num])
            weights = torch.cat([weights, trust])
        words = [part['captions'] for part in tokens if 'captions' in part]
        masks = [part['mask'] for part in tokens if 'mask' in part]
        head = cast(ImageTextMatchingHead, self.matching)
        result = head.loss(
            torch.cat([part['images'] for part in tokens]),
            _pad_and_join(words),
            _pad_and_join(masks),
            similarity,
            positives,
            weights,
            same,
        )
        return {
            'loss_matching': head.schedules['loss_weight'].at(step) * result['loss'],
            'matching_accuracy': result['accuracy'],
            'matching_target_positives': weights.new_tensor(len(positives) - num),
        }

    @torch.no_grad()
    def _remember(
        self,
        source: dict[str, Tensor],
        target_inputs: dict[str, Any],
        keys: dict[str, Tensor],
        pids: Tensor,
    ) -> dict[str, Tensor]:
        """Push what the memories are to hold; return the slots that were written.

        The source's embeddings are the student's: they are there, their labels hold
        them in place, and the teacher's would cost another forward pass.
        """
        none = keys['source'].new_zeros(0)
        written = dict.fromkeys(self.memories, none)
        teacher = cast(TeacherTowers, self.teacher.module)
        pushes: list[tuple[str, Tensor, Tensor, Tensor | None]] = [
            (f'target_{modality}', feats, keys[modality], None)
            for modality, feats in teacher.extract_feat(target_inputs).items()
        ]
        if self.needs_source_memory:
            pushes += [
                (f'source_{modality}', feats, keys['source'], pids)
                for modality, feats in source.items()
            ]
        for name, feats, of, ids in pushes:
            memory = cast(EmbeddingMemory, self.memories[name])
            written[name] = memory.push(feats, of, ids)
            if len(written[name]) > memory.size:
                raise InputError(
                    f'GCKD: memory_size={memory.size} is less than the batch of all '
                    f'ranks, {len(written[name])}: raise it, best to the size of the '
                    f"target's train set"
                )
        return written

    def _target_batch(
        self, student: dict[str, Tensor], written: dict[str, Tensor], step: int
    ) -> TargetBatch:
        memories = {
            modality: cast(EmbeddingMemory, self.memories[f'target_{modality}'])
            for modality in MODALITIES
        }
        raw = {modality: memory.feats for modality, memory in memories.items()}
        refined, walks = raw, {}
        # Soft labels are all that the refined embeddings and the walks are for.
        if self.graph and self.distill and 'captions' in student:
            graph = cast(MemoryGraph, self.graph)
            neck = self.teacher.module.graph_neck if graph.learns else graph.neck
            graph.refine(self.memories, self.neighbours, written, neck, step)
            refined = {m: graph.refined(m, len(rows)) for m, rows in raw.items()}
            walks = graph.label_walks(self.neighbours)
        return TargetBatch(
            feats={m: gather_with_gradient(feats) for m, feats in student.items()},
            slots={m: written[f'target_{m}'] for m in student},
            memory=raw,
            refined=refined,
            keys={modality: memory.keys for modality, memory in memories.items()},
            walks=walks,
        )

    def _graph_loss(
        self,
        source: dict[str, Tensor],
        written: dict[str, Tensor],
        pids: Tensor,
        step: int,
    ) -> dict[str, Tensor]:
        """Train a neck that learns on the source, through the source's heads."""
        graph = cast(MemoryGraph, self.graph)
        if not graph.learns:
            return {}
        # Memories hold the batches of all ranks; the heads gather for themselves.
        slots = {
            modality: written[f'source_{modality}'].chunk(get_world_size())[get_rank()]
            for modality in MODALITIES
        }
        propagated = graph.propagate_source(source, slots, self.memories)
        weight = graph.schedules['loss_weight'].at(step)
        losses = self.head_losses(propagated, pids, prefix='loss_graph')
        return {name: weight * loss for name, loss in losses.items()}

    def _consistency_loss(
        self, batch: TargetBatch, modality: str, feats: Tensor, step: int
    ) -> Tensor:
        head = cast(NeighbourConsistencyHead, self.consistency)
        slots = batch.slots[modality]
        neighbours = self.neighbours.of(modality, 'near', slots, head.k)
        return head.loss(feats, slots, batch.memory[modality], neighbours, step)

    def _needed_neighbours(self) -> dict[tuple[str, str], int]:
        """Join what the parts ask for: of each relation the longest lists."""
        needs: dict[tuple[str, str], int] = {}
        parts = [p for p in (self.graph, self.distill) if p is not None]
        asked = [cast(Any, part).needed_neighbours() for part in parts]
        if self.consistency is not None:
            k = cast(NeighbourConsistencyHead, self.consistency).k
            asked.append({(modality, 'near'): k for modality in MODALITIES})
        for wishes in asked:
            for relation, k in wishes.items():
                needs[relation] = max(k, needs.get(relation, 0))
        return needs

    def check_source(self, feats: dict[str, Tensor]) -> None:
        """Refuse embeddings of another dimension than the memories'."""
        for modality, rows in feats.items():
            if rows.shape[1] != self.embedding_size:
                raise InputError(
                    f'GCKD: the embeddings of {modality} have {rows.shape[1]} numbers, '
                    f'embedding_size is {self.embedding_size}: the two towers, and the '
                    f'memories, must agree'
                )

    def _towers(self) -> TeacherTowers:
        """Return the student's parts that the teacher averages: shared, not copied."""
        graph = cast('MemoryGraph | None', self.graph)
        learned = graph is not None and graph.learns
        return TeacherTowers(self, graph.neck if graph and learned else None)


def _build(config: dict | None, **defaults: Any) -> nn.Module | None:
    return None if config is None else MODELS.build({**defaults, **config})


def _pad_and_join(parts: list[Tensor]) -> Tensor:
    """Join (N, L, …) tensors of different lengths L, with zeros behind the shorter."""
    length = max(part.shape[1] for part in parts)
    return torch.cat(
        [
            F.pad(part, (0, 0) * (part.ndim - 2) + (0, length - part.shape[1]))
            for part in parts
        ]
    )


def _check_momentum(momentum: Schedule) -> None:
    for value in (momentum.at(0), momentum.at(momentum.last_step)):
        if not 0 <= value <= 1:
            raise InputError(f'teacher_momentum must be within [0, 1], got {value}')
