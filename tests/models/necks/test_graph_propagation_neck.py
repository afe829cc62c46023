"""Message passing against dense matrices and loops, and by its properties."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine import Config
from mmengine.registry import DefaultScope
from mmengine.utils import import_modules_from_strings
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.memory import Neighbours
from gckd_mm.models.necks.graph_checks import LAYERS
from gckd_mm.models.necks.graph_propagation_neck import (
    EdgeType,
    GraphPropagationNeck,
)
from gckd_mm.registry import MODELS

PAGE = Path(__file__).parents[3] / 'docs' / 'graph_neck.md'
LEARNED = LAYERS[:3]
DIM = 6
NODES = {'source': 5, 'target': 7, 'caption': 4}
EDGES: dict[EdgeType, int] = {
    ('source', 'near', 'source'): 2,
    ('source', 'near', 'target'): 3,
    ('target', 'near', 'target'): 2,
    ('target', 'near', 'source'): 1,
    ('caption', 'pair', 'target'): 2,
    ('target', 'pair', 'caption'): 3,
}
RELATIONS = ('near', 'pair')
#: a row of each type that nothing reaches
ISOLATED = {'source': 1, 'target': 6, 'caption': 0}

Nodes = dict[str, Tensor]
Edges = dict[EdgeType, Neighbours]


def make_neighbours(receivers: int, senders: int, k: int) -> Neighbours:
    """Distinct random neighbours, some of the last of them missing."""
    index = torch.stack([torch.randperm(senders)[:k] for _ in range(receivers)])
    similarity = torch.rand(receivers, k).sort(descending=True).values
    missing = torch.rand(receivers, 1) * (k + 1) < torch.arange(k)
    return Neighbours(
        index.masked_fill(missing, -1), similarity.masked_fill(missing, -math.inf)
    )


def make_graph(dtype: torch.dtype = torch.float32) -> tuple[Nodes, Edges]:
    # Not of unit length, so that a normalisation too many would show.
    nodes = {
        name: 2 * F.normalize(torch.randn(count, DIM, dtype=dtype), dim=1)
        for name, count in NODES.items()
    }
    edges = {}
    for edge, k in EDGES.items():
        neighbours = make_neighbours(NODES[edge[2]], NODES[edge[0]], k)
        neighbours.index[ISOLATED[edge[2]]] = -1
        neighbours.similarity[ISOLATED[edge[2]]] = -math.inf
        edges[edge] = neighbours
    return nodes, edges


def opened(layer: str, **kwargs: object) -> GraphPropagationNeck:
    """A neck all of whose parameters, gates and biases too, are away from zero."""
    neck = GraphPropagationNeck(DIM, layer, **{'relations': RELATIONS, **kwargs})
    with torch.no_grad():
        for parameter in neck.parameters():
            parameter.uniform_(0.1, 0.5).mul_(torch.randn_like(parameter).sign())
    return neck


def adjacency(neighbours: Neighbours, senders: int, temperature: float) -> Tensor:
    """The softmax weights as a dense matrix of receivers × senders, by loops."""
    matrix = torch.zeros(len(neighbours.index), senders, dtype=torch.float64)
    for row, (index, similarity) in enumerate(zip(*neighbours, strict=True)):
        there = [
            (i, math.exp(s / temperature))
            for i, s in zip(index.tolist(), similarity.tolist(), strict=True)
            if i >= 0
        ]
        for i, value in there:
            matrix[row, i] = value / sum(other for _, other in there)
    return matrix


def parameter_free(
    neck: GraphPropagationNeck, _: object, x: Tensor, y: Tensor, a: Tensor
) -> Tensor:
    return neck.alpha * (a @ y - x)


def sage(_: object, gated: torch.nn.Module, x: Tensor, y: Tensor, a: Tensor) -> Tensor:
    conv = gated.conv
    uniform = (a > 0).double()
    mean = uniform @ y / uniform.sum(dim=1, keepdim=True).clamp(min=1)
    message = mean @ conv.lin_l.weight.t() + conv.lin_l.bias + x @ conv.lin_r.weight.t()
    return gated.gate * message


def gcn(_: object, gated: torch.nn.Module, x: Tensor, y: Tensor, a: Tensor) -> Tensor:
    heard, said = a.sum(dim=1), a.sum(dim=0)
    scaled = torch.zeros_like(a)
    for row, column in a.nonzero().tolist():
        scaled[row, column] = a[row, column] / math.sqrt(heard[row] * said[column])
    return gated.gate * (scaled @ y @ gated.conv.lin.weight.t() + gated.conv.bias)


def gat(_: object, gated: torch.nn.Module, x: Tensor, y: Tensor, a: Tensor) -> Tensor:
    conv = gated.conv
    left = y @ conv.lin_l.weight.t() + conv.lin_l.bias
    right = x @ conv.lin_r.weight.t() + conv.lin_r.bias
    rows = []
    for row, weights in enumerate(a):
        message = conv.bias.clone()
        there = weights.nonzero().flatten().tolist()
        scores = [
            math.exp(
                sum(
                    attention * (value if value > 0 else 0.2 * value)
                    for attention, value in zip(
                        conv.att.flatten().tolist(),
                        (left[column] + right[row]).tolist(),
                        strict=True,
                    )
                )
            )
            for column in there
        ]
        for column, score in zip(there, scores, strict=True):
            message = message + score / sum(scores) * left[column]
        rows.append(message)
    return gated.gate * torch.stack(rows)


NAIVE: dict[str, Callable[..., Tensor]] = {
    'SAGEConv': sage,
    'GCNConv': gcn,
    'GATv2Conv': gat,
    'parameter_free': parameter_free,
}


@torch.no_grad()
def naive(neck: GraphPropagationNeck, nodes: Nodes, edges: Edges) -> Nodes:
    """The whole neck by dense matrices, row by row."""
    neck = copy.deepcopy(neck).double()
    feats = {name: node.double() for name, node in nodes.items()}
    for number in range(neck.num_layers):
        after = {}
        for name, own in feats.items():
            messages: list[list[tuple[float, Tensor]]] = [[] for _ in own]
            for (sender, relation, receiver), neighbours in edges.items():
                if receiver != name:
                    continue
                a = adjacency(neighbours, len(feats[sender]), neck.temperature)
                gated = neck.layers[number][relation] if len(neck.layers) else None
                message = NAIVE[neck.layer](neck, gated, own, feats[sender], a)
                for row in range(len(own)):
                    if a[row].sum() > 0:
                        loudness = 1.0
                        if neck.layer == 'parameter_free':
                            loudness = sum(
                                math.exp(s / neck.temperature)
                                for i, s in zip(
                                    neighbours.index[row].tolist(),
                                    neighbours.similarity[row].tolist(),
                                    strict=True,
                                )
                                if i >= 0
                            )
                        messages[row].append((loudness, message[row]))
            rows = []
            for row, heard in zip(own, messages, strict=True):
                whole = sum(loudness for loudness, _ in heard)
                result = row + sum(part / whole * said for part, said in heard)
                rows.append(result / result.norm() if neck.normalize else result)
            after[name] = torch.stack(rows)
        feats = after
    return feats


def assert_same(ours: Nodes, theirs: Nodes, **tolerance: float) -> None:
    assert list(ours) == list(theirs)
    for name, feats in ours.items():
        torch.testing.assert_close(feats, theirs[name], **tolerance)


@pytest.mark.parametrize('normalize', [True, False])
@pytest.mark.parametrize('layer', LAYERS)
def test_a_layer_against_dense_matrices(layer: str, normalize: bool) -> None:
    neck = opened(layer, normalize=normalize, temperature=0.3, alpha=0.4)
    nodes, edges = make_graph()

    ours = neck.propagate(nodes, edges)

    expected = naive(neck, nodes, edges)
    assert_same(
        {name: feats.double() for name, feats in ours.items()},
        expected,
        rtol=1e-4,
        atol=1e-5,
    )
    assert not torch.allclose(
        F.normalize(ours['target'], dim=1), F.normalize(nodes['target'], dim=1), 0.1
    )


def test_one_parameter_free_layer_against_a_loop() -> None:
    neck = GraphPropagationNeck(DIM, 'parameter_free', num_layers=1, alpha=0.3)
    x = F.normalize(torch.randn(8, DIM), dim=1)
    neighbours = make_neighbours(8, 8, 3)

    ours = neck.propagate({'x': x}, {('x', 'near', 'x'): neighbours})['x']

    for row, own in enumerate(x):
        there = neighbours.index[row] >= 0
        weights = (neighbours.similarity[row][there] / 0.1).softmax(dim=0)
        average = weights @ x[neighbours.index[row][there]]
        moved = F.normalize(0.7 * own + 0.3 * average, dim=0)
        torch.testing.assert_close(ours[row], moved if there.any() else own)
    assert not list(neck.parameters())


@pytest.mark.parametrize('layer', LAYERS)
def test_the_order_of_the_nodes_is_nothing(layer: str) -> None:
    neck = opened(layer)
    nodes, edges = make_graph(torch.float64)
    neck.double()
    order = {name: torch.randperm(count) for name, count in NODES.items()}
    permuted = {}
    for (sender, relation, receiver), (index, similarity) in edges.items():
        place = torch.cat((order[sender].argsort(), torch.tensor([-1])))
        rows = order[receiver]
        permuted[sender, relation, receiver] = Neighbours(
            place[index][rows], similarity[rows]
        )

    moved = neck.propagate({n: nodes[n][order[n]] for n in nodes}, permuted)

    before = neck.propagate(nodes, edges)
    assert_same(moved, {name: before[name][order[name]] for name in nodes})


@pytest.mark.parametrize('layer', LAYERS)
def test_the_names_and_order_of_the_edge_types_are_nothing(layer: str) -> None:
    # So both domains have the same weights.
    neck = opened(layer)
    nodes, edges = make_graph()
    swap = {'source': 'target', 'target': 'source', 'caption': 'caption'}

    swapped = neck.propagate(
        {swap[name]: node for name, node in nodes.items()},
        {
            (swap[sender], relation, swap[receiver]): neighbours
            for (sender, relation, receiver), neighbours in reversed(edges.items())
        },
    )

    ours = neck.propagate(nodes, edges)
    assert_same({name: swapped[swap[name]] for name in nodes}, ours)


@pytest.mark.parametrize('normalize', [True, False])
@pytest.mark.parametrize('layer', LEARNED)
def test_an_untrained_neck_is_the_identity(layer: str, normalize: bool) -> None:
    neck = GraphPropagationNeck(
        DIM,
        layer,
        relations=RELATIONS,
        normalize=normalize,
        init_cfg=dict(type='Normal', layer='Linear', std=1.0, bias=1.0),
    )
    neck.init_weights()
    nodes, edges = make_graph()

    after = neck.propagate(nodes, edges)

    if normalize:
        assert_same(after, {n: F.normalize(x, dim=1) for n, x in nodes.items()})
    else:
        assert_same(after, nodes, rtol=0, atol=0)


@pytest.mark.parametrize('normalize', [True, False])
@pytest.mark.parametrize('layer', LAYERS)
def test_a_row_that_nothing_reaches_stays(layer: str, normalize: bool) -> None:
    nodes, edges = make_graph()

    after = opened(layer, normalize=normalize).propagate(nodes, edges)

    for name, row in ISOLATED.items():
        expected = nodes[name][row]
        if normalize:
            expected = expected / expected.norm()
        torch.testing.assert_close(
            after[name][row], expected, rtol=0, atol=1e-6 * normalize
        )
    assert not torch.allclose(after['source'][0], nodes['source'][0])


@pytest.mark.parametrize('layer', LAYERS)
def test_a_row_that_nothing_reaches_stays_beside_what_is_not_a_number(
    layer: str,
) -> None:
    nodes, edges = make_graph()
    for name in ('source', 'target'):
        nodes[name][0] = math.nan  # where a neighbour that is missing points to

    after = opened(layer, normalize=False).propagate(nodes, edges)

    for name, row in ISOLATED.items():
        assert torch.equal(after[name][row], nodes[name][row])


@pytest.mark.parametrize('layer', LAYERS)
def test_one_domain_may_be_empty(layer: str) -> None:
    neck = opened(layer)
    nodes, edges = make_graph()
    nodes['source'] = torch.empty(0, DIM)
    for sender, relation, receiver in list(edges):
        k = EDGES[sender, relation, receiver]
        if 'source' in (sender, receiver):
            shape = (len(nodes[receiver]), k)
            edges[sender, relation, receiver] = Neighbours(
                torch.full(shape, -1), torch.full(shape, -math.inf)
            )

    after = neck.propagate(nodes, edges)

    assert after['source'].shape == (0, DIM)
    without = {edge: n for edge, n in edges.items() if 'source' not in edge}
    expected = neck.propagate(
        {name: nodes[name] for name in ('target', 'caption')}, without
    )
    assert_same({name: after[name] for name in expected}, expected)


@pytest.mark.parametrize('layer', LAYERS)
@pytest.mark.parametrize('slots', [0, 3])
def test_a_graph_without_edges(layer: str, slots: int) -> None:
    neck = opened(layer, normalize=False)
    nodes, _ = make_graph()
    shape = (NODES['target'], slots)
    nobody = Neighbours(torch.full(shape, -1), torch.full(shape, -math.inf))

    assert_same(neck.propagate(nodes, {}), nodes, rtol=0, atol=0)
    after = neck.propagate(nodes, {('caption', 'pair', 'target'): nobody})
    assert_same(after, nodes, rtol=0, atol=0)


@pytest.mark.parametrize('layer', LAYERS)
def test_more_neighbours_than_nodes(layer: str) -> None:
    neck = opened(layer, k=3)
    many = copy.deepcopy(neck)
    many.k = 50
    x = torch.randn(4, DIM)

    torch.testing.assert_close(many(x), neck(x))


@pytest.mark.parametrize('layer', LEARNED)
def test_all_parameters_learn_once_the_gates_are_open(layer: str) -> None:
    neck = GraphPropagationNeck(DIM, layer, relations=RELATIONS)
    optimiser = torch.optim.SGD(neck.parameters(), lr=0.1)
    nodes, edges = make_graph()
    aim = {name: torch.randn_like(node) for name, node in nodes.items()}
    for _ in range(2):
        optimiser.zero_grad()
        after = neck.propagate(nodes, edges)
        sum((after[name] * aim[name]).sum() for name in nodes).backward()
        optimiser.step()

    for name, parameter in neck.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize('layer', LAYERS)
def test_gradients_against_finite_differences(layer: str) -> None:
    neck = opened(layer).double()
    nodes, edges = make_graph(torch.float64)

    def run(*feats: Tensor) -> tuple[Tensor, ...]:
        after = neck.propagate(dict(zip(nodes, feats, strict=True)), edges)
        return tuple(after.values())

    leaves = tuple(node.requires_grad_() for node in nodes.values())
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize('layer', LAYERS)
def test_forward_finds_the_nearest_of_the_batch(layer: str) -> None:
    neck = opened(layer, k=2)
    x = torch.randn(9, DIM)
    index, similarity = [], []
    for row, one in enumerate(x):
        found = sorted(
            (-F.cosine_similarity(one, other, dim=0).item(), other_row)
            for other_row, other in enumerate(x)
            if other_row != row
        )[:2]
        index.append([other_row for _, other_row in found])
        similarity.append([-negative for negative, _ in found])
    neighbours = Neighbours(torch.tensor(index), torch.tensor(similarity))

    expected = neck.propagate({'x': x}, {('x', 'near', 'x'): neighbours})['x']
    torch.testing.assert_close(neck(x), expected)


def test_a_tuple_gives_a_tuple_whose_last_entry_is_propagated() -> None:
    neck = opened('SAGEConv')
    early, last = torch.randn(3, 4, 8, 8), torch.randn(3, DIM)

    outputs = neck((early, last))

    assert isinstance(outputs, tuple)
    assert outputs[0] is early
    assert torch.equal(outputs[1], neck(last))


@pytest.mark.parametrize('layer', LAYERS)
@pytest.mark.parametrize('rows', [0, 1])
def test_a_batch_without_company(layer: str, rows: int) -> None:
    x = torch.randn(rows, DIM)

    assert torch.equal(opened(layer, normalize=False)(x), x)


@pytest.mark.parametrize('layer', LAYERS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(layer: str, dtype: torch.dtype) -> None:
    neck = opened(layer)
    x = torch.randn(9, DIM).to(dtype)
    outside = neck(x)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert (x.float() @ x.float().t()).dtype == torch.bfloat16
        inside = neck(x)

    assert inside.dtype == dtype
    assert torch.equal(inside, outside)


def test_a_similarity_that_counts_for_nothing_stays_finite() -> None:
    neck = opened('GCNConv', temperature=1e-3)
    x = torch.randn(4, DIM, requires_grad=True)
    index = torch.tensor([[1, 3], [0, 3], [0, 3], [-1, -1]])
    similarity = torch.tensor([[1.0, -1.0]] * 3 + [[-math.inf, -math.inf]])

    edges = {('x', 'near', 'x'): Neighbours(index, similarity)}
    after = neck.propagate({'x': x}, edges)['x']
    after.sum().backward()

    assert after.isfinite().all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize('layer', LAYERS)
def test_memory_is_linear_in_the_nodes(layer: str) -> None:
    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                sizes.append(result.numel())
            return result

    count, k = 20_000, 6
    x = torch.randn(count, DIM)
    neighbours = Neighbours(torch.randint(count, (count, k)), torch.rand(count, k))
    with Sizes():
        after = opened(layer).propagate({'x': x}, {('x', 'near', 'x'): neighbours})
        after['x'].sum()

    assert count * DIM < max(sizes) <= count * k * DIM


def test_a_copy_computes_the_same() -> None:
    # A teacher is a deep copy of its student.
    for layer in LAYERS:
        neck = opened(layer)
        x = torch.randn(9, DIM)

        assert torch.equal(copy.deepcopy(neck)(x), neck(x))


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'layer': 'GINConv'}, r"SAGEConv.*GCNConv.*GATv2Conv.*parameter_free.*'GIN"),
        ({'num_layers': 0}, 'num_layers .*at least 1.* 0 '),
        ({'k': 0}, 'k must be at least 1.* 0$'),
        ({'in_channels': 0}, 'in_channels.*at least 1, got 0'),
        ({'temperature': 0.0}, 'temperature must be positive, got 0'),
        ({'alpha': 1.5}, 'alpha must be from 0 to 1, got 1.5'),
        ({'relations': 'near'}, "list of distinct names.*'near'"),
        ({'relations': ()}, 'list of distinct names'),
        ({'relations': ('near', 'near')}, 'list of distinct names'),
        ({'relations': ('image.near',)}, 'without dots'),
    ],
)
def test_wrong_arguments(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GraphPropagationNeck(**{'in_channels': DIM, **wrong})


def test_wrong_graphs() -> None:
    neck = GraphPropagationNeck(DIM, relations=('near', 'pair'))
    nodes, edges = make_graph()
    near = edges['source', 'near', 'source']

    with pytest.raises(InputError, match=r"\['far'\].*\['near', 'pair'\]"):
        neck.propagate(nodes, {('source', 'far', 'source'): near})
    with pytest.raises(InputError, match=r"\['query'\].*'source', 'target', 'caption'"):
        neck.propagate(nodes, {('query', 'near', 'source'): near})
    with pytest.raises(InputError, match=r'neighbours of 5 rows .* 7 receivers'):
        neck.propagate(nodes, {('source', 'near', 'target'): near})
    with pytest.raises(InputError, match=rf'target: .*\(N, {DIM}\).*\(3, 9\)'):
        neck.propagate({'target': torch.randn(3, 9)}, {})
    with pytest.raises(InputError, match=r'\(2, 6, 4, 4\).* pool'):
        neck(torch.randn(2, DIM, 4, 4))
    with pytest.raises(InputError, match=r"\['near'\].*\['pair'\]"):
        GraphPropagationNeck(DIM, relations=('pair',))(torch.randn(3, DIM))


def code_blocks() -> list[str]:
    return re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL)


def test_the_page_in_an_mmpretrain_classifier() -> None:
    from mmpretrain.structures import DataSample

    config = Config.fromstring(code_blocks()[0], '.py')
    import_modules_from_strings(**config.custom_imports)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = MODELS.build(config.model)
    model.init_weights()
    images = torch.randn(4, 3, 64, 64)
    samples = [DataSample().set_gt_label(label) for label in (0, 2, 9, 2)]

    losses = model(images, samples, mode='loss')
    losses['loss'].backward()

    pooling, neck = model.neck
    assert type(neck) is GraphPropagationNeck
    assert losses['loss'].isfinite()
    gates = [p for name, p in neck.named_parameters() if name.endswith('gate')]
    assert len(gates) == 2
    assert all(gate.grad.abs().sum() > 0 for gate in gates)
    model.eval()
    with torch.no_grad():
        pooled = pooling(model.backbone(images))
        assert torch.equal(model(images), model.head(pooled))


def test_the_page_on_a_graph_of_several_kinds() -> None:
    nodes, edges = make_graph()
    namespace = {
        'neck': opened('SAGEConv'),
        'source': nodes['source'],
        'target': nodes['target'],
        'near_source': edges['source', 'near', 'source'],
        'source_near_target': edges['source', 'near', 'target'],
    }

    after = eval(code_blocks()[1], namespace)

    assert {name: len(feats) for name, feats in after.items()} == {
        'source_image': NODES['source'],
        'target_image': NODES['target'],
    }
