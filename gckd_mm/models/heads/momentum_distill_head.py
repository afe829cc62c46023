"""Distil the teacher's soft matching of target captions and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.functional.assignment import (
    candidate_edges,
    csls_potentials,
    dual_softmax_potentials,
    score_edges,
    sinkhorn_potentials,
)
from gckd_mm.models.functional.distillation import (
    agreement,
    entropy,
    keep_best,
    mutual_gate,
    quantile_gate,
    soft_cross_entropy,
    soft_labels,
)
from gckd_mm.models.functional.walk import Walk, walked
from gckd_mm.models.memory_neighbours import MemoryNeighbours
from gckd_mm.models.schedule import Schedule
from gckd_mm.registry import MODELS

ASSIGNMENTS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    'sinkhorn': sinkhorn_potentials,
    'dual_softmax': dual_softmax_potentials,
    'csls': csls_potentials,
}
#: method -> its arguments
ASSIGNMENT_OPTIONS = {
    'sinkhorn': ('epsilon', 'iterations', 'relaxation'),
    'dual_softmax': ('epsilon',),
    'csls': ('k',),
}
#: the same of the gates, which need all of theirs
GATE_OPTIONS = {'quantile': ('threshold',), 'mutual': ('n',)}
_COUNTS = ('iterations', 'k', 'n')
#: direction -> modality of the queries, modality of what they look for
DIRECTIONS = {
    'text_to_image': ('captions', 'images'),
    'image_to_text': ('images', 'captions'),
}
#: a soft label below which a pair is not the same person
_UNLIKELY = 1e-3
#: a soft label from which a pair of the batch is taken for the same person
_LIKELY = 0.1


class TargetBatch(NamedTuple):
    """The target's side of one step, of all ranks together.

    Every field maps ``'images'`` and ``'captions'`` to a tensor; N is the batch, M the
    number of filled rows of that modality's memory.
    """

    feats: dict[str, Tensor]  # the student's, L2-normalised, (N, D), with gradient
    slots: dict[str, Tensor]  # memory row of the teacher's embedding of each, (N,)
    memory: dict[str, Tensor]  # the teacher's embeddings, (M, D)
    refined: dict[str, Tensor]  # what the graph makes of them, (M, D)
    keys: dict[str, Tensor]  # which sample each memory row is of, (M,)
    walks: Mapping[str, Walk] = {}  # how labels spread over the memory rows, if they do


class PseudoPairs(NamedTuple):
    """What the teacher believes of the captions of a batch, for probes and matching.

    Attributes:
        captions: Which target captions these are: their keys, shape (N,).
        images: The key of the best image of each, shape (N,).
        confidence: Its soft label, shape (N,).
        kept: Which pass the gate, bool, shape (N,).
    """

    captions: Tensor
    images: Tensor
    confidence: Tensor
    kept: Tensor


@MODELS.register_module()
class MomentumDistillHead(BaseModule):
    """Soft cross-entropy from the teacher's matching to the student, both directions.

    Stages, each of them off where its argument says so: the teacher's similarities of
    a query and its ``candidates`` best memory rows → ``assignment``, a correction for
    hubs → softmax at ``teacher_temperature`` → one step of a walk over the graph, if it
    has ``label_share``, and ``sharpening`` → ``keep`` the best → ``gate`` the queries →
    cross-entropy with the student's similarities to the whole memory.

    In the walk, a query takes the mean of its own labels and those of its neighbours,
    and what a memory row got spreads to that row's neighbours: two captions of a person
    agree, and so do two images.

    Balanced assignment assumes that the target's captions and images come from the
    same people, and that the memories hold (nearly) all of them; soften it with
    ``assignment.relaxation`` where they do not.

    Args:
        size: Rows of a memory.
        candidates: Memory rows that may be matched to a query. Defaults to 64.
        assignment: ``dict(method=…)`` and the arguments of one of
            :func:`sinkhorn_potentials` (``'sinkhorn'``),
            :func:`dual_softmax_potentials` (``'dual_softmax'``) and
            :func:`csls_potentials` (``'csls'``); None leaves the similarities alone.
            Defaults to ``dict(method='sinkhorn')``.
        refresh: Steps between two computations of it, over both memories; a sample that
            came since has the mean correction. Defaults to 10.
        teacher_temperature: A number or a schedule. Defaults to 0.03.
        student_temperature: Defaults to 0.06.
        sharpening: Exponent of labels after the walk, which are then normalised; 1
            leaves them. Defaults to 2.
        keep: Labels of a query that are kept. Defaults to None: all.
        gate: ``dict(method='quantile', threshold=…)`` drops that share of the queries,
            the least confident of the batch; ``dict(method='mutual', n=…)`` keeps those
            that are among the n best of their own best match. Defaults to None: all
            queries count.
        loss_weight: A number or a schedule. Defaults to 1.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If a method does not exist or a number is out of its range.

    Source: a momentum teacher's soft labels over queues are Li et al., *Align before
    Fuse* (ALBEF), NeurIPS 2021, and the paper's CMKD; assignment, candidates and gates
    are ours.
    """

    def __init__(
        self,
        size: int,
        candidates: int = 64,
        assignment: dict | None = {'method': 'sinkhorn'},  # noqa: B006 - never changed
        refresh: int = 10,
        teacher_temperature: float | dict = 0.03,
        student_temperature: float = 0.06,
        sharpening: float = 2.0,
        keep: int | None = None,
        gate: dict | None = None,
        loss_weight: float | dict = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if candidates < 1 or refresh < 1 or (keep is not None and keep < 1):
            raise InputError(
                f'MomentumDistillHead: candidates, refresh and keep must be at least '
                f'1, got {candidates}, {refresh} and {keep}'
            )
        for name, value in (
            ('student_temperature', student_temperature),
            ('sharpening', sharpening),
        ):
            if value <= 0:
                raise InputError(f'{name} must be positive, got {value}')
        self.candidates = candidates
        self.assignment = _checked(assignment, 'assignment', ASSIGNMENT_OPTIONS)
        self.refresh = refresh
        self.student_temperature = student_temperature
        self.sharpening = sharpening
        self.keep = keep
        self.gate = _checked(gate, 'gate', GATE_OPTIONS)
        if self.gate is not None and not self.gate[1]:
            method = self.gate[0]
            raise InputError(
                f'MomentumDistillHead: gate {method!r} needs '
                f'{list(GATE_OPTIONS[method])}'
            )
        temperature = Schedule.build(teacher_temperature, 'teacher_temperature')
        if min(temperature.start, temperature.end) <= 0:
            raise InputError(
                f'teacher_temperature must be positive, got {teacher_temperature}'
            )
        self.schedules = {
            'teacher_temperature': temperature,
            'loss_weight': Schedule.build(loss_weight, 'loss_weight'),
        }
        for modality in ('images', 'captions'):
            self.register_buffer(f'{modality}_potentials', torch.zeros(size))
            # Which sample each potential is of.
            self.register_buffer(f'{modality}_keys', torch.full((size,), -1))
        self.last_pairs: PseudoPairs | None = None
        #: soft labels of the last captions over the images' memory, shape (N, M)
        self.last_labels: Tensor | None = None

    def needed_neighbours(self) -> dict[tuple[str, str], int]:
        """Return what :class:`MemoryNeighbours` must keep for this head."""
        return {
            (modality, 'cross_modal'): self.candidates
            for modality in ('images', 'captions')
        }

    def reset(self) -> None:
        """Forget everything."""
        for modality in ('images', 'captions'):
            self._buffer(modality, 'potentials').zero_()
            self._buffer(modality, 'keys').fill_(-1)
        self.last_pairs = self.last_labels = None

    @torch.no_grad()
    def assign(
        self, batch: TargetBatch, neighbours: MemoryNeighbours, step: int
    ) -> None:
        """Compute the potentials of both memories, every ``refresh`` steps."""
        if self.assignment is None or step % self.refresh:
            return
        edges = candidate_edges(
            neighbours.of('captions', 'cross_modal', k=self.candidates),
            neighbours.of('images', 'cross_modal', k=self.candidates),
        )
        captions, images = batch.refined['captions'], batch.refined['images']
        edges = score_edges(edges, captions, images)
        method, options = self.assignment
        found = ASSIGNMENTS[method](edges, len(captions), len(images), **options)
        for modality, potentials in zip(('captions', 'images'), found, strict=True):
            self._buffer(modality, 'potentials')[: len(potentials)] = potentials
            self._buffer(modality, 'keys')[: len(potentials)] = batch.keys[modality]

    def loss(
        self, batch: TargetBatch, neighbours: MemoryNeighbours, step: int
    ) -> dict[str, Tensor]:
        """Return both losses and what describes the labels.

        Args:
            batch: The target's side of the step.
            neighbours: Up to date with the memories.
            step: Step of the adaptation.

        Returns:
            ``loss_distill_<direction>``, weighted, and without a part in the sum of the
            losses ``gate_rate_<direction>`` (share of queries that count),
            ``label_entropy_<direction>`` (nats) and ``agreement_<direction>`` (share of
            queries for which student and teacher have the same best match).
        """
        weight = self.schedules['loss_weight'].at(step)
        terms = {}
        for direction, (query, key) in DIRECTIONS.items():
            labels = self._labels(batch, neighbours, query, key, step)
            kept = self._kept(batch, neighbours, labels, query, key)
            feats = batch.feats[query].float()
            with torch.autocast(feats.device.type, enabled=False):
                logits = feats @ batch.memory[key].t() / self.student_temperature
            loss = soft_cross_entropy(logits, labels, kept.float())
            terms[f'loss_distill_{direction}'] = weight * loss
            terms[f'gate_rate_{direction}'] = kept.float().mean()
            terms[f'label_entropy_{direction}'] = entropy(labels).mean()
            terms[f'agreement_{direction}'] = agreement(logits, labels)
            if query == 'captions':
                best = labels.max(dim=1)
                self.last_labels = labels
                self.last_pairs = PseudoPairs(
                    batch.keys[query][batch.slots[query]],
                    batch.keys[key][best.indices],
                    best.values,
                    kept,
                )
        return terms

    @torch.no_grad()
    def matches_in_batch(
        self, batch: TargetBatch, rows: slice = slice(None)
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Say which captions and images of the batch of the last loss belong together.

        Args:
            batch: What :meth:`loss` was called with.
            rows: Those of one rank. Defaults to all of them.

        Returns:
            Caption row and image row of each likely pair, shape (G, 2): for a caption
            that passed the gate the best image of the batch, if its soft label is at
            least a tenth; these soft labels, shape (G,); and, bool, captions × images,
            where a pair is at all possible and must not serve as a negative.
        """
        if self.last_labels is None or self.last_pairs is None:
            raise RuntimeError('matches_in_batch comes after loss')
        labels = self.last_labels[rows][:, batch.slots['images'][rows]]
        best = labels.max(dim=1)
        found = (best.values >= _LIKELY) & self.last_pairs.kept[rows]
        captions = found.nonzero().flatten()
        pairs = torch.stack([captions, best.indices[captions]], dim=1)
        return pairs, best.values[captions], labels > _UNLIKELY

    @torch.no_grad()
    def _labels(
        self,
        batch: TargetBatch,
        neighbours: MemoryNeighbours,
        query: str,
        key: str,
        step: int,
    ) -> Tensor:
        """Return the soft labels of a batch over the memory, shape (N, M)."""
        slots = batch.slots[query]
        size = len(slots), len(batch.refined[key])
        if not batch.walks:
            labels, index = self._candidate_labels(
                batch, neighbours, query, key, slots, step
            )
            labels = labels.new_zeros(size).scatter_add_(1, index, labels)
        else:
            walk = batch.walks[query]
            starts, chances = walk.ends[slots], walk.chances[slots]
            labels, index = self._candidate_labels(
                batch, neighbours, query, key, starts.flatten(), step
            )
            labels, index = walked(
                (labels * chances.flatten()[:, None]).view(len(slots), -1),
                index.view(len(slots), -1),
                batch.walks[key],
            )
            labels = labels.new_zeros(size).scatter_add_(1, index, labels)
            labels = F.normalize(labels.pow(self.sharpening), p=1, dim=1)
        return labels if self.keep is None else keep_best(labels, self.keep)

    def _candidate_labels(
        self,
        batch: TargetBatch,
        neighbours: MemoryNeighbours,
        query: str,
        key: str,
        slots: Tensor,
        step: int,
    ) -> tuple[Tensor, Tensor]:
        """Return soft labels of memory rows and the rows that they are for, (N, C)."""
        index, _ = neighbours.of(query, 'cross_modal', slots, self.candidates)
        missing = index < 0
        index = index.clamp_min(0)
        queries, keys = batch.refined[query][slots], batch.refined[key]
        similarity = torch.einsum('nd,ncd->nc', queries, keys[index])
        similarity = similarity.masked_fill(missing, float('-inf'))
        potentials = self._potentials(batch, key)[index]
        temperature = self.schedules['teacher_temperature'].at(step)
        return soft_labels(similarity, potentials, temperature), index

    def _potentials(self, batch: TargetBatch, modality: str) -> Tensor:
        """Return the corrections of a memory's rows, shape (M,)."""
        keys = batch.keys[modality]
        potentials = self._buffer(modality, 'potentials')[: len(keys)]
        known = self._buffer(modality, 'keys')[: len(keys)] == keys
        mean = (potentials * known).sum() / known.sum().clamp_min(1)
        return potentials.where(known, mean)

    @torch.no_grad()
    def _kept(
        self,
        batch: TargetBatch,
        neighbours: MemoryNeighbours,
        labels: Tensor,
        query: str,
        key: str,
    ) -> Tensor:
        if self.gate is None:
            return torch.ones(len(labels), dtype=torch.bool, device=labels.device)
        method, options = self.gate
        best = labels.max(dim=1)
        if method == 'quantile':
            return quantile_gate(best.values, **options)
        # The queries that each best match would choose, corrected as everything is.
        index, _ = neighbours.of(key, 'cross_modal', best.indices, self.candidates)
        found = batch.refined[key][best.indices]
        similarity = (found[:, None] * batch.refined[query][index.clamp_min(0)]).sum(2)
        similarity = similarity + self._potentials(batch, query)[index.clamp_min(0)]
        similarity = similarity.masked_fill(index < 0, float('-inf'))
        n = min(options['n'], index.shape[1])
        chosen = index.gather(1, similarity.topk(n, dim=1).indices)
        rows = torch.arange(len(labels), device=labels.device)
        return mutual_gate(rows, batch.slots[query], chosen)

    def _buffer(self, modality: str, name: str) -> Tensor:
        return cast(Tensor, getattr(self, f'{modality}_{name}'))


