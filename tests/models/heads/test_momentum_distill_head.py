"""The distillation against loops over queries and candidates, in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gckd_mm.models.functional.walk import Walk, lazy_walk
from gckd_mm.models.memory_neighbours import MemoryNeighbours
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.memory import EmbeddingMemory
from gckd_mm.models.gckd.neighbours import nearest_neighbours
from gckd_mm.models.heads import MomentumDistillHead
from gckd_mm.models.heads.momentum_distill_head import (
    DIRECTIONS,
    PseudoPairs,
    TargetBatch,
)

MODALITIES = ('images', 'captions')
SIZE, DIM = 12, 4
SINKHORN = dict(method='sinkhorn', epsilon=0.1, iterations=3)
#: what is documented as the default
DEFAULT = dict(method='sinkhorn', epsilon=0.06, iterations=4)
ASSIGNMENTS = [
    None,
    SINKHORN,
    dict(**SINKHORN, relaxation=0.2),
    dict(method='dual_softmax', epsilon=0.1),
    dict(method='csls', k=2),
]
GATES = [
    None,
    dict(method='quantile', threshold=0.4),
    dict(method='mutual', n=1),
    dict(method='mutual', n=2),
]
TAU_TEACHER, TAU_STUDENT = 0.2, 0.3
Potentials = dict[str, list[float]]


class Target:
    """Memories of a target, whose refined embeddings differ from the raw ones."""

    def __init__(self, head: MomentumDistillHead, size: int = SIZE) -> None:
        self.memories = nn.ModuleDict(
            {f'target_{name}': EmbeddingMemory(size, DIM) for name in MODALITIES}
        )
        self.neighbours = MemoryNeighbours(size, head.needed_neighbours())
        self.generator = torch.Generator().manual_seed(0)
        self.noise = {name: 0.3 * self._random(size) for name in MODALITIES}

    def push(self, images: list[int], captions: list[int]) -> TargetBatch:
        """Push new embeddings of these samples, which are the batch, too."""
        samples = {'images': images, 'captions': captions}
        slots = {
            name: self.memories[f'target_{name}'].push(
                F.normalize(self._random(len(keys)), dim=1), torch.tensor(keys)
            )
            for name, keys in samples.items()
        }
        written = {f'target_{name}': rows for name, rows in slots.items()}
        self.neighbours.update(self.memories, written)
        raw = {name: self.memories[f'target_{name}'].feats for name in MODALITIES}
        return TargetBatch(
            feats={
                name: F.normalize(self._random(len(keys)), dim=1).requires_grad_()
                for name, keys in samples.items()
            },
            slots=slots,
            memory=raw,
            refined={
                name: F.normalize(rows + self.noise[name][: len(rows)], dim=1)
                for name, rows in raw.items()
            },
            keys={name: self.memories[f'target_{name}'].keys for name in MODALITIES},
        )

    def _random(self, rows: int) -> Tensor:
        return torch.randn(rows, DIM, generator=self.generator)


def build(**options: Any) -> MomentumDistillHead:
    return MomentumDistillHead(
        **{
            'size': SIZE,
            'candidates': 3,
            'teacher_temperature': TAU_TEACHER,
            'student_temperature': TAU_STUDENT,
            **options,
        }
    )


def filled(head: MomentumDistillHead) -> tuple[Target, TargetBatch]:
    """A target of 9 images and 7 captions, and a batch of 4 of each."""
    target = Target(head)
    target.push([0, 1, 2, 3, 4], [10, 11, 12])
    return target, target.push([5, 6, 7, 8], [13, 14, 15, 16])


def terms_of(
    head: MomentumDistillHead, target: Target, batch: TargetBatch, step: int = 0
) -> dict[str, Tensor]:
    head.assign(batch, target.neighbours, step)
    return head.loss(batch, target.neighbours, step)


def products(left: Tensor, right: Tensor) -> list[list[float]]:
    left, right = left.detach(), right.detach()
    return [
        [sum(a * b for a, b in zip(x, y, strict=True)) for y in right.tolist()]
        for x in left.tolist()
    ]


def best_of(scores: dict[int, float], n: int) -> list[int]:
    return sorted(scores, key=lambda row: -scores[row])[:n]


def naive_candidates(batch: TargetBatch, query: str, n: int) -> list[list[int]]:
    """The n best rows of the other memory, by the raw embeddings."""
    key = 'images' if query == 'captions' else 'captions'
    return [
        best_of(dict(enumerate(row)), n)
        for row in products(batch.memory[query], batch.memory[key])
    ]


def no_potentials(batch: TargetBatch) -> Potentials:
    return {name: [0.0] * len(rows) for name, rows in batch.memory.items()}


def naive_potentials(
    batch: TargetBatch, candidates: int, assignment: dict | None
) -> Potentials:
    if assignment is None:
        return no_potentials(batch)
    of_captions = naive_candidates(batch, 'captions', candidates)
    of_images = naive_candidates(batch, 'images', candidates)
    similarity = products(batch.refined['captions'], batch.refined['images'])
    edges = {(k, j) for k, images in enumerate(of_captions) for j in images}
    edges |= {(k, j) for j, captions in enumerate(of_images) for k in captions}
    rows, columns = range(len(of_captions)), range(len(of_images))
    method = assignment['method']
    if method == 'csls':

        def half_mean(values: list[float]) -> float:
            best = sorted(values)[-assignment['k'] :]
            return -sum(best) / len(best) / 2

        return {
            'captions': [
                half_mean([similarity[k][j] for j in columns if (k, j) in edges])
                for k in rows
            ],
            'images': [
                half_mean([similarity[k][j] for k in rows if (k, j) in edges])
                for j in columns
            ],
        }
    epsilon = assignment['epsilon']
    kernel = [
        [
            math.exp(similarity[k][j] / epsilon) if (k, j) in edges else 0
            for j in columns
        ]
        for k in rows
    ]
    if method == 'dual_softmax':
        u = [1 / sum(kernel[k]) for k in rows]
        v = [1 / sum(kernel[k][j] for k in rows) for j in columns]
    else:
        relaxation = assignment.get('relaxation')
        power = 1 if relaxation is None else relaxation / (relaxation + epsilon)
        v = [1.0 for _ in columns]
        for _ in range(assignment['iterations']):
            u = [
                (1 / len(rows) / sum(kernel[k][j] * v[j] for j in columns)) ** power
                for k in rows
            ]
            v = [
                (1 / len(columns) / sum(kernel[k][j] * u[k] for k in rows)) ** power
                for j in columns
            ]
    return {
        'captions': [epsilon * math.log(value) for value in u],
        'images': [epsilon * math.log(value) for value in v],
    }


def naive_labels(
    batch: TargetBatch,
    query: str,
    key: str,
    candidates: int,
    keep: int | None,
    potentials: Potentials,
) -> list[dict[int, float]]:
    """The label of each candidate of each query of the batch."""
    found = naive_candidates(batch, query, candidates)
    similarity = products(batch.refined[query], batch.refined[key])
    labels = []
    for slot in batch.slots[query].tolist():
        scores = {
            row: math.exp((similarity[slot][row] + potentials[key][row]) / TAU_TEACHER)
            for row in found[slot]
        }
        kept = best_of(scores, keep or len(scores))
        total = sum(scores[row] for row in kept)
        labels.append({row: scores[row] / total for row in kept})
    return labels


def naive_gate(
    batch: TargetBatch,
    query: str,
    key: str,
    candidates: int,
    gate: dict | None,
    potentials: Potentials,
    labels: list[dict[int, float]],
) -> list[bool]:
    if gate is None:
        return [True for _ in labels]
    if gate['method'] == 'quantile':
        confidence = [max(label.values()) for label in labels]
        place = math.ceil(gate['threshold'] * (len(confidence) - 1))
        return [value >= sorted(confidence)[place] for value in confidence]
    asked = naive_candidates(batch, key, candidates)
    similarity = products(batch.refined[key], batch.refined[query])
    kept = []
    for slot, label in zip(batch.slots[query].tolist(), labels, strict=True):
        (match,) = best_of(label, 1)
        scores = {k: similarity[match][k] + potentials[query][k] for k in asked[match]}
        kept.append(slot in best_of(scores, gate['n']))
    return kept


def naive_terms(
    batch: TargetBatch,
    potentials: Potentials,
    candidates: int = 3,
    keep: int | None = None,
    gate: dict | None = None,
) -> dict[str, float]:
    terms = {}
    for direction, (query, key) in DIRECTIONS.items():
        labels = naive_labels(batch, query, key, candidates, keep, potentials)
        kept = naive_gate(batch, query, key, candidates, gate, potentials, labels)
        loss, agreeing = 0.0, 0
        student = products(batch.feats[query], batch.memory[key])
        for row, label, counts in zip(student, labels, kept, strict=True):
            logits = [value / TAU_STUDENT for value in row]
            log_total = math.log(sum(math.exp(logit) for logit in logits))
            own = sum(q * (log_total - logits[j]) for j, q in label.items())
            loss += counts * own
            agreeing += best_of(dict(enumerate(row)), 1) == best_of(label, 1)
        terms[f'loss_distill_{direction}'] = loss / max(1, sum(kept))
        terms[f'gate_rate_{direction}'] = sum(kept) / len(kept)
        terms[f'label_entropy_{direction}'] = -sum(
            q * math.log(q) for label in labels for q in label.values()
        ) / len(labels)
        terms[f'agreement_{direction}'] = agreeing / len(labels)
    return terms


def assert_terms(found: dict[str, Tensor], expected: dict[str, float]) -> None:
    values = {name: value.item() for name, value in found.items()}
    assert values == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize('candidates', [3, 50])
@pytest.mark.parametrize('keep', [None, 2])
@pytest.mark.parametrize('gate', GATES)
@pytest.mark.parametrize('assignment', ASSIGNMENTS)
def test_everything_against_loops(
    assignment: dict | None, gate: dict | None, keep: int | None, candidates: int
) -> None:
    # 50 candidates are more than there are rows: the rest is padding.
    head = build(assignment=assignment, gate=gate, keep=keep, candidates=candidates)
    target, batch = filled(head)

    terms = terms_of(head, target, batch)

    potentials = naive_potentials(batch, candidates, assignment)
    assert_terms(terms, naive_terms(batch, potentials, candidates, keep, gate))


@pytest.mark.parametrize('gate', GATES[1:])
def test_the_loops_see_queries_inside_and_outside_of_the_gate(gate: dict) -> None:
    head = build(gate=gate, assignment=None)
    target, batch = filled(head)

    terms = terms_of(head, target, batch)

    rates = [value.item() for name, value in terms.items() if 'gate_rate' in name]
    assert 0 < sum(rates) < len(rates)


@pytest.mark.parametrize('assignment', ASSIGNMENTS[1:])
def test_the_assignment_matters(assignment: dict) -> None:
    plain, corrected = build(assignment=None), build(assignment=assignment)
    target, batch = filled(plain)

    losses = [
        terms_of(head, target, batch)['loss_distill_text_to_image']
        for head in (plain, corrected)
    ]

    assert not torch.isclose(*losses, rtol=1e-3)


def test_candidates_beyond_the_memory_are_the_dense_computation() -> None:
    head = build(assignment=None, candidates=SIZE)
    target, batch = filled(head)

    terms = terms_of(head, target, batch)

    for direction, (query, key) in DIRECTIONS.items():
        teacher = batch.refined[query][batch.slots[query]] @ batch.refined[key].t()
        student = batch.feats[query] @ batch.memory[key].t()
        expected = F.cross_entropy(
            student / TAU_STUDENT, (teacher / TAU_TEACHER).softmax(dim=1)
        )
        torch.testing.assert_close(terms[f'loss_distill_{direction}'], expected)


def test_potentials_are_renewed_every_refresh_steps_and_follow_their_samples() -> None:
    # A memory that is full: slots get new samples, and old samples new embeddings.
    head = build(refresh=3, size=6)
    target = Target(head, size=6)
    target.push([0, 1, 2], [10, 11, 12])
    batch = target.push([3, 4, 5], [13, 14, 15])
    known: dict[str, dict[int, float]] = {}
    for step, pushed in enumerate(([3, 4], [4, 6], [7, 8, 6], [0, 9], [1, 8])):
        if step:
            batch = target.push(pushed, [key + 10 for key in pushed])
        terms = terms_of(head, target, batch, step)

        if step % 3 == 0:
            found = naive_potentials(batch, 3, DEFAULT)
            known = {
                name: dict(zip(batch.keys[name].tolist(), values, strict=True))
                for name, values in found.items()
            }
        expected: Potentials = {}
        for name in MODALITIES:
            keys = batch.keys[name].tolist()
            held = [known[name][key] for key in keys if key in known[name]]
            mean = sum(held) / len(held)
            expected[name] = [known[name].get(key, mean) for key in keys]
        assert_terms(terms, naive_terms(batch, expected))


def test_a_reset_forgets_everything() -> None:
    head, fresh = build(), build()
    target, batch = filled(head)
    terms_of(head, target, batch)

    head.reset()

    found, expected = head.state_dict(), fresh.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert head.last_pairs is None
    assert head.last_labels is None
    with pytest.raises(RuntimeError, match='comes after loss'):
        head.matches_in_batch(batch)


def test_the_state_dict_brings_the_potentials_with_it() -> None:
    head, resumed, fresh = build(), build(), build()
    target, batch = filled(head)
    terms_of(head, target, batch)
    resumed.load_state_dict(head.state_dict())
    batch = target.push([2, 9], [17, 11])

    expected = terms_of(head, target, batch, step=1)

    assert terms_of(resumed, target, batch, step=1) == expected
    assert terms_of(fresh, target, batch, step=1) != expected


def test_a_gate_that_nothing_passes_gives_a_loss_and_gradients_of_zero() -> None:
    # Both captions want the one image, which wants the second; the first is the batch.
    head = build(gate=dict(method='mutual', n=1), assignment=None)
    image, near, far = torch.eye(DIM)[0], [0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0]
    target = Target(head)
    memories = target.memories
    captions = F.normalize(torch.tensor([far, near]), dim=1)
    slots = {
        'target_images': memories['target_images'].push(image[None], torch.tensor([0])),
        'target_captions': memories['target_captions'].push(
            captions, torch.tensor([5, 6])
        ),
    }
    target.neighbours.update(memories, slots)
    raw = {name: memories[f'target_{name}'].feats for name in MODALITIES}
    feats = torch.randn(1, DIM).requires_grad_()
    batch = TargetBatch(
        feats={'images': image[None], 'captions': feats},
        slots={'images': torch.tensor([0]), 'captions': torch.tensor([0])},
        memory=raw,
        refined=raw,
        keys={name: memories[f'target_{name}'].keys for name in MODALITIES},
    )

    terms = terms_of(head, target, batch)
    terms['loss_distill_text_to_image'].backward()

    assert terms['loss_distill_text_to_image'] == 0
    assert terms['gate_rate_text_to_image'] == 0
    assert torch.equal(feats.grad, torch.zeros_like(feats))


def test_the_gradient_reaches_the_student_alone() -> None:
    head = build()
    target, batch = filled(head)

    terms = terms_of(head, target, batch)
    sum(value for name, value in terms.items() if 'loss' in name).backward()

    for feats in batch.feats.values():
        assert (feats.grad.abs().sum(dim=1) > 0).all()
    assert not any(rows.requires_grad for rows in batch.memory.values())


def test_only_the_two_losses_are_summed_up() -> None:
    head = build()
    target, batch = filled(head)

    names = set(terms_of(head, target, batch))

    # mmengine sums whatever has 'loss' in its name.
    assert {name for name in names if 'loss' in name} == {
        'loss_distill_text_to_image',
        'loss_distill_image_to_text',
    }
    assert len(names) == 8


def test_the_schedules_are_followed() -> None:
    ramped = build(
        teacher_temperature=dict(start=0.1, end=0.5, length=10),
        loss_weight=dict(start=0.0, end=2.0, length=10),
    )
    target, batch = filled(ramped)

    for step, temperature, weight in ((0, 0.1, 0.0), (5, 0.3, 1.0), (20, 0.5, 2.0)):
        ramped.assign(batch, target.neighbours, 0)
        constant = build(teacher_temperature=temperature, loss_weight=weight)
        constant.assign(batch, target.neighbours, 0)
        torch.testing.assert_close(
            ramped.loss(batch, target.neighbours, step),
            constant.loss(batch, target.neighbours, step),
        )


def test_the_pairs_of_a_step_are_those_of_the_best_labels() -> None:
    head = build(gate=GATES[1])
    assert head.last_pairs is None
    target, batch = filled(head)
    terms_of(head, target, batch)

    pairs = head.last_pairs

    potentials = naive_potentials(batch, 3, DEFAULT)
    labels = naive_labels(batch, 'captions', 'images', 3, None, potentials)
    kept = naive_gate(batch, 'captions', 'images', 3, GATES[1], potentials, labels)
    keys = batch.keys['images'].tolist()
    assert pairs is not None
    assert pairs.captions.tolist() == [13, 14, 15, 16]
    assert pairs.images.tolist() == [keys[best_of(label, 1)[0]] for label in labels]
    assert pairs.confidence.tolist() == pytest.approx(
        [max(label.values()) for label in labels], rel=1e-4
    )
    assert pairs.kept.tolist() == kept


def test_the_labels_of_the_last_captions_are_kept() -> None:
    head = build(keep=2)
    target, batch = filled(head)
    terms_of(head, target, batch)

    potentials = naive_potentials(batch, 3, DEFAULT)
    expected = naive_labels(batch, 'captions', 'images', 3, 2, potentials)
    assert head.last_labels is not None
    for found, label in zip(head.last_labels.tolist(), expected, strict=True):
        row = [label.get(slot, 0.0) for slot in range(len(batch.memory['images']))]
        assert found == pytest.approx(row, rel=1e-4)


def believing(seed: int, batch: int = 6) -> tuple[MomentumDistillHead, TargetBatch]:
    """A head after a loss, with labels from nearly 0 to nearly 1, and its batch."""
    generator = torch.Generator().manual_seed(seed)
    head = build()
    slots = torch.randperm(SIZE, generator=generator)[:batch]
    head.last_labels = torch.randn(batch, SIZE, generator=generator).mul(3).softmax(1)
    nothing = torch.zeros(batch)
    kept = torch.rand(batch, generator=generator) < 0.7
    head.last_pairs = PseudoPairs(nothing, nothing, nothing, kept)
    return head, TargetBatch({}, {'images': slots}, {}, {}, {})


@pytest.mark.parametrize('rows', [slice(None), slice(0, 3), slice(3, 6)], ids=str)
def test_the_matches_of_a_batch_against_a_loop(rows: slice) -> None:
    seen = set()
    for seed in range(30):
        head, batch = believing(seed)
        assert head.last_labels is not None
        assert head.last_pairs is not None
        slots = batch.slots['images'].tolist()[rows]
        kept = head.last_pairs.kept.tolist()[rows]
        pairs, trust, possible = [], [], []
        for row, label in enumerate(head.last_labels.tolist()[rows]):
            own = [label[slot] for slot in slots]
            best = max(own)
            possible.append([value > 0.001 for value in own])
            if kept[row] and best >= 0.1:
                pairs.append([row, own.index(best)])
                trust.append(pytest.approx(best))
            seen.add((kept[row], best >= 0.1, best == max(label)))

        found = head.matches_in_batch(batch, rows)

        assert [each.tolist() for each in found] == [pairs, trust, possible]
        assert found[0].shape == (len(trust), 2)
    # Gated or not; with the best image in the batch, or a likely or unlikely other.
    of_batch = [(True, True), (True, False), (False, False)]
    assert seen >= {(gate, *kind) for gate in (True, False) for kind in of_batch}


def test_matches_come_after_the_loss() -> None:
    head = build()
    _, batch = filled(head)

    with pytest.raises(RuntimeError, match='comes after loss'):
        head.matches_in_batch(batch)


def test_autocast_changes_nothing() -> None:
    head = build()
    target, batch = filled(head)
    expected = terms_of(head, target, batch)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = terms_of(head, target, batch)

    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(candidates=0), 'at least 1, got 0, 10 and None'),
        (dict(refresh=0), 'at least 1, got 3, 0 and None'),
        (dict(keep=0), 'at least 1, got 3, 10 and 0'),
        (dict(student_temperature=0), 'student_temperature must be positive, got 0'),
        (dict(sharpening=0), 'sharpening must be positive, got 0'),
        (dict(teacher_temperature=0), 'teacher_temperature must be positive, got 0'),
        (
            dict(teacher_temperature=dict(start=0.1, end=0, length=9)),
            "teacher_temperature must be positive, got {'start'",
        ),
        (dict(teacher_temperature='hot'), 'must be a number or a ramp'),
        (dict(loss_weight=dict(start=1)), 'missing keys'),
        (dict(assignment='sinkhorn'), "one of .*'sinkhorn'.*, got sinkhorn"),
        (dict(assignment=dict(epsilon=0.1)), "got {'epsilon': 0.1}"),
        (dict(assignment=dict(method='greedy')), "got {'method': 'greedy'}"),
        (dict(assignment=dict(method='csls', epsilon=1)), r"got \['epsilon'\]"),
        (dict(assignment=dict(method='sinkhorn', epsilon=0)), 'epsilon must be posit'),
        (
            dict(assignment=dict(method='sinkhorn', iterations=None)),
            'iterations must be a w',
        ),
        (dict(assignment=dict(method='csls', k='two')), "k must be a whole.*got 'two'"),
        (dict(gate='mutual'), 'gate must be None or dict'),
        (dict(gate=dict(method='absolute')), "got {'method': 'absolute'}"),
        (dict(gate=dict(method='mutual')), r"'mutual' needs \['n'\]"),
        (dict(gate=dict(method='quantile')), r"'quantile' needs \['threshold'\]"),
        (dict(gate=dict(method='mutual', n=0)), 'n must be a whole.*got 0'),
        (dict(gate=dict(method='quantile', threshold=1)), 'below 1, got 1'),
        (dict(gate=dict(method='quantile', threshold=-0.1)), 'got -0.1'),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**options)


@pytest.mark.parametrize('keep', [None, 2])
def test_labels_walk_over_the_neighbours_of_both_ends(keep: int | None) -> None:
    head = build(assignment=None, keep=keep, sharpening=1.5)
    target, batch = filled(head)
    walks = {
        name: lazy_walk(
            nearest_neighbours(rows, rows, 2, exclude=torch.arange(len(rows))), 0.4, 0.2
        )
        for name, rows in batch.memory.items()
    }
    batch = batch._replace(walks=walks)

    head.loss(batch, target.neighbours, step=0)

    everything = batch._replace(slots={'captions': torch.arange(7)})
    plain = naive_labels(
        everything, 'captions', 'images', 3, None, no_potentials(batch)
    )
    assert head.last_labels is not None
    for slot, found in zip(batch.slots['captions'], head.last_labels, strict=True):
        expected = dict.fromkeys(range(9), 0.0)
        for start, chance in steps(walks['captions'], slot):
            for image, label in plain[start].items():
                for end, share in steps(walks['images'], image):
                    expected[end] += chance * label * share
        kept = best_of(expected, keep or 9)
        expected = {j: expected[j] ** 1.5 * (j in kept) for j in expected}
        total = sum(expected.values())
        naive = torch.tensor([expected[j] / total for j in range(9)])
        torch.testing.assert_close(found, naive)


def steps(walk: Walk, row: int | Tensor) -> list[tuple[int, float]]:
    return list(zip(walk.ends[row].tolist(), walk.chances[row].tolist(), strict=True))
