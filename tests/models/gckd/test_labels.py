"""Pseudo-labels against loops over queries, candidates and neighbours, in float64."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models import MemoryGraph, PseudoLabels
from gckd_mm.models.gckd.graph import Edges
from gckd_mm.models.gckd.labels import SoftLabels
from gckd_mm.models.gckd.memory import EmbeddingMemory
from gckd_mm.models.gckd.relations import DIRECTIONS

MODALITIES = ('images', 'captions')
SIZE, DIM, CANDIDATES, TAU = 12, 4, 3, 0.2
SINKHORN = dict(epsilon=0.1, iterations=3)
#: what is documented as the default
DEFAULT = dict(epsilon=0.06, iterations=4)
ASSIGNMENTS = [None, {}, SINKHORN, dict(SINKHORN, relaxation=0.2)]
PROPAGATION = dict(alpha=0.4, k=2, temperature=0.3)
Potentials = dict[str, list[float]]


class Batch(NamedTuple):
    """What the labels of one step are made of, and the raw rows of the memories."""

    feats: dict[str, Tensor]
    keys: dict[str, Tensor]
    edges: Edges
    slots: dict[str, Tensor]
    raw: dict[str, Tensor]


class Target:
    """Memories of a target, whose propagated embeddings differ from the raw ones."""

    def __init__(self, size: int = SIZE) -> None:
        self.graph = MemoryGraph(size, DIM, other_k={'near': 5, 'cross_modal': 50})
        self.memories = {
            f'{domain}_{modality}': EmbeddingMemory(size, DIM)
            for domain in ('source', 'target')
            for modality in MODALITIES
        }
        self.generator = torch.Generator().manual_seed(0)
        self.noise = {name: 0.3 * self._random(size) for name in MODALITIES}

    def push(self, images: list[int], captions: list[int]) -> Batch:
        """Push new embeddings of these samples, which are the batch, too."""
        samples = {'images': images, 'captions': captions}
        slots = {
            name: self.memories[f'target_{name}'].push(
                F.normalize(self._random(len(keys)), dim=1), torch.tensor(keys)
            )
            for name, keys in samples.items()
        }
        raw = {name: self.memories[f'target_{name}'].feats for name in MODALITIES}
        feats = {
            name: F.normalize(rows + self.noise[name][: len(rows)], dim=1)
            for name, rows in raw.items()
        }
        keys = {name: self.memories[f'target_{name}'].keys for name in MODALITIES}
        return Batch(feats, keys, self.graph.edges(self.memories), slots, raw)

    def _random(self, rows: int) -> Tensor:
        return torch.randn(rows, DIM, generator=self.generator)


def build(size: int = SIZE, **options: Any) -> PseudoLabels:
    return PseudoLabels(
        **{'size': size, 'candidates': CANDIDATES, 'temperature': TAU, **options}
    )


def filled() -> Batch:
    """A target of 9 images and 7 captions, and a batch of 4 of each."""
    target = Target()
    target.push([0, 1, 2, 3, 4], [10, 11, 12])
    return target.push([5, 6, 7, 8], [13, 14, 15, 16])


def labels_of(
    labels: PseudoLabels, batch: Batch, step: int = 0
) -> dict[str, SoftLabels]:
    *given, _ = batch
    return labels(*given, step)


def products(left: Tensor, right: Tensor) -> list[list[float]]:
    return (left.double() @ right.double().t()).tolist()


def best_of(scores: dict[int, float], n: int) -> list[int]:
    return sorted(scores, key=lambda row: -scores[row])[:n]


def naive_candidates(batch: Batch, query: str, n: int) -> list[list[int]]:
    """The n best rows of the other memory, by the raw embeddings."""
    key = 'images' if query == 'captions' else 'captions'
    return [
        best_of(dict(enumerate(row)), n)
        for row in products(batch.raw[query], batch.raw[key])
    ]


def naive_potentials(
    batch: Batch,
    candidates: int = CANDIDATES,
    epsilon: float = 0.06,
    iterations: int = 4,
    relaxation: float | None = None,
) -> Potentials:
    """Sinkhorn's iterations on the pairs of which one is a candidate of the other."""
    of_captions = naive_candidates(batch, 'captions', candidates)
    of_images = naive_candidates(batch, 'images', candidates)
    similarity = products(batch.feats['captions'], batch.feats['images'])
    pairs = {(k, j) for k, images in enumerate(of_captions) for j in images}
    pairs |= {(k, j) for j, captions in enumerate(of_images) for k in captions}
    rows, columns = range(len(of_captions)), range(len(of_images))
    kernel = [
        [
            math.exp(similarity[k][j] / epsilon) if (k, j) in pairs else 0
            for j in columns
        ]
        for k in rows
    ]
    power = 1 if relaxation is None else relaxation / (relaxation + epsilon)
    v = [1.0 for _ in columns]
    for _ in range(iterations):
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


