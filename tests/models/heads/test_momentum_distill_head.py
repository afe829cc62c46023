"""The loss of soft labels over a memory against loops, in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.memory import Neighbours
from gckd_mm.models.heads import MomentumDistillHead, NeighbourConsistencyHead

PAGE = Path(__file__).parents[3] / 'docs' / 'distill_head.md'
TAU, TAU_NEAR = 0.3, 0.2
#: the own row of four queries among 6
OWN = torch.tensor([0, 4, 2, 2])
#: their neighbours; the third has one, the last has none
INDEX = torch.tensor([[3, 5], [0, 1], [1, -1], [-1, -1]])


class Example(NamedTuple):
    """The student's batch, the teacher's memory, labels and weights."""

    feats: Tensor
    memory: Tensor
    labels: Tensor
    weights: Tensor


def example(**changes: Any) -> Example:
    generator = torch.Generator().manual_seed(0)
    feats, memory = (
        F.normalize(torch.randn(rows, 5, generator=generator), dim=1) for rows in (4, 6)
    )
    labels = torch.randn(4, 6, generator=generator).mul(2).softmax(dim=1)
    # A row with a label of 0, and where the student agrees with the teacher.
    labels[1] = F.one_hot((feats @ memory.t())[1].argmax(), 6)
    given = dict(labels=labels, weights=torch.tensor([1.0, 0.25, 0.0, 0.5]))
    return Example(feats.requires_grad_(), memory, **{**given, **changes})


def naive_loss(given: Example, exclude: list[int] | None = None) -> float:
    losses = []
    logits = (given.feats.detach().double() @ given.memory.double().t() / TAU).tolist()
    for i, (row, labels) in enumerate(zip(logits, given.labels.tolist(), strict=True)):
        compared = [j for j in range(6) if exclude is None or j != exclude[i]]
        total = math.log(sum(math.exp(row[j]) for j in compared))
        losses.append(sum(labels[j] * (total - row[j]) for j in compared))
    weights = given.weights.tolist()
    weighted = sum(w * loss for w, loss in zip(weights, losses, strict=True))
    return weighted / sum(weights)


@pytest.mark.parametrize('exclude', [None, OWN])
def test_the_loss_against_a_loop(exclude: Tensor | None) -> None:
    given = example()
    if exclude is not None:  # as a rule, nothing is believed of an own row
        labels = given.labels.scatter(1, exclude[:, None], 0)
        given = given._replace(labels=labels)

    loss = MomentumDistillHead(TAU).loss(*given, exclude=exclude)

    own = None if exclude is None else exclude.tolist()
    assert loss.item() == pytest.approx(naive_loss(given, own), rel=1e-5)
    assert loss.shape == ()


def test_what_an_excluded_row_holds_never_counts() -> None:
    given = example(labels=example().labels.scatter(1, OWN[:, None], 0))
    changed = given.memory.clone()
    changed[OWN[0]] = given.feats[0].detach()  # as similar as can be
    head = MomentumDistillHead(TAU)
    first = Example(given.feats[:1], given.memory, given.labels[:1], given.weights[:1])

    losses = [
        head.loss(*first._replace(memory=rows), exclude=OWN[:1])
        for rows in (given.memory, changed)
    ]

    assert losses[0] == losses[1]
    assert head.loss(*first) != head.loss(*first._replace(memory=changed))


def test_the_gradient_reaches_the_weighted_rows_of_the_student_alone() -> None:
    given = example()
    tensors = [each.requires_grad_() for each in given]

    MomentumDistillHead(TAU).loss(*tensors).backward()

    assert (given.feats.grad.abs().sum(dim=1) > 0).tolist() == [True, True, False, True]
    assert given.labels.grad is given.weights.grad is None


def test_weights_of_0_give_a_loss_and_gradients_of_0() -> None:
    given = example(weights=torch.zeros(4))

    loss = MomentumDistillHead(TAU).loss(*given)
    loss.backward()

    assert loss == 0
    assert torch.equal(given.feats.grad, torch.zeros(4, 5))


def test_what_is_said_of_the_labels() -> None:
    given = example()

    found = MomentumDistillHead(TAU).describe(*given)

    entropies = [
        -sum(label * math.log(label) for label in row if label)
        for row in given.labels.tolist()
    ]
    student = (given.feats @ given.memory.t()).tolist()
    same = [
        row.index(max(row)) == label.index(max(label))
        for row, label in zip(student, given.labels.tolist(), strict=True)
    ]
    assert 0 < sum(same) < 4
    values = {name: value.item() for name, value in found.items()}
    assert values == pytest.approx(
        {
            'gate_rate': 1.75 / 4,
            'label_entropy': sum(entropies) / 4,
            'agreement': sum(same) / 4,
        }
    )
    assert not any(value.requires_grad for value in found.values())


def test_autocast_changes_nothing() -> None:
    given, head = example(), MomentumDistillHead(TAU)
    expected = head.loss(*given, exclude=OWN), head.describe(*given)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = head.loss(*given, exclude=OWN), head.describe(*given)

    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_it_has_no_state() -> None:
    for head in (MomentumDistillHead(), NeighbourConsistencyHead()):
        assert head.state_dict() == {}
        assert head.temperature == 0.06


def neighbours(memory: Tensor) -> Neighbours:
    similarity = (memory[OWN][:, None] * memory[INDEX.clamp_min(0)]).sum(dim=2)
    return Neighbours(INDEX, similarity.masked_fill(INDEX < 0, -math.inf))


def test_labels_of_neighbours_against_a_loop() -> None:
    near = neighbours(example().memory)
    head = NeighbourConsistencyHead(neighbour_temperature=TAU_NEAR)

    labels, weights = head.labels(near, 6)

    expected = torch.zeros(4, 6)
    for row, (index, similarity) in enumerate(zip(*near, strict=True)):
        found = [
            (j, math.exp(s / TAU_NEAR))
            for j, s in zip(index.tolist(), similarity.tolist(), strict=True)
            if j >= 0
        ]
        for j, weight in found:
            expected[row, j] = weight / sum(other for _, other in found)
    torch.testing.assert_close(labels, expected)
    assert weights.tolist() == [1, 1, 1, 0]
    assert head.k == 6


def test_a_row_without_neighbours_is_left_alone() -> None:
    given = example()
    head = NeighbourConsistencyHead(temperature=TAU)
    soft = head.labels(neighbours(given.memory), 6)

    loss = head.loss(given.feats, given.memory, *soft, exclude=OWN)
    loss.backward()

    labels = Example(given.feats, given.memory, *soft)
    assert loss.item() == pytest.approx(naive_loss(labels, OWN.tolist()), rel=1e-5)
    assert (given.feats.grad[:3].abs().sum(dim=1) > 0).all()
    assert torch.equal(given.feats.grad[3], torch.zeros(5))


def test_without_any_neighbour_the_loss_is_0() -> None:
    given = example()
    head = NeighbourConsistencyHead()
    none = Neighbours(torch.full((4, 2), -1), torch.full((4, 2), -math.inf))

    assert head.loss(given.feats, given.memory, *head.labels(none, 6)) == 0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(k=0), 'k must be at least 1 .* got 0 and 0.1'),
        (dict(neighbour_temperature=0), 'neighbour_temperature positive, got 6 and 0'),
        (
            dict(temperature=-1),
            'NeighbourConsistencyHead: temperature must be positive',
        ),
        (dict(temperature=math.nan), 'temperature must be positive, got nan'),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NeighbourConsistencyHead(**options)


def test_a_temperature_of_0_is_refused() -> None:
    with pytest.raises(InputError, match=r'MomentumDistillHead: temperature .* got 0'):
        MomentumDistillHead(temperature=0)


def test_the_documented_model_of_mmpretrain_trains() -> None:
    code, config = PAGE.read_text(encoding='utf-8').split('```python\n')[1:]
    exec(code.split('```')[0], {'__name__': __name__})
    cfg = Config.fromstring(config.split('```')[0], '.py')
    cfg.model.queue_len = 32
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MMPRETRAIN_MODELS.build(cfg.model).train()
    views = [torch.randn(8, 3, 32, 32) for _ in range(2)]
    before = model.queue.clone()

    def loss() -> Tensor:
        return model.loss([view.clone() for view in views], [])['loss']

    loss()
    assert (model.queue != before).any(dim=0).sum() == 8
    model._dequeue_and_enqueue = lambda keys: None  # the same labels in each step
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        losses.append(loss())
        losses[-1].backward()
        optimiser.step()

    assert losses[-1] < losses[0]
    assert all(weight.grad is not None for weight in model.backbone.parameters())
