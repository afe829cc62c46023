"""Self-training on labels that spread over a graph of the target's samples."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.functional.gates import mutual_gate
from gckd_mm.models.functional.label_propagation import (
    AffinityGraph,
    affinity_graph,
    close_modality_gap,
    propagate_labels,
)
from gckd_mm.models.gckd.relations import DIRECTIONS, MODALITIES
from gckd_mm.models.heads.contrastive_head import gather_with_gradient
from gckd_mm.models.heads.momentum_distill_head import (
    soft_cross_entropy,
)
from gckd_mm.models.uda.adaptation_head import (
    CrossDomainFeats,
)
from gckd_mm.models.uda.target_memory_head import TargetMemoryHead
from gckd_mm.registry import MODELS


@MODELS.register_module()
class LabelPropagationHead(TargetMemoryHead):
    """Cross-entropy from labels propagated between captions and images.

    Memories hold the student's embedding of every target sample as it was last seen.
    Every ``refresh`` steps, they become a graph: without the directions that only tell
    captions from images (:func:`close_modality_gap`), and with edges to the neighbours
    within and across the modalities (:func:`affinity_graph`). Each caption of the batch
    is then a label of its own, which spreads from its node; the ``top`` images that it
    reaches best are its pseudo labels, in proportion (:func:`propagate_labels`). Each
    image of the batch finds captions in the same way. The student learns both.

    A caption counts if its best image agrees: if it was among the ``top`` captions of
    that image when the image was last in a batch. The reverse holds for images.

    A sample that has not been seen before the last refresh has no label yet. Until the
    memories hold the target, labels lie among what was seen: begin ``loss_weight``
    later, or let it rise, if that is to count less.

    Args:
        embedding_size: D.
        memory_size: Rows of each of the two memories; best what the target's train
            set has of the larger modality.
        k: Neighbours that a node chooses in each modality; those that choose it are
            its neighbours, too. Defaults to 5, for speed; ReCLIP: 20 of any modality.
        exponent: Of the similarities as weights of edges. Defaults to 3.
        alpha: How far labels spread: 1 / (1 − α) steps on average. Defaults to 0.9;
            ReCLIP's 0.99 is for classes of hundreds of images.
        iterations: Steps of the solver. Defaults to 6.
        top: Pseudo labels that a query keeps. Defaults to 10.
        mutual: Whether only queries count that their best match agrees with. Defaults
            to True.
        temperature: Divides the student's similarities. Defaults to 0.06.
        refresh: Steps between two graphs. Defaults to 20.
        loss_weight: A number or a schedule. Defaults to 1.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If a number is out of its range.

    Source: after Hu et al., *ReCLIP: Refine Contrastive Language Image Pre-Training
    with Source Free Domain Adaptation*, WACV 2024. Theirs are the projection before the
    graph, propagation from text nodes over one graph of texts and images, learning from
    the labels in both encoders, only where two labellings agree, and renewing them as
    the encoders change. They classify: class names are the text nodes, an image takes
    its best label, hard; two models, one with a text encoder and one with an image
    encoder that learns, must agree. Ours: a caption is a class of its own, images are
    queries too, labels are soft, and the two directions must agree. The source's losses
    go on beside it, which ReCLIP, being source-free, has not.
    """

    num_nodes: Tensor
    num_edges: Tensor
    edges: Tensor
    weights: Tensor

    def __init__(
        self,
        embedding_size: int,
        memory_size: int,
        k: int = 5,
        exponent: float = 3.0,
        alpha: float = 0.9,
        iterations: int = 6,
        top: int = 10,
        mutual: bool = True,
        temperature: float = 0.06,
        refresh: int = 20,
        loss_weight: float | dict = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(embedding_size, memory_size, loss_weight, init_cfg)
        if min(k, iterations, top, refresh) < 1:
            raise InputError(
                f'LabelPropagationHead: k, iterations, top and refresh must be at '
                f'least 1, got {k}, {iterations}, {top} and {refresh}'
            )
        if not 0 < alpha < 1:
            raise InputError(
                f'LabelPropagationHead: alpha must lie between 0 and 1, got {alpha}'
            )
        if exponent <= 0 or temperature <= 0:
            raise InputError(
                f'LabelPropagationHead: exponent and temperature must be positive, '
                f'got {exponent} and {temperature}'
            )
        self.k = k
        self.exponent = exponent
        self.alpha = alpha
        self.iterations = iterations
        self.top = top
        self.mutual = mutual
        self.temperature = temperature
        self.refresh = refresh
        for modality in MODALITIES:
            # Which sample each node is: the memories go on after a graph is made.
            self.register_buffer(f'{modality}_nodes', torch.full((memory_size,), -1))
            # By slot, the keys of what the sample chose last.
            self.register_buffer(
                f'{modality}_choices', torch.full((memory_size, top), -1)
            )
        most_edges = 8 * k * memory_size
        self.register_buffer('num_nodes', torch.zeros(2, dtype=torch.int64))
        self.register_buffer('num_edges', torch.tensor(0))
        self.register_buffer('edges', torch.zeros(2, most_edges, dtype=torch.int64))
        self.register_buffer('weights', torch.zeros(most_edges))

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        for modality in MODALITIES:
            self.get_buffer(f'{modality}_nodes').fill_(-1)
            self.get_buffer(f'{modality}_choices').fill_(-1)
        for buffer in (self.num_nodes, self.num_edges, self.edges, self.weights):
            buffer.zero_()

    def terms(self, feats: CrossDomainFeats, step: int) -> dict[str, Tensor]:
        """Return both losses and what describes the labels.

        Args:
            feats: See :class:`CrossDomainFeats`; the source is left alone.
            step: Step of the adaptation.

        Returns:
            ``loss_propagation_<direction>``; and without a part in the sum of the
            losses ``labelled_<direction>`` (share of queries with a label),
            ``gate_rate_<direction>`` (of queries that count) and
            ``label_entropy_<direction>`` (nats, of the queries that count).

        Raises:
            InputError: If the target has no captions.
        """
        self.need_captions(feats)
        slots = {modality: self._push(feats, modality) for modality in MODALITIES}
        if step % self.refresh == 0:
            self._build_graph()
        keys = {m: torch.cat(all_gather(feats.keys[m])) for m in MODALITIES}
        labels = self._labels(slots, keys)
        for query, other in DIRECTIONS.values():
            self._choose(query, other, slots[query], labels[query])
        terms = {}
        for direction, (query, other) in DIRECTIONS.items():
            kept = labelled = labels[query].any(dim=1)
            if self.mutual:
                kept = labelled & mutual_gate(
                    labels[query].argmax(dim=1),
                    keys[query],
                    self.get_buffer(f'{other}_choices'),
                )
            student = gather_with_gradient(feats.target[query])
            with torch.autocast(student.device.type, enabled=False):
                logits = student.float() @ self.memory(other).feats.t()
                loss = soft_cross_entropy(
                    logits / self.temperature, labels[query], kept.float()
                )
            terms[f'loss_propagation_{direction}'] = loss
            terms[f'labelled_{direction}'] = labelled.float().mean()
            terms[f'gate_rate_{direction}'] = kept.float().mean()
            entropy = torch.special.entr(labels[query]).sum(dim=1)
            spread = (entropy * kept).sum() / kept.sum().clamp(min=1)
            terms[f'label_entropy_{direction}'] = spread
        return terms

    @torch.no_grad()
    def _push(self, feats: CrossDomainFeats, modality: str) -> Tensor:
        """Remember the batch of all ranks; return its slots."""
        memory = self.memory(modality)
        before = memory.slot_keys.clone()
        slots = memory.push(feats.target[modality], feats.keys[modality])
        # What the sample chose that has lost its slot is not what the new one chose.
        self.get_buffer(f'{modality}_choices')[memory.slot_keys != before] = -1
        return slots

    @torch.no_grad()
    def _build_graph(self) -> None:
        memories = [self.memory(modality) for modality in MODALITIES]
        images, captions = close_modality_gap(*(memory.feats for memory in memories))
        edges, weights = affinity_graph(images, captions, self.k, self.exponent)
        count = len(weights)
        self.edges[:, :count] = edges
        self.weights[:count] = weights
        self.num_edges.fill_(count)
        for place, (modality, memory) in enumerate(
            zip(MODALITIES, memories, strict=True)
        ):
            self.num_nodes[place] = len(memory)
            self.get_buffer(f'{modality}_nodes')[: len(memory)] = memory.keys

    @torch.no_grad()
    def _labels(
        self, slots: dict[str, Tensor], keys: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the labels of both queries over the other memory, shape (N, M).

        Rows sum to 1, or to 0 where nothing is known of the query.
        """
        images, captions = self.num_nodes.tolist()
        count = int(self.num_edges)
        graph = AffinityGraph(self.edges[:, :count], self.weights[:count])
        begin = {'images': 0, 'captions': images}
        nodes, known = [], []
        for modality in MODALITIES:
            # A sample that has left the memory has the slot −1, which is no node.
            slot = slots[modality].clamp(min=0)
            held = self.get_buffer(f'{modality}_nodes')[slot] == keys[modality]
            known.append(held & (slots[modality] >= 0))
            nodes.append(slot + begin[modality])
        node, column = torch.cat(nodes), torch.cat(known).nonzero().squeeze(1)
        seeds = self.weights.new_zeros(images + captions, len(node))
        seeds[node[column], column] = 1
        reached = propagate_labels(graph, seeds, self.alpha, self.iterations)
        of_images, of_captions = reached.split([len(each) for each in nodes], 1)
        return {
            'images': self._over_memory('captions', of_images[images:]),
            'captions': self._over_memory('images', of_captions[:images]),
        }

    def _over_memory(self, modality: str, reached: Tensor) -> Tensor:
        """Lay what was found at the nodes out over the memory as it is now."""
        memory = self.memory(modality)
        labels = reached.new_zeros(reached.shape[1], len(memory))
        there = (
            self.get_buffer(f'{modality}_nodes')[: len(reached)]
            == (memory.keys[: len(reached)])
        )
        labels[:, : len(reached)] = (reached * there[:, None]).t()
        return keep_best(labels, self.top)

    @torch.no_grad()
    def _choose(self, query: str, other: str, slots: Tensor, labels: Tensor) -> None:
        """Write down the keys of what each query has as labels."""
        best, columns = labels.topk(min(self.top, labels.shape[1]), dim=1)
        chosen = self.memory(other).keys[columns].masked_fill(best == 0, -1)
        stayed = slots >= 0
        self.get_buffer(f'{query}_choices')[slots[stayed], : chosen.shape[1]] = chosen[
            stayed
        ]


def keep_best(labels: Tensor, k: int) -> Tensor:
    """Keep the k largest labels of each row, and scale them to the sum 1.

    Args:
        labels: Not negative, shape (B, M).
        k: All are kept where M is not larger.

    Returns:
        Shape (B, M), with at most k entries other than 0 in a row. A row of zeros stays
        one.

    Source: ours.
    """
    best, columns = labels.topk(min(k, labels.shape[1]), dim=1)
    return torch.zeros_like(labels).scatter_(1, columns, F.normalize(best, p=1, dim=1))
