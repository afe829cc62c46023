"""Pseudo-labels: what the teacher believes of target captions and images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.functional.assignment import (
    candidate_edges,
    score_edges,
    sinkhorn_potentials,
)
from gckd_mm.models.functional.distillation import quantile_gate, soft_labels
from gckd_mm.models.functional.propagation import (
    propagate_labels_once,
    transition_matrix,
)
from gckd_mm.models.gckd.graph import Edges
from gckd_mm.models.gckd.relations import DIRECTIONS, MODALITIES
from gckd_mm.models.schedule import Schedule
from gckd_mm.registry import MODELS


class SoftLabels(NamedTuple):
    """Soft labels of N queries over the M rows of a memory.

    Attributes:
        labels: Distributions, shape (N, M); rows sum to 1.
        weights: How much each query counts, shape (N,), from 0 to 1.
    """

    labels: Tensor
    weights: Tensor


class _Assignment(NamedTuple):
    epsilon: float = 0.06
    iterations: int = 4
    relaxation: float | None = None


class _Propagation(NamedTuple):
    alpha: float
    k: int = 6
    temperature: float = 0.1


_Settings = TypeVar('_Settings', _Assignment, _Propagation)


@MODELS.register_module()
class PseudoLabels(BaseModule):
    """Match target captions with target images, and say how much each match counts.

    For each query of a batch: the similarities of its ``candidates`` in the other
    modality's memory → ``assignment``, potentials against hubs → softmax at
    ``temperature`` → ``propagation`` of the labels to neighbours → ``sharpening`` →
    the ``gate``, which drops the least confident queries.

    In the propagation a query takes the mean of its own labels and those of its
    ``near`` neighbours, and what a memory row received spreads to that row's
    neighbours: two captions of a person agree, and so do two images.

    Balanced assignment assumes that the target's captions and images come from the
    same people, and that the memories hold (nearly) all of them; soften it with
    ``assignment.relaxation`` where they do not.

    Args:
        size: Rows of a memory.
        candidates: Memory rows that may be matched to a query. Defaults to 64.
        assignment: Arguments of :func:`sinkhorn_potentials`: ``epsilon``,
            ``iterations`` and ``relaxation``; None leaves the similarities alone.
            Defaults to those of the function.
        refresh: Steps between two computations of the potentials, over both memories; a
            sample that came since has the mean potential. Defaults to 10.
        temperature: A number or a schedule. Defaults to 0.03.
        propagation: ``alpha``, the fraction of a row's labels that comes from its
            neighbours, in (0, 1], ``k`` neighbours and the ``temperature`` of their
            softmax. Defaults to None: no label propagation.
        sharpening: Exponent of labels after the propagation, which are then normalised;
            1 leaves them. Defaults to 2.
        gate: The quantile of the batch's confidences below which queries have the
            weight 0, in [0, 1). Defaults to 0: all queries count.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If a number is out of its range.

    Source: a momentum teacher's soft labels over queues are of Li et al., *Align before
    Fuse* (ALBEF), NeurIPS 2021, and the paper's CMKD; assignment, candidates,
    propagation and gate are ours.
    """

    def __init__(
        self,
        size: int,
        candidates: int = 64,
        assignment: Mapping[str, Any] | None = {},
        refresh: int = 10,
        temperature: float | dict = 0.03,
        propagation: Mapping[str, Any] | None = None,
        sharpening: float = 2.0,
        gate: float = 0.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        _check_count('candidates', candidates)
        _check_count('refresh', refresh)
        _check_positive('sharpening', sharpening)
        if not 0 <= gate < 1:
            raise InputError(
                f'PseudoLabels: gate is the fraction of queries to drop, at least 0 '
                f'and below 1; got {gate}'
            )
        self.candidates = candidates
        self.assignment = _read(_Assignment, 'assignment', assignment)
        self.refresh = refresh
        self.propagation = _read(_Propagation, 'propagation', propagation)
        if self.propagation is not None and self.propagation.alpha > 1:
            raise InputError(
                f'PseudoLabels: propagation.alpha must be at most 1, got '
                f'{self.propagation.alpha}'
            )
        self.sharpening = sharpening
        self.gate = gate
        self.temperature = Schedule.build(temperature, 'labels.temperature')
        _check_positive(
            'temperature', min(self.temperature.start, self.temperature.end)
        )
        for modality in MODALITIES:
            self.register_buffer(f'{modality}_potentials', torch.zeros(size))
            # Which sample each potential is of.
            self.register_buffer(f'{modality}_keys', torch.full((size,), -1))

    def reset(self) -> None:
        """Forget everything."""
        for modality in MODALITIES:
            self.get_buffer(f'{modality}_potentials').zero_()
            self.get_buffer(f'{modality}_keys').fill_(-1)

    @torch.no_grad()
    def forward(
        self,
        feats: Mapping[str, Tensor],
        keys: Mapping[str, Tensor],
        edges: Edges,
        slots: Mapping[str, Tensor],
        step: int,
    ) -> dict[str, SoftLabels]:
        """Label the queries of a batch in both directions.

        Args:
            feats: Modality -> the target's (propagated) embeddings, shape (M, D).
            keys: Modality -> which sample each of these rows is of, shape (M,).
            edges: Of the target's memories.
            slots: Modality -> rows of the batch's samples, shape (N,).
            step: Step of the adaptation.

        Returns:
            ``'text_to_image'`` and ``'image_to_text'`` -> labels over the memory of
            what is searched.
        """
        if self.assignment is not None and step % self.refresh == 0:
            self._assign(self.assignment, feats, keys, edges)
        transitions = {}
        if self.propagation is not None:
            transitions = {
                modality: transition_matrix(
                    edges.of(modality, 'near', k=self.propagation.k),
                    self.propagation.alpha,
                    self.propagation.temperature,
                )
                for modality in MODALITIES
            }
        temperature = self.temperature.at(step)
        found = {}
        for direction, (query, key) in DIRECTIONS.items():
            rows = slots[query]
            if transitions:
                rows, of_query = (part[slots[query]] for part in transitions[query])
            labels, index = self._candidate_labels(
                feats, keys, edges, query, key, rows.flatten(), temperature
            )
            if transitions:
                labels = (labels * of_query.flatten()[:, None]).view(len(rows), -1)
                labels, index = propagate_labels_once(
                    labels, index.view(len(rows), -1), transitions[key]
                )
            size = len(rows), len(feats[key])
            labels = labels.new_zeros(size).scatter_add_(1, index, labels)
            if transitions:
                labels = F.normalize(labels.pow(self.sharpening), p=1, dim=1)
            found[direction] = SoftLabels(labels, self._weights(labels))
        return found

    def _assign(
        self,
        assignment: _Assignment,
        feats: Mapping[str, Tensor],
        keys: Mapping[str, Tensor],
        edges: Edges,
    ) -> None:
        """Compute the potentials of both memories."""
        pairs = candidate_edges(
            edges.of('captions', 'cross_modal', k=self.candidates),
            edges.of('images', 'cross_modal', k=self.candidates),
        )
        captions, images = feats['captions'], feats['images']
        found = sinkhorn_potentials(
            score_edges(pairs, captions, images),
            len(captions),
            len(images),
            **assignment._asdict(),
        )
        for modality, potentials in zip(('captions', 'images'), found, strict=True):
            filled = len(potentials)
            self.get_buffer(f'{modality}_potentials')[:filled] = potentials
            self.get_buffer(f'{modality}_keys')[:filled] = keys[modality]

    def _candidate_labels(
        self,
        feats: Mapping[str, Tensor],
        keys: Mapping[str, Tensor],
        edges: Edges,
        query: str,
        key: str,
        rows: Tensor,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        """Return soft labels of memory rows and the rows that they are for, (N, C)."""
        index, _ = edges.of(query, 'cross_modal', rows, self.candidates)
        missing = index < 0
        index = index.clamp_min(0)
        queries = feats[query][rows]
        with torch.autocast(queries.device.type, enabled=False):
            similarity = torch.einsum('nd,ncd->nc', queries, feats[key][index])
        similarity = similarity.masked_fill(missing, float('-inf'))
        potentials = self._potentials(key, keys[key])[index]
        return soft_labels(similarity, potentials, temperature), index

    def _potentials(self, modality: str, keys: Tensor) -> Tensor:
        """Return the potentials of a memory's rows, shape (M,)."""
        potentials = self.get_buffer(f'{modality}_potentials')[: len(keys)]
        known = self.get_buffer(f'{modality}_keys')[: len(keys)] == keys
        mean = (potentials * known).sum() / known.sum().clamp_min(1)
        return potentials.where(known, mean)

    def _weights(self, labels: Tensor) -> Tensor:
        if self.gate == 0:
            return labels.new_ones(len(labels))
        return quantile_gate(labels.amax(dim=1), self.gate).float()


def _read(
    kind: type[_Settings], name: str, given: Mapping[str, Any] | None
) -> _Settings | None:
    """Check the arguments of a part; None stays None."""
    if given is None:
        return None
    unknown = sorted(set(given) - set(kind._fields))
    missing = sorted(set(kind._fields) - set(kind._field_defaults) - set(given))
    if unknown or missing:
        raise InputError(
            f'PseudoLabels: {name} has the arguments {list(kind._fields)}; unknown: '
            f'{unknown}, missing: {missing}'
        )
    settings = kind(**given)
    for key, value in settings._asdict().items():
        if key in ('iterations', 'k'):
            _check_count(f'{name}.{key}', value)
        elif value is not None:
            _check_positive(f'{name}.{key}', value)
    return settings


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(
            f'PseudoLabels: {name} must be a whole number of at least 1, got {value!r}'
        )


def _check_positive(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or not value > 0:
        raise InputError(f'PseudoLabels: {name} must be positive, got {value!r}')
