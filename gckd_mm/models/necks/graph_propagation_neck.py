"""Message passing between embeddings over a graph of their neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from gckd_mm.models.gckd.memory import (
    Neighbours,
    at_least_float32,
    nearest_neighbours,
)
from gckd_mm.models.necks.features import last_of, with_last
from gckd_mm.models.necks.gated_conv import CONVS, GatedConv
from gckd_mm.models.necks.graph_checks import (
    EdgeType,
    check_graph,
    check_names,
    check_nodes,
    check_settings,
)
from gckd_mm.registry import MODELS

#: numbers that are gathered at once: 64 MB in float32
_CHUNK = 1 << 24


def neighbour_weights(neighbours: Neighbours, temperature: float) -> Tensor:
    """Return the softmax of similarity / temperature; 0 where there is no neighbour.

    Shape (N, K), float32, or float64 if the similarities are.
    """
    with torch.autocast(neighbours.similarity.device.type, enabled=False):
        there = neighbours.index >= 0
        logits = at_least_float32(neighbours.similarity) / temperature
        # Finite, since a row of -inf has no softmax and no gradient.
        logits = logits.masked_fill(~there, torch.finfo(logits.dtype).min)
        return F.softmax(logits, dim=1) * there


def neighbour_average(
    feats: Tensor, neighbours: Neighbours, temperature: float
) -> Tensor:
    """Average the neighbours of N rows by :func:`neighbour_weights`: shape (N, D).

    Differentiable in ``feats``; O(N·K·D) time and memory; in float32 at least. A row
    without neighbours gets 0.

    Args:
        feats: The senders, shape (M, D).
        neighbours: Of N receivers; their indices are rows of ``feats``.
        temperature: Divides the similarities.
    """
    feats = at_least_float32(feats)
    if not len(feats):
        return feats.new_zeros(len(neighbours.index), feats.shape[1])
    with torch.autocast(feats.device.type, enabled=False):
        weights = neighbour_weights(neighbours, temperature).to(feats.dtype)
        index = neighbours.index.clamp(min=0)
        rows = max(1, _CHUNK // max(1, index.shape[1] * feats.shape[1]))
        parts = zip(weights.split(rows), index.split(rows), strict=True)
        return torch.cat(
            [
                torch.einsum('nk,nkd->nd', weight, F.embedding(sender, feats))
                for weight, sender in parts
            ]
        )


@MODELS.register_module()
class GraphPropagationNeck(BaseModule):
    """Pass messages between embeddings in a graph of one relation or of several.

    In each layer a row x becomes

    - with learned layers, x + the mean over the edge types that reach it of gate ·
      conv(neighbours, x). The gate, one number a layer and relation, starts at 0, so
      that an untrained neck changes nothing;
    - with ``'parameter_free'``, x + α · (average of its neighbours − x), weighted by
      one softmax of the similarities over all of them, whatever their relation.

    A row that no edge reaches is left alone. Computed in float32, under autocast too;
    what comes out has the dtype of what went in. No gradient flows through the choice
    of neighbours and their similarities. Weights belong to layer and relation, not to
    types of nodes: what the source domain trains is what the target uses. (Under
    ``DistributedDataParallel`` give every relation, with no neighbours (-1) at least.)

    Args:
        in_channels: Size D of the embeddings, in and out.
        layer: ``'SAGEConv'``, ``'GCNConv'`` or ``'GATv2Conv'``, which need
            torch-geometric, or ``'parameter_free'``. Defaults to ``'SAGEConv'``.
        num_layers: Number of layers. Defaults to 2.
        k: Neighbours of a row in the graph that :meth:`forward` builds. Defaults to 6.
        relations: Names of the relations that have weights; :meth:`forward` uses
            ``'near'``. Defaults to ``('near',)``.
        temperature: Divides the similarities before their softmax, in
            ``'parameter_free'`` and ``'GCNConv'``. Defaults to 0.1.
        alpha: α, the fraction of a row that comes from its neighbours, from 0 to 1, in
            ``'parameter_free'``. Defaults to 0.5.
        normalize: Whether to L2-normalise all rows after each layer. Defaults to True.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Source: message passing over a heterogeneous graph is of Luo et al., *GCKD*, AAAI
    2025; its form is ours. The gate is of Bachlechner et al., *ReZero*, UAI 2021.
    """

    def __init__(
        self,
        in_channels: int,
        layer: str = 'SAGEConv',
        num_layers: int = 2,
        k: int = 6,
        relations: Sequence[str] = ('near',),
        temperature: float = 0.1,
        alpha: float = 0.5,
        normalize: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_settings(layer, (in_channels, num_layers, k), temperature, alpha)
        check_names(relations)
        self.in_channels = in_channels
        self.layer = layer
        self.num_layers = num_layers
        self.k = k
        self.relations = tuple(relations)
        self.temperature = temperature
        self.alpha = alpha
        self.normalize = normalize
        self.layers = nn.ModuleList()
        for _ in range(num_layers if layer in CONVS else 0):
            convs = {name: GatedConv(layer, in_channels) for name in self.relations}
            self.layers.append(nn.ModuleDict(convs))

    def forward(self, x: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        """Propagate over the nearest neighbours, by cosine, within the batch.

        Args:
            x: Shape (N, D), or a tuple that ends in it; the result has the same form.

        Raises:
            InputError: For another shape, or if no relation is called ``'near'``.
        """
        rows = last_of(x)
        check_nodes('x', rows, self.in_channels)
        unit = F.normalize(rows.detach().float(), dim=1)
        itself = torch.arange(len(rows), device=rows.device)
        neighbours = nearest_neighbours(unit, unit, self.k, exclude=itself)
        propagated = self.propagate({'x': rows}, {('x', 'near', 'x'): neighbours})
        return with_last(x, propagated['x'])

    def propagate(
        self, nodes: Mapping[str, Tensor], edges: Mapping[EdgeType, Neighbours]
    ) -> dict[str, Tensor]:
        """Propagate over a heterogeneous graph; shapes and dtypes stay.

        Args:
            nodes: Type of nodes -> embeddings, shape (N, D); N may be 0.
            edges: (type of the senders, relation, type of the receivers) -> the rows of
                the senders that are neighbours of each row of the receivers.

        Raises:
            InputError: If a relation, a type of nodes or a size does not fit.
        """
        check_graph(nodes, edges, self.relations, self.in_channels)
        return self.pass_messages(nodes, edges)

    def pass_messages(
        self, nodes: Mapping[str, Tensor], edges: Mapping[EdgeType, Neighbours]
    ) -> dict[str, Tensor]:
        """Do what :meth:`propagate` does, on a graph that is known to be sound."""
        feats = {name: at_least_float32(node) for name, node in nodes.items()}
        for number in range(self.num_layers):
            feats = {name: self._updated(number, name, feats, edges) for name in feats}
        return {name: feats[name].to(node.dtype) for name, node in nodes.items()}

    def _updated(
        self,
        number: int,
        name: str,
        feats: dict[str, Tensor],
        edges: Mapping[EdgeType, Neighbours],
    ) -> Tensor:
        """Return the nodes of one type after layer ``number``."""
        own = result = feats[name]
        in_edges = {edge: near for edge, near in edges.items() if edge[2] == name}
        with torch.autocast(own.device.type, enabled=False):
            if in_edges:
                logits = [self._edge_logits(near) for near in in_edges.values()]
                weights = torch.stack(logits).softmax(dim=0)
                weights = weights.nan_to_num(0.0).to(own.dtype)
                for weight, (edge, near) in zip(weights, in_edges.items(), strict=True):
                    sender, relation, _ = edge
                    message = self._message(number, relation, feats[sender], own, near)
                    message = message.masked_fill((weight == 0)[:, None], 0)
                    result = result + weight[:, None] * message
            return F.normalize(result, dim=1) if self.normalize else result

    def _edge_logits(self, neighbours: Neighbours) -> Tensor:
        """Return the logits, shape (N,), by which a row weighs one of its edge types.

        -inf where there is no neighbour. Learned relations count alike: their gates
        weigh them. Without parameters all neighbours of a row share one softmax.
        """
        there = neighbours.index >= 0
        if self.layer == 'parameter_free':
            similarity = neighbours.similarity.masked_fill(~there, -inf)
            return (similarity / self.temperature).logsumexp(dim=1)
        receives = there.any(dim=1)
        return torch.zeros_like(receives, dtype=torch.float32).masked_fill(
            ~receives, -inf
        )

    def _message(
        self,
        number: int,
        relation: str,
        senders: Tensor,
        receivers: Tensor,
        neighbours: Neighbours,
    ) -> Tensor:
        if self.layer == 'parameter_free':
            average = neighbour_average(senders, neighbours, self.temperature)
            return self.alpha * (average - receivers)
        weights = neighbour_weights(neighbours, self.temperature)
        conv = self.layers[number][relation]  # type: ignore[index] # a ModuleDict
        return conv(senders, receivers, neighbours.index, weights)