def naive_transitions(rows: Tensor) -> list[dict[int, float]]:
    """Where the labels of each row go, with which fraction."""
    alpha, k, temperature = PROPAGATION.values()
    found = []
    for row, similarity in enumerate(products(rows, rows)):
        del (others := dict(enumerate(similarity)))[row]
        near = {j: math.exp(others[j] / temperature) for j in best_of(others, int(k))}
        total = sum(near.values())
        found.append(
            {row: 1 - alpha, **{j: alpha * w / total for j, w in near.items()}}
        )
    return found


def naive_labels(
    batch: Batch,
    query: str,
    key: str,
    potentials: Potentials | None = None,
    candidates: int = CANDIDATES,
    sharpening: float | None = None,
) -> list[list[float]]:
    """Labels of the queries of the batch; propagated if there is a sharpening."""
    every = []
    similarity = products(batch.feats[query], batch.feats[key])
    for row, found in enumerate(naive_candidates(batch, query, candidates)):
        scores = {
            j: math.exp(
                (similarity[row][j] + (potentials or {key: [0.0] * 99})[key][j]) / TAU
            )
            for j in found
        }
        total = sum(scores.values())
        every.append({j: score / total for j, score in scores.items()})
    labels = []
    for row in batch.slots[query].tolist():
        dense = [0.0] * len(batch.raw[key])
        if sharpening is None:
            for j, label in every[row].items():
                dense[j] = label
        else:
            moves = naive_transitions(batch.raw[key])
            for other, fraction in naive_transitions(batch.raw[query])[row].items():
                for start, label in every[other].items():
                    for end, moved in moves[start].items():
                        dense[end] += fraction * label * moved
            dense = [value**sharpening for value in dense]
            dense = [value / sum(dense) for value in dense]
        labels.append(dense)
    return labels


def assert_labels(
    found: dict[str, SoftLabels], batch: Batch, *options: Any, **more: Any
) -> None:
    assert found.keys() == DIRECTIONS.keys()
    for direction, (query, key) in DIRECTIONS.items():
        expected = torch.tensor(naive_labels(batch, query, key, *options, **more))
        labels, weights = found[direction]
        torch.testing.assert_close(labels, expected, rtol=1e-4, atol=1e-6)
        assert labels.dtype == weights.dtype == torch.float32
        assert not labels.requires_grad


@pytest.mark.parametrize('candidates', [CANDIDATES, 50])
@pytest.mark.parametrize('sharpening', [None, 1.0, 1.5])
@pytest.mark.parametrize('assignment', ASSIGNMENTS)
def test_labels_against_loops(
    assignment: dict | None, sharpening: float | None, candidates: int
) -> None:
    # 50 candidates are more than there are rows: the rest is padding.
    options: dict[str, Any] = dict(assignment=assignment, candidates=candidates)
    if sharpening is not None:
        options |= dict(propagation=PROPAGATION, sharpening=sharpening)
    batch = filled()

    found = labels_of(build(**options), batch)

    potentials = None
    if assignment is not None:
        potentials = naive_potentials(batch, candidates, **{**DEFAULT, **assignment})
    assert_labels(found, batch, potentials, candidates, sharpening)
    assert all((soft.weights == 1).all() for soft in found.values())


def test_every_part_changes_the_labels() -> None:
    batch = filled()
    options: list[dict] = [
        *(dict(assignment=assignment) for assignment in ASSIGNMENTS),
        dict(propagation=PROPAGATION),
        dict(propagation=PROPAGATION, sharpening=1.0),
    ]
    found = [
        labels_of(build(**each), batch)['text_to_image'].labels for each in options
    ]
    for number, labels in enumerate(found):
        for other in found[:number]:
            assert (labels - other).abs().max() > 1e-3


def test_the_documented_defaults() -> None:
    batch = filled()
    labels = PseudoLabels(SIZE)
    assert labels.candidates == 64
    spelled = dict(
        candidates=64,
        temperature=0.03,
        refresh=10,
        assignment=DEFAULT,
        propagation=dict(alpha=0.5, k=6, temperature=0.1),
        sharpening=2.0,
        gate=0.0,
    )
    shortened = PseudoLabels(SIZE, propagation=dict(alpha=0.5))
    found, expected = (labels_of(each, batch) for each in (shortened, build(**spelled)))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert labels.refresh == 10
    assert labels.propagation is None


@pytest.mark.parametrize('refresh', [1, 3])
def test_potentials_are_renewed_and_follow_their_samples(refresh: int) -> None:
    # A memory that is full: slots get new samples, and old samples new embeddings.
    labels = build(refresh=refresh, size=6)
    target = Target(size=6)
    target.push([0, 1, 2], [10, 11, 12])
    batch = target.push([3, 4, 5], [13, 14, 15])
    known: dict[str, dict[int, float]] = {}
    for step, pushed in enumerate(([3, 4], [4, 6], [7, 8, 6], [0, 9], [1, 8])):
        if step:
            batch = target.push(pushed, [key + 10 for key in pushed])

        found = labels_of(labels, batch, step)

        if step % refresh == 0:
            renewed = naive_potentials(batch)
            known = {
                name: dict(zip(batch.keys[name].tolist(), values, strict=True))
                for name, values in renewed.items()
            }
        expected: Potentials = {}
        for name in MODALITIES:
            keys = batch.keys[name].tolist()
            held = [known[name][key] for key in keys if key in known[name]]
            mean = sum(held) / len(held)
            expected[name] = [known[name].get(key, mean) for key in keys]
        assert_labels(found, batch, expected)


