"""GCKD with a graph neck that has weights, which the source trains."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.dist import get_rank, get_world_size
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.graph import Memories, MemoryGraph
from gckd_mm.models.gckd.memory import nearest_neighbours
from gckd_mm.models.gckd.model import GCKD, AdaptationBatch
from gckd_mm.models.gckd.relations import MODALITIES, RELATIONS
from gckd_mm.models.heads.contrastive_head import head_losses
from gckd_mm.models.necks.graph_propagation_neck import GraphPropagationNeck
from gckd_mm.models.teacher import TeacherTowers
from gckd_mm.registry import MODELS


@MODELS.register_module()
class GCKDWithLearnedGraph(GCKD):
    """:class:`GCKD`, its graph's neck being a learned one such as ``SAGEConv``.

    The student's source batch is propagated over the relations of the graph, and the
    source's heads judge the result; the teacher's copy of the neck propagates the
    target. In our measurements learned layers lost to the average without parameters:
    see docs/method.md.

    Args:
        **gckd: See :class:`GCKD`; ``graph`` has a neck with weights, and
            ``loss_weights`` may name ``graph``, too.

    Source: trained layers are the paper's (GMP); their training on the source is ours.
    """

    weighted: tuple[str, ...] = (*GCKD.weighted, 'graph')
    trains_graph = True

    def losses(self, batch: AdaptationBatch) -> dict[str, Tensor]:
        """Return every loss of one step by its name, weighted, and diagnostics."""
        of_rank = {
            modality: batch.slots[f'source_{modality}'].chunk(get_world_size())
            for modality in MODALITIES
        }
        slots = {modality: rows[get_rank()] for modality, rows in of_rank.items()}
        feats = {modality: batch.source[modality] for modality in MODALITIES}
        propagated = propagate_source(self.graph, feats, slots, self.memories)
        weight = self.loss_weights['graph'].at(batch.step)
        found = head_losses(self.heads, propagated, batch.pids, 'loss_graph')
        weighted = {name: weight * loss for name, loss in found.items()}
        return super().losses(batch) | weighted

    @property
    def propagation_neck(self) -> GraphPropagationNeck | None:
        """The teacher's copy of the neck."""
        return self.teacher.module.graph_neck

    @property
    def needs_source_memory(self) -> bool:
        """The batch's neighbours are there."""
        return True

    def _towers(self) -> TeacherTowers:
        return TeacherTowers(self, self.graph.neck)


def propagate_source(
    graph: MemoryGraph,
    feats: Mapping[str, Tensor],
    slots: Mapping[str, Tensor],
    memories: Memories,
) -> dict[str, Tensor]:
    """Propagate the student's source batch over the relations of a graph.

    What the memories hold of the same pair is left out, since it would give the answer
    away; other pairs of the same person are neighbours like any.

    Args:
        graph: With a neck.
        feats: Modality -> the student's embeddings, shape (N, D).
        slots: Modality -> rows of the source memories that hold the same samples.
        memories: ``<domain>_<modality>`` -> memory.

    Returns:
        Modality -> shape (N, D).

    Raises:
        InputError: If the graph has no neck.
    """
    if graph.neck is None:
        raise InputError('propagate_source: the graph has no neck')
    nodes = {name: memory.feats for name, memory in memories.items()}
    in_edges = {}
    for modality, rows in feats.items():
        nodes[f'batch_{modality}'] = rows
        for name, k in graph.k.items():
            relation = RELATIONS[name]
            sender = relation.sender('source', modality)
            # Both source memories are written together: a pair has the same slot.
            own = slots[modality] if relation.same_domain else None
            in_edges[sender, name, f'batch_{modality}'] = nearest_neighbours(
                rows.detach().float(), nodes[sender], k, exclude=own
            )
    propagated = graph.neck.propagate(nodes, in_edges)
    return {modality: propagated[f'batch_{modality}'] for modality in feats}
