"""One step of GCKD's adaptation as it is shipped, written straight: the oracle.

No option, no incremental list, nothing of :mod:`gckd_mm.models.functional`: every
similarity is computed anew in every step, every matrix is dense, in float64. Only the
encoders and the source's heads are those of the package.

Two things are lazy by definition, in the real step and here. Everything else is a
function of this step's memories, student and teacher.

- **Refined embeddings.** Every ``graph_refresh`` steps all rows are propagated. In a
  step between, only the rows just written are, over the memories of that step. Any
  other row keeps its refined embedding, although its neighbours may have changed.
- **Potentials.** They are computed every ``assign_refresh`` steps, from the refined
  embeddings of that step. Until the next time, a row that was empty then, or holds
  another sample now, takes the mean of the potentials that still hold.
"""

from __future__ import annotations

import copy
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gckd_mm.models import DualEncoder
from gckd_mm.models.heads.contrastive_head import head_losses

MODALITIES = ('images', 'captions')
#: direction -> modality of the queries, modality of what they look for
DIRECTIONS = {
    'text_to_image': ('captions', 'images'),
    'image_to_text': ('images', 'captions'),
}


class Ramp(NamedTuple):
    """A number that goes from ``start`` to ``end`` in the first ``length`` steps."""

    start: float
    end: float
    length: int = 1

    def at(self, step: int) -> float:
        progress = min(step / self.length, 1)
        return (1 - progress) * self.start + progress * self.end


class Numbers(NamedTuple):
    """What the step depends on, as ``configs/gckd/gckd_street2mall.py`` has it."""

    memory_size: int = 5000
    teacher_momentum: Ramp = Ramp(0.97, 0.97)
    near: int = 6
    cross_domain: int = 3
    graph_temperature: float = 0.1
    graph_alpha: float = 0.5
    graph_refresh: int = 10
    propagation_alpha: float = 0.5
    propagation_k: int = 6
    propagation_temperature: float = 0.1
    candidates: int = 32
    epsilon: float = 0.06
    iterations: int = 4
    assign_refresh: int = 10
    teacher_temperature: Ramp = Ramp(0.02, 0.02)
    student_temperature: float = 0.06
    sharpening: float = 2.0
    distill_weight: Ramp = Ramp(0.0, 8.0, 75)
    consistency_k: int = 6
    consistency_temperature: float = 0.1
    consistency_student_temperature: float = 0.06
    consistency_weight: Ramp = Ramp(0.0, 0.5, 75)