def test_a_memory_that_grew_since_the_potentials_were_computed() -> None:
    labels, target = build(refresh=5), Target()
    batch = target.push([0, 1, 2], [10, 11, 12, 13])
    first = naive_potentials(batch)
    labels_of(labels, batch, 0)
    grown = target.push([3, 4], [14, 10])

    found = labels_of(labels, grown, 1)

    for name, length in (('images', 5), ('captions', 5)):
        mean = sum(first[name]) / len(first[name])
        first[name] += [mean] * (length - len(first[name]))
    assert_labels(found, grown, first)


@pytest.mark.parametrize('gate', [0.25, 0.4, 0.9])
def test_the_gate_drops_the_least_confident_queries(gate: float) -> None:
    batch = filled()

    gated = labels_of(build(gate=gate), batch)
    plain = labels_of(build(), batch)

    for direction, (labels, weights) in gated.items():
        assert torch.equal(labels, plain[direction].labels)
        confidence = labels.amax(dim=1).tolist()
        cut = sorted(confidence)[math.ceil(gate * (len(confidence) - 1))]
        assert weights.tolist() == [float(value >= cut) for value in confidence]
        assert 0 < weights.sum() < len(weights)


def test_the_temperature_follows_its_schedule() -> None:
    batch = filled()
    ramp = build(temperature=dict(start=0.1, end=0.5, length=0.5), assignment=None)
    ramp.temperature.num_steps = 20
    for step, temperature in ((0, 0.1), (1, 0.14), (5, 0.3), (20, 0.5)):
        constant = build(temperature=temperature, assignment=None)
        found, expected = (labels_of(each, batch, step) for each in (ramp, constant))
        torch.testing.assert_close(found, expected)


def test_a_reset_forgets_everything() -> None:
    labels, fresh = build(), build()
    labels_of(labels, filled())
    assert labels.images_potentials.any()

    labels.reset()

    torch.testing.assert_close(labels.state_dict(), fresh.state_dict())


def test_the_state_dict_brings_the_potentials_with_it() -> None:
    labels, resumed, fresh = build(), build(), build()
    target = Target()
    batch = target.push([0, 1, 2, 3, 4], [10, 11, 12])
    labels_of(labels, batch)
    resumed.load_state_dict(labels.state_dict())
    batch = target.push([2, 9], [17, 11])

    found = [labels_of(each, batch, step=1) for each in (labels, resumed, fresh)]

    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)
    assert not torch.equal(found[2]['text_to_image'][0], found[0]['text_to_image'][0])


def test_autocast_changes_nothing() -> None:
    batch = filled()
    expected = labels_of(build(propagation=PROPAGATION), batch)

    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = labels_of(build(propagation=PROPAGATION), batch)

    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(candidates=0), 'candidates must be a whole number .*got 0'),
        (dict(candidates=2.5), r'candidates must be a whole number .*got 2\.5'),
        (dict(candidates=True), 'candidates must be a whole number .*got True'),
        (dict(refresh=0), 'refresh must be .*got 0'),
        (dict(sharpening=0), 'sharpening must be positive, got 0'),
        (dict(temperature=0), 'temperature must be positive, got 0'),
        (
            dict(temperature=dict(start=0.1, end=0, length=0.9)),
            'must be positive, got 0',
        ),
        (dict(temperature='hot'), 'labels.temperature must be a number or a ramp'),
        (dict(gate=1), 'below 1; got 1'),
        (dict(gate=-0.1), 'got -0.1'),
        (dict(assignment=dict(epsilon=0)), 'assignment.epsilon must be positive'),
        (dict(assignment=dict(relaxation=0)), 'assignment.relaxation must be positive'),
        (dict(assignment=dict(iterations=None)), 'assignment.iterations must be a wh'),
        (dict(assignment=dict(method='csls')), r"unknown: \['method'\], missing: \[\]"),
        (dict(propagation=dict(k=2)), r"unknown: \[\], missing: \['alpha'\]"),
        (dict(propagation=dict(alpha=0)), 'propagation.alpha must be positive, got 0'),
        (dict(propagation=dict(alpha=1.5)), 'alpha must be at most 1, got 1.5'),
        (dict(propagation=dict(alpha=0.5, k=0)), 'propagation.k must be a whole'),
        (
            dict(propagation=dict(alpha=0.5, temperature='x')),
            "propagation.temperature must be positive, got 'x'",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**options)
