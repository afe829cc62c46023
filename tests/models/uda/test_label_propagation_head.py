"""Self-training on propagated labels against loops, resumed, and on two ranks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gckd_mm.models.uda.label_propagation_head as module
from gckd_mm.errors import InputError
from gckd_mm.models.functional.label_propagation import (
    affinity_graph,
    close_modality_gap,
)
from gckd_mm.models.uda.adaptation_head import CrossDomainFeats
from gckd_mm.models.uda.label_propagation_head import LabelPropagationHead
from gckd_mm.registry import MODELS
from tests.training import in_process, on_ranks

DIM, PEOPLE = 8, 6
#: samples of a person
COUNTS = {'images': 3, 'captions': 4}


def target_set(modality: str, noise: float = 0.3) -> Tensor:
    """All embeddings of a modality, those of a person together, far from the other."""
    generator = torch.Generator().manual_seed(len(modality))
    people = torch.randn(PEOPLE, DIM, generator=torch.Generator().manual_seed(0))
    feats = people.repeat_interleave(COUNTS[modality], dim=0)
    feats = feats + noise * torch.randn(feats.shape, generator=generator)
    feats[:, 0 if modality == 'images' else 1] += 3
    return F.normalize(feats, dim=1)


def batch(
    images: list[int] | None = None, captions: list[int] | None = None
) -> CrossDomainFeats:
    """Some samples of the target; all of them where nothing is said."""
    keys = {
        'images': torch.arange(PEOPLE * 3) if images is None else torch.tensor(images),
        'captions': (
            torch.arange(PEOPLE * 4) if captions is None else torch.tensor(captions)
        ),
    }
    target = {m: target_set(m)[rows].requires_grad_() for m, rows in keys.items()}
    source = {m: target_set(m)[:2].requires_grad_() for m in keys}
    return CrossDomainFeats(source, torch.tensor([0, 1]), target, keys)


def build(**options: Any) -> LabelPropagationHead:
    return LabelPropagationHead(
        **{
            'embedding_size': DIM,
            'memory_size': 30,
            'k': 3,
            'top': 3,
            'iterations': 60,
            **options,
        }
    )


def graph_weights(feats: CrossDomainFeats, k: int, exponent: float) -> np.ndarray:
    images, captions = (feats.target[m].detach() for m in ('images', 'captions'))
    graph = affinity_graph(*close_modality_gap(images, captions), k, exponent)
    weights = np.zeros((len(images) + len(captions),) * 2)
    weights[graph.edges[0], graph.edges[1]] = graph.weights
    return weights


def naive_terms(
    feats: CrossDomainFeats, head: LabelPropagationHead
) -> dict[str, float]:
    """Of a first batch that is the whole target."""
    weights = graph_weights(feats, head.k, head.exponent)
    walk = weights / weights.sum(axis=1, keepdims=True)
    visits = np.linalg.inv(np.eye(len(walk)) - head.alpha * walk)
    n = len(feats.target['images'])
    reached = {'captions': visits[:n, n:].T, 'images': visits[n:, :n].T}
    best = {
        m: [
            sorted(range(len(row)), key=lambda j, r=row: -r[j])[: head.top]
            for row in rows
        ]
        for m, rows in reached.items()
    }
    terms = {}
    for name, query, other in (
        ('text_to_image', 'captions', 'images'),
        ('image_to_text', 'images', 'captions'),
    ):
        losses = []
        for i, columns in enumerate(best[query]):
            if head.mutual and i not in best[other][columns[0]]:
                continue
            total = sum(reached[query][i][j] for j in columns)
            logits = [
                float(feats.target[query][i].detach() @ row) / head.temperature
                for row in feats.target[other].detach()
            ]
            log_sum = math.log(sum(math.exp(logit) for logit in logits))
            losses.append(
                sum(
                    reached[query][i][j] / total * (log_sum - logits[j])
                    for j in columns
                )
            )
        terms[f'loss_propagation_{name}'] = sum(losses) / len(losses)
        terms[f'gate_rate_{name}'] = len(losses) / len(best[query])
    return terms


@pytest.mark.parametrize('mutual', [True, False])
def test_the_losses_against_loops(mutual: bool) -> None:
    head, feats = build(mutual=mutual, top=2, temperature=0.2), batch()

    found = head.loss(feats, step=0)

    expected = naive_terms(feats, head)
    assert (min(expected[f'gate_rate_{d}'] for d in module.DIRECTIONS) < 1) == mutual
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-3), name


def labels_of(
    head: LabelPropagationHead,
    feats: CrossDomainFeats,
    step: int,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Query's modality -> labels that the student learns, and weights of the rows."""
    seen = []

    def spy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        seen.append((labels, weights))
        return logits.sum() * 0

    monkeypatch.setattr(module, 'soft_cross_entropy', spy)
    head.terms(feats, step)
    return dict(zip(('captions', 'images'), seen, strict=True))


