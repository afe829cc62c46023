"""Pseudo-labels: what the teacher believes of target captions and images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from gckd_mm.models.functional.assignment import (
    candidate_edges,
    score_edges,
    sinkhorn_potentials,
)
from gckd_mm.models.functional.gates import quantile_gate
from gckd_mm.models.gckd.graph import Edges
from gckd_mm.models.gckd.label_settings import (
    AssignmentSettings,
    check_labels,
    read_assignment,
    read_propagation,
)
from gckd_mm.models.gckd.memory import Neighbours
from gckd_mm.models.gckd.relations import DIRECTIONS, MODALITIES
from gckd_mm.models.necks.graph_propagation_neck import neighbour_weights
from gckd_mm.models.retrievers.schedule_settings import read_schedule
from gckd_mm.registry import MODELS


class SoftLabels(NamedTuple):
    """Soft labels of N queries over the M rows of a memory.

    ``labels`` are distributions, shape (N, M); ``weights`` say how much each query
    counts, shape (N,), from 0 to 1.
    """

    labels: Tensor
    weights: Tensor


class Transitions(NamedTuple):
    """A sparse transition matrix over N rows; shapes (N, 1 + K).

    ``index`` is the row itself, then its neighbours; ``probability`` that of going
    there: 0, and the index that of the row itself, where there is no neighbour.
    """

    index: Tensor  # type: ignore[assignment] # not what tuple.index is
    probability: Tensor


@torch.no_grad()
def transition_matrix(
    neighbours: Neighbours, alpha: float, temperature: float
) -> Transitions:
    """Return (1 − α) I + α W, W being the softmax of the similarities.

    Args:
        neighbours: Of N rows, among these same rows, K each.
        alpha: α, from 0 to 1. A row without neighbours keeps the probability 1.
        temperature: Of the softmax.

    Source: ours; one step of what Zhou et al., *Learning with Local and Global
    Consistency*, NeurIPS 2003, repeat until it converges.
    """
    rows = torch.arange(len(neighbours.index), device=neighbours.index.device)[:, None]
    moves = alpha * neighbour_weights(neighbours, temperature)
    stays = 1 - moves.sum(dim=1, keepdim=True)
    index = torch.where(neighbours.index < 0, rows, neighbours.index)
    return Transitions(
        torch.cat([rows, index], dim=1), torch.cat([stays, moves], dim=1)
    )


@torch.no_grad()
def propagate_labels_once(
    labels: Tensor, index: Tensor, transitions: Transitions
) -> tuple[Tensor, Tensor]:
    """Multiply sparse labels of N queries by a transition matrix from the right.

    Labels and columns, shapes (N, C), become such of shapes (N, C · (1 + K)), in which
    a column may come several times: its labels add up.
    """
    moved = labels[..., None] * transitions.probability[index]
    return moved.flatten(1), transitions.index[index].flatten(1)


@MODELS.register_module()
class PseudoLabels(BaseModule):
    """Match target captions with target images, and say how much each match counts.

    For each query of a batch: the similarities of its ``candidates`` in the other
    modality's memory → ``assignment``, potentials against hubs → softmax at
    ``temperature`` → ``propagation``: the query takes the mean of its own labels and
    those of its ``near`` neighbours, and each memory row passes labels on to its own →
    ``sharpening`` → the ``gate``, which drops the least confident queries.

    Balanced assignment assumes that the target's captions and images come from the
    same people, and that the memories hold nearly all of them.

    Args:
        size: Rows of a memory.
        candidates: Memory rows that may be matched to a query. Defaults to 64.
        assignment: ``epsilon``, ``iterations`` and ``relaxation`` of
            :func:`sinkhorn_potentials`, as by default; None: no assignment.
        refresh: Steps between two computations of the potentials; a sample that came
            since has the mean potential. Defaults to 10.
        temperature: A number or a schedule. Defaults to 0.03.
        propagation: ``alpha``, the fraction of a row's labels that comes from its
            neighbours, in (0, 1], ``k`` neighbours and the ``temperature`` of their
            softmax. Defaults to None: no label propagation.
        sharpening: Exponent of propagated labels, then normalised. Defaults to 2.
        gate: The quantile of the batch's confidences below which queries have the
            weight 0, in [0, 1). Defaults to 0: all queries count.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Source: a momentum teacher's soft labels are of Li et al., *Align before Fuse*
    (ALBEF), NeurIPS 2021, and the paper's CMKD; the rest is ours.
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
        self.temperature = read_schedule(temperature, 'labels.temperature')
        check_labels(candidates, refresh, sharpening, gate, self.temperature)
        self.candidates = candidates
        self.assignment = read_assignment(assignment)
        self.refresh = refresh
        self.propagation = read_propagation(propagation)
        self.sharpening = sharpening
        self.gate = gate
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
        """Label the queries of a batch: direction -> labels over what is searched.

        Args:
            feats: Modality -> the target's (propagated) embeddings, shape (M, D).
            keys: Modality -> which sample each of these rows is of, shape (M,).
            edges: Of the target's memories.
            slots: Modality -> rows of the batch's samples, shape (N,).
            step: Step of the adaptation.
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
        assignment: AssignmentSettings,
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
        corrected = similarity + self._potentials(key, keys[key])[index]
        return (corrected / temperature).softmax(dim=1), index

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