def _checked(
    option: dict | None, name: str, methods: Mapping[str, tuple[str, ...]]
) -> tuple[str, dict[str, Any]] | None:
    """Split a ``dict(method=…, …)`` into the method and its arguments."""
    if option is None:
        return None
    rest = dict(option) if isinstance(option, Mapping) else {}
    method = rest.pop('method', None)
    if method not in methods:
        raise InputError(
            f'MomentumDistillHead: {name} must be None or dict(method=…) with one of '
            f'{sorted(methods)}, got {option}'
        )
    unknown = set(rest) - set(methods[method])
    if unknown:
        raise InputError(
            f'MomentumDistillHead: {name} {method!r} has the arguments '
            f'{methods[method]}, got {sorted(unknown)}'
        )
    for key, value in rest.items():
        if not _in_range(key, value):
            expected = 'positive'
            if key in _COUNTS:
                expected = 'a whole number of at least 1'
            elif key == 'threshold':
                expected = 'the share of queries to drop, at least 0 and below 1'
            raise InputError(
                f'MomentumDistillHead: {name}.{key} must be {expected}, got {value!r}'
            )
    return method, rest


def _in_range(key: str, value: Any) -> bool:
    if key == 'relaxation' and value is None:
        return True
    if key in _COUNTS:
        return isinstance(value, int) and value >= 1
    if not isinstance(value, int | float):
        return False
    return 0 <= value < 1 if key == 'threshold' else value > 0