def test_labels_find_the_same_people_across_the_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = labels_of(build(), batch(), 0, monkeypatch)

    person = {m: torch.arange(PEOPLE).repeat_interleave(n) for m, n in COUNTS.items()}
    for query, other in module.DIRECTIONS.values():
        found, kept = labels[query]
        same = person[query][:, None] == person[other][None]
        assert (found * same).sum(dim=1)[kept > 0].mean() > 0.9
        torch.testing.assert_close(found.sum(dim=1), torch.ones(len(found)))
        assert ((found > 0).sum(dim=1) <= 3).all()


def test_a_sample_without_a_node_has_no_label_until_the_next_graph() -> None:
    head = build(refresh=4, mutual=False)
    head.loss(batch(captions=list(range(12))), step=4)

    before = head.loss(batch(captions=[0, 1, 20, 21]), step=5)
    after = head.loss(batch(captions=[20, 21]), step=8)

    assert before['labelled_text_to_image'] == 0.5
    assert before['labelled_image_to_text'] == 1
    assert after['labelled_text_to_image'] == 1


def test_who_has_lost_its_slot_is_nobody_s_label(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = build(memory_size=12, refresh=10, mutual=False)
    head.loss(batch(list(range(12)), list(range(12))), step=0)

    # Images 12 to 17 take the slots of 0 to 5.
    found = labels_of(head, batch(list(range(12, 18)), [0, 11]), 1, monkeypatch)

    now = head.memories['images'].keys
    assert set(now.tolist()) == set(range(6, 18))
    labels, kept = found['captions']
    assert not labels[:, now >= 12].any()
    assert kept.all()
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(2))
    # And those that came have no node, though their slots had one.
    assert not found['images'][1].any()


def test_only_who_is_chosen_by_its_choice_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = build(refresh=100)
    head.loss(batch(), step=0)
    _, kept = labels_of(head, batch(), 1, monkeypatch)['captions']
    assert kept.any()

    # The images have chosen nobody, and none of them is in the batch.
    head.images_choices.fill_(-1)
    lonely = batch(images=[0])
    found = labels_of(head, lonely, 2, monkeypatch)['captions']

    labels, kept = found
    assert not kept[labels.argmax(dim=1) != 0].any()


def test_gradients_reach_the_students_of_the_target_alone() -> None:
    head, feats = build(), batch()

    losses = head.loss(feats, step=0)
    sum(v for name, v in losses.items() if name.startswith('loss')).backward()

    for modality in COUNTS:
        assert feats.target[modality].grad.abs().sum() > 0
        assert feats.source[modality].grad is None
    diagnostics = [v for name, v in losses.items() if not name.startswith('loss')]
    assert len(diagnostics) == 6
    assert not any(value.requires_grad for value in diagnostics)


@pytest.mark.parametrize('rows', [[0], [0, 0]])
def test_the_first_samples_have_a_finite_loss(rows: list[int]) -> None:
    head, feats = build(), batch(rows, rows)

    losses = head.loss(feats, step=0)
    total = sum(v for name, v in losses.items() if name.startswith('loss'))
    total.backward()

    assert all(value.isfinite() for value in losses.values())
    assert all(feats.target[m].grad.isfinite().all() for m in COUNTS)


def test_before_the_first_graph_the_loss_is_zero_with_a_gradient() -> None:
    head, feats = build(refresh=10), batch()

    losses = head.loss(feats, step=3)
    total = sum(v for name, v in losses.items() if name.startswith('loss'))
    total.backward()

    assert total == 0
    assert all(not feats.target[m].grad.any() for m in COUNTS)