class Memory:
    """The newest embedding of each of the ``size`` samples that were pushed last."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: list[Tensor] = []
        self.keys: list[int] = []
        self.times: list[int] = []
        self.clock = 0

    @property
    def feats(self) -> Tensor:
        return torch.stack(self.rows).double()

    def push(self, feats: Tensor, keys: list[int]) -> list[int]:
        """Store a batch; return the slot of each of its rows."""
        last_rows = {key: row for row, key in enumerate(keys)}.values()
        # What is held stays in its slot, and does not make room for the others.
        for row in sorted(last_rows, key=lambda row: (keys[row] not in self.keys, row)):
            if keys[row] in self.keys:
                slot = self.keys.index(keys[row])
            elif len(self.keys) < self.size:
                slot = len(self.keys)
            else:
                slot = self.times.index(min(self.times))
            self.rows[slot : slot + 1] = [feats[row].detach()]
            self.keys[slot : slot + 1] = [keys[row]]
            self.times[slot : slot + 1] = [self.clock + row]
        self.clock += len(keys)
        return [self.keys.index(key) for key in keys]


class PlainGCKD:
    """The adaptation of ``student``, which begins with the weights that it has now.

    Nothing here trains the student: whoever does calls :meth:`follow` after each step
    of the optimiser.
    """

    def __init__(self, student: DualEncoder, numbers: Numbers) -> None:
        self.student = student
        self.teacher = copy.deepcopy(student).eval()
        self.numbers = numbers
        size = numbers.memory_size
        self.source = {modality: Memory(size) for modality in MODALITIES}
        self.target = {modality: Memory(size) for modality in MODALITIES}
        self.refined: dict[str, Tensor] = {}
        # The keys of the rows when the potentials were computed, and the potentials.
        self.potentials: dict[str, tuple[list[int], Tensor]] = {}
        #: of each caption of the batch: the key of its best image, and its soft label
        self.best: list[tuple[int, float]] = []

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Move the teacher towards the student; its buffers are the student's."""
        momentum = self.numbers.teacher_momentum.at(step)
        student = self.student.state_dict()
        weights = dict(self.teacher.named_parameters())
        for name, value in self.teacher.state_dict().items():
            if name in weights:
                value.mul_(momentum).add_((1 - momentum) * student[name])
            else:
                value.copy_(student[name])

    def losses(self, batch: dict[str, Any], step: int) -> dict[str, Tensor]:
        """Return all that the real step returns, by the same names."""
        numbers, target = self.numbers, batch['target']
        source = self.student.extract_feat(batch['inputs'])
        student = self.student.extract_feat(target['inputs'])
        with torch.no_grad():
            teacher = self.teacher.extract_feat(target['inputs'])

        pairs = [sample.sample_idx for sample in batch['data_samples']]
        for modality, feats in source.items():
            self.source[modality].push(feats, pairs)
        keys = {name: target[f'{name[:-1]}_index'] for name in teacher}
        slots = {
            name: self.target[name].push(feats, keys[name])
            for name, feats in teacher.items()
        }

        pids = torch.tensor([sample.pid for sample in batch['data_samples']])
        terms = head_losses(self.student.heads, source, pids)

        for modality, feats in student.items():
            memory, own = self.target[modality].feats, slots[modality]
            near = nearest(similarities(memory), numbers.consistency_k)[own]
            labels = softmax(near / numbers.consistency_temperature)
            logits = feats.double() @ memory.t()
            logits = logits / numbers.consistency_student_temperature
            logits[range(len(own)), own] = -1e9
            losses = cross_entropy(labels, logits)
            # A row without a neighbour has no labels, and does not count.
            loss = losses.sum() / max((labels.sum(dim=1) > 0).sum(), 1)
            weight = numbers.consistency_weight.at(step)
            terms[f'loss_consistency_{modality}'] = weight * loss

        if 'captions' not in student:
            return terms
        self._refine(slots, step)
        self._assign(step)
        for direction, (query, key) in DIRECTIONS.items():
            labels = self._labels(query, key, step)[slots[query]]
            logits = student[query].double() @ self.target[key].feats.t()
            logits = logits / numbers.student_temperature
            loss = cross_entropy(labels, logits).mean()
            best = labels.max(dim=1)
            same = (best.indices == logits.argmax(dim=1)).float()
            logs = labels.clamp_min(1e-300).log()
            terms |= {
                f'loss_distill_{direction}': numbers.distill_weight.at(step) * loss,
                f'gate_rate_{direction}': torch.ones(()),
                f'label_entropy_{direction}': -(labels * logs).sum(dim=1).mean(),
                f'agreement_{direction}': same.mean(),
            }
            if query == 'captions':
                found = [self.target[key].keys[row] for row in best.indices]
                self.best = list(zip(found, best.values.tolist(), strict=True))
        return terms

    def _refine(self, slots: dict[str, list[int]], step: int) -> None:
        """Average each row with its neighbours in both domains: one softmax of all."""
        numbers, alpha = self.numbers, self.numbers.graph_alpha
        for modality, written in slots.items():
            target, source = self.target[modality].feats, self.source[modality].feats
            near = nearest(similarities(target), numbers.near)
            cross_domain = nearest(target @ source.t(), numbers.cross_domain)
            logits = torch.cat([near, cross_domain], dim=1) / numbers.graph_temperature
            average = softmax(logits) @ torch.cat([target, source])
            rows = (1 - alpha) * target + alpha * average
            rows = rows / rows.norm(dim=1, keepdim=True)
            if step % numbers.graph_refresh:
                old = [x for x in range(len(rows)) if x not in written]
                rows[old] = self.refined[modality][old]
            self.refined[modality] = rows

    def _assign(self, step: int) -> None:
        """Balance captions (rows) and images (columns) by Sinkhorn's iterations."""
        if step % self.numbers.assign_refresh:
            return
        pairs = self._candidates('captions', 'images')
        pairs = pairs | self._candidates('images', 'captions').t()
        similarity = self.refined['captions'] @ self.refined['images'].t()
        logits = similarity.masked_fill(~pairs, -inf) / self.numbers.epsilon
        images = torch.zeros(logits.shape[1])
        for _ in range(self.numbers.iterations):
            captions = -(logits + images).logsumexp(dim=1)
            images = -(logits + captions[:, None]).logsumexp(dim=0)
        for modality, potentials in (('captions', captions), ('images', images)):
            keys = list(self.target[modality].keys)
            self.potentials[modality] = keys, self.numbers.epsilon * potentials

    def _labels(self, query: str, key: str, step: int) -> Tensor:
        """Return soft labels of all rows of one memory over the rows of the other."""
        keys, potentials = self.potentials[key]
        now = self.target[key].keys
        held = [x for x in range(len(keys)) if keys[x] == now[x]]
        current = potentials[held].mean().nan_to_num(0.0).repeat(len(now))
        current[held] = potentials[held]
        logits = self.refined[query] @ self.refined[key].t() + current
        logits = logits.masked_fill(~self._candidates(query, key), -inf)
        labels = softmax(logits / self.numbers.teacher_temperature.at(step))
        labels = self._transitions(query) @ labels @ self._transitions(key)
        labels = labels**self.numbers.sharpening
        return labels / labels.sum(dim=1, keepdim=True)

    def _candidates(self, query: str, key: str) -> Tensor:
        """Say which rows of the key's memory each row of the query's may match."""
        similarity = self.target[query].feats @ self.target[key].feats.t()
        return nearest(similarity, self.numbers.candidates) > -inf

    def _transitions(self, modality: str) -> Tensor:
        """Return the probabilities with which labels go from row to row."""
        numbers = self.numbers
        similarity = similarities(self.target[modality].feats)
        near = nearest(similarity, numbers.propagation_k)
        moves = softmax(near / numbers.propagation_temperature)
        moves = numbers.propagation_alpha * moves
        return moves + (1 - moves.sum(dim=1)).diag()


def similarities(rows: Tensor) -> Tensor:
    """Compare the rows of one memory: none is its own neighbour."""
    return (rows @ rows.t()).fill_diagonal_(-inf)


def nearest(similarity: Tensor, k: int) -> Tensor:
    """Keep the k largest of each row; −inf elsewhere."""
    best = similarity.topk(min(k, similarity.shape[1]), dim=1)
    return torch.full_like(similarity, -inf).scatter(1, best.indices, best.values)


def softmax(logits: Tensor) -> Tensor:
    """Return the softmax of each row, 0 if all is −inf."""
    return logits.softmax(dim=1).nan_to_num(0.0)


def cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
    return -(labels * logits.log_softmax(dim=1)).sum(dim=1)