STEPS = [batch([0, 4, 9, 17], [1, 5, 12, 23]), batch([4, 9], [12, 5]), batch([9], [5])]


def run(head: LabelPropagationHead, steps: range) -> list[dict[str, Tensor]]:
    return [
        head.loss(batch() if step == 0 else STEPS[step % len(STEPS)], step)
        for step in steps
    ]


def test_a_run_resumed_between_two_graphs_goes_on_exactly() -> None:
    head = build(refresh=4)
    run(head, range(6))
    resumed = build(refresh=4)
    run(resumed, range(1))  # a graph that must not survive
    resumed.load_state_dict(head.state_dict())

    expected, found = run(head, range(6, 11)), run(resumed, range(6, 11))

    assert any(losses['loss_propagation_text_to_image'] > 0 for losses in expected[:2])
    assert found == expected
    for name, value in head.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_reset_forgets_everything() -> None:
    head = build()
    run(head, range(3))

    head.reset()

    for name, value in build().state_dict().items():
        assert torch.equal(head.state_dict()[name], value), name


def test_autocast_changes_nothing() -> None:
    expected = build().loss(batch(), 0)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = build().loss(batch(), 0)

    assert found == expected


def _steps(out: Path, world_size: int) -> None:
    """Write the losses, gradients and state of three steps of one global batch."""
    if world_size > 1:
        torch.distributed.init_process_group('gloo')
    rank = torch.distributed.get_rank() if world_size > 1 else 0
    head, results = build(refresh=2), []
    for step in range(3):
        whole = batch(list(range(step, 18 - 2 + step)), list(range(20)))
        mine = {m: whole.target[m].detach().chunk(world_size)[rank] for m in COUNTS}
        mine = {m: feats.requires_grad_() for m, feats in mine.items()}
        keys = {m: whole.keys[m].chunk(world_size)[rank] for m in COUNTS}
        losses = head.loss(whole._replace(target=mine, keys=keys), step)
        sum(v for name, v in losses.items() if name.startswith('loss')).backward()
        gradients = {m: feats.grad / world_size for m, feats in mine.items()}
        results.append(({k: v.detach() for k, v in losses.items()}, gradients))
    torch.save((results, head.state_dict()), out.with_suffix(f'.{rank}'))


def test_two_ranks_do_what_one_process_does(tmp_path: Path) -> None:
    one, two = tmp_path / 'one', tmp_path / 'two'
    assert in_process(_steps, one, 1) == 0
    on_ranks(_steps, 2, two, 2)

    expected, state = torch.load(one.with_suffix('.0'))
    ranks = [torch.load(two.with_suffix(f'.{rank}')) for rank in (0, 1)]
    for step, (losses, gradients) in enumerate(expected):
        for results, _ in ranks:
            torch.testing.assert_close(results[step][0], losses)
        for modality, gradient in gradients.items():
            assert gradient.any()
            parts = [results[step][1][modality] for results, _ in ranks]
            torch.testing.assert_close(torch.cat(parts), gradient)
    for _, found in ranks:
        torch.testing.assert_close(found, state)


def test_a_target_without_captions_is_refused() -> None:
    feats = batch()
    images = {'images': feats.target['images']}

    with pytest.raises(InputError, match=r'LabelPropagationHead .* has no captions'):
        build().loss(feats._replace(target=images), 0)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(k=0), 'at least 1, got 0, 60, 3 and 20'),
        (dict(iterations=0), 'at least 1, got 3, 0, 3 and 20'),
        (dict(top=0), 'at least 1, got 3, 60, 0 and 20'),
        (dict(refresh=0), 'at least 1, got 3, 60, 3 and 0'),
        (dict(alpha=1.0), 'alpha must lie between 0 and 1, got 1.0'),
        (dict(alpha=0.0), 'alpha must lie between 0 and 1, got 0.0'),
        (dict(exponent=0), 'exponent and temperature must be positive, got 0 and 0.06'),
        (dict(temperature=-1), 'must be positive, got 3.0 and -1'),
        (dict(loss_weight='much'), 'loss_weight must be a number or a ramp'),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**options)


def test_a_config_finds_it() -> None:
    config = dict(type='LabelPropagationHead', embedding_size=2, memory_size=4)

    assert isinstance(MODELS.build(config), LabelPropagationHead)
