"""GCKD with matching: what its head is given, against loops, and what a test gets."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from gckd_mm.models import GCKDWithMatching
from gckd_mm.models.gckd import matching
from gckd_mm.models.gckd.labels import SoftLabels
from gckd_mm.models.gckd.matching import pairs_of_batch
from gckd_mm.models.gckd.model import AdaptationBatch
from tests.models.gckd.test_model import (
    LOSSES,
    PARTS,
    SOURCE_ITERS,
    adapt,
    assert_equal,
    begin,
    collated,
    losses_of,
    random_image,
    without,
)
from tests.models.gckd.test_model import build as build_plain

MATCHING = dict(
    type='ImageTextMatchingHead',
    image_channels=16,
    caption_channels=16,
    channels=8,
    num_heads=2,
    grid=(2, 1),
)
#: soft enough for some captions to be sure of an image of the batch, and some not
LABELS = dict(PARTS['labels'], candidates=8, temperature=0.05, assignment=None)
GATED = dict(LABELS, gate=0.5)
ARGUMENTS = (
    'image_tokens',
    'caption_tokens',
    'caption_mask',
    'similarity',
    'positives',
    'weights',
    'same',
)
NUM = 5
BATCHES = {
    'images': [random_image(0), random_image(1)],
    'captions': ['a man in a red coat', 'a hat'],
}


class Call(NamedTuple):
    """What the head was given, what it answered, and the batch of that step."""

    given: dict[str, Tensor]
    result: dict[str, Tensor]
    batch: AdaptationBatch


def build(**changes: Any) -> GCKDWithMatching:
    return build_plain(**{'type': 'GCKDWithMatching', 'matching': MATCHING, **changes})


def spy_on(model: GCKDWithMatching, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    calls: list[Call] = []
    batches: list[AdaptationBatch] = []
    match = model.matching_loss
    monkeypatch.setattr(
        model, 'matching_loss', lambda batch: batches.append(batch) or match(batch)
    )
    original = model.matching.loss

    def loss(*args: Tensor) -> dict[str, Tensor]:
        result = original(*args)
        given = dict(zip(ARGUMENTS, args, strict=True))
        calls.append(Call(given, result, batches[-1]))
        return result

    monkeypatch.setattr(model.matching, 'loss', loss)
    return calls


def matched(
    monkeypatch: pytest.MonkeyPatch,
    captions: bool = True,
    words: dict[str, int] | None = None,
    **changes: Any,
) -> tuple[GCKDWithMatching, dict[str, Any], dict[str, Tensor], Call]:
    """The last of three steps: the memories hold more than its batch.

    Args:
        monkeypatch: Of the test.
        captions: Whether the target has any.
        words: Domain -> words of its captions that are kept.
        **changes: See ``build``.

    Returns:
        The model, its inputs in that step, the terms and what the head was given.
    """
    model = begin(build(**{'labels': LABELS, **changes})).eval()
    calls = spy_on(model, monkeypatch)
    for step in range(3):
        batch = collated(step, captions=captions)
        inputs = {'source': batch['inputs'], 'target': batch['target']['inputs']}
        for domain, count in (words or {}).items():
            texts = inputs[domain]['captions']
            inputs[domain]['captions'] = [
                ' '.join(text.split()[-count:]) for text in texts
            ]
        model.set_iteration(SOURCE_ITERS + step)
        terms = losses_of(model, batch)
    assert len(calls) == 3
    return model, batch, terms, calls[-1]


def naive_target(
    model: GCKDWithMatching, batch: dict[str, Any], soft: SoftLabels, rows: range
) -> tuple[list[tuple[int, int]], list[float], list[list[bool]]]:
    """Pairs, trust and what is possible among rows of the target's batch."""
    held = model.memories['target_images'].keys.tolist()
    pairs, trust, possible = [], [], []
    for caption in rows:
        labels = soft.labels[caption].tolist()
        of_batch = [
            labels[held.index(batch['target']['image_index'][image])] for image in rows
        ]
        possible.append([label > 0.001 for label in of_batch])
        best = max(of_batch)
        if best >= 0.1 and soft.weights[caption] > 0:
            pairs.append((caption - rows.start, of_batch.index(best)))
            trust.append(best)
    return pairs, trust, possible


def naive_same(pids: list[int], possible: list[list[bool]]) -> list[list[bool]]:
    """Captions × images: the source's block, the target's, and False in between."""
    num = len(pids)
    same = [[one == other for other in pids] + [False] * num for one in pids]
    return same + [[False] * num + row for row in possible]


@pytest.mark.parametrize(
    'parts',
    [{}, {'labels': GATED}, without('distill')],
    ids=['all', 'gated', 'off'],
)
def test_the_pairs_of_the_batch_against_a_loop(
    monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any]
) -> None:
    model, batch, terms, call = matched(monkeypatch, **parts)
    given = call.given

    pairs, trust = [], []
    possible = [[True] * NUM] * NUM  # nobody knows
    if model.labels is not None:
        soft = call.batch.labels['text_to_image']
        pairs, trust, possible = naive_target(model, batch, soft, range(NUM))
    pids = [sample.pid for sample in batch['data_samples']]
    assert given['positives'].tolist() == [
        *([row, row] for row in range(NUM)),
        *([NUM + caption, NUM + image] for caption, image in pairs),
    ]
    assert given['weights'].tolist() == pytest.approx([1.0] * NUM + trust)
    assert given['same'].tolist() == naive_same(pids, possible)
    assert given['same'].dtype == torch.bool
    assert terms['matching_target_positives'] == len(pairs)


def test_the_loop_sees_pairs_of_all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for labels in (LABELS, GATED):
        model, batch, _, call = matched(monkeypatch, labels=labels)
        soft = call.batch.labels['text_to_image']
        pairs, trust, possible = naive_target(model, batch, soft, range(NUM))
        counts.append(len(pairs))

        assert 0 < sum(map(sum, possible)) < NUM**2
        assert all(value < 1 for value in trust)
        assert any(caption != image for caption, image in pairs)
        # Pairs of one person that are two samples of the source.
        pids = [sample.pid for sample in batch['data_samples']]
        assert len(set(pids)) < NUM

    assert NUM >= counts[0] > counts[1] > 0


def test_without_target_captions_the_target_gives_images_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, batch, terms, call = matched(monkeypatch, captions=False)
    given = call.given

    pids = [sample.pid for sample in batch['data_samples']]
    assert given['positives'].tolist() == [[row, row] for row in range(NUM)]
    assert given['weights'].tolist() == [1.0] * NUM
    assert given['same'].tolist() == naive_same(pids, [])
    assert given['similarity'].shape == (NUM, 2 * NUM)
    assert given['image_tokens'].shape[0] == 2 * NUM
    assert given['caption_tokens'].shape[0] == given['caption_mask'].shape[0] == NUM
    assert terms['matching_target_positives'] == 0
    assert terms['loss_matching'] > 0


@pytest.mark.parametrize('words', [{'source': 3}, {'target': 2}, {}], ids=str)
def test_tokens_and_similarities_are_those_of_source_and_then_target(
    monkeypatch: pytest.MonkeyPatch, words: dict[str, int]
) -> None:
    model, batch, _, call = matched(monkeypatch, words=words)
    given, head = call.given, model.matching

    prepared = model.data_preprocessor(batch, training=True)
    domains = [prepared['inputs'], prepared['target']['inputs']]
    masks = [part['captions']['attention_mask'] for part in domains]
    longest = max(mask.shape[1] for mask in masks)
    assert (masks[0].shape[1] == masks[1].shape[1]) == (not words)
    embeddings: dict[str, list[Tensor]] = {'images': [], 'captions': []}
    for number, part in enumerate(domains):
        for row in range(NUM):
            place = number * NUM + row
            image = part['images'][row : row + 1]
            feat, maps = model.embed_images(image)
            embeddings['images'].append(feat[0])
            tokens = head.tokens_of_images(maps)[0]
            torch.testing.assert_close(given['image_tokens'][place], tokens)

            caption = {k: v[row : row + 1] for k, v in part['captions'].items()}
            feat, features = model.embed_captions(caption)
            embeddings['captions'].append(feat[0])
            tokens = head.tokens_of_captions(features)[0]
            length = len(tokens)
            found, mask = given['caption_tokens'][place], given['caption_mask'][place]
            torch.testing.assert_close(found[:length], tokens)
            assert not found[length:].any()
            assert mask.tolist() == [*masks[number][row], *[0] * (longest - length)]
    for caption, feat in enumerate(embeddings['captions']):
        for image, other in enumerate(embeddings['images']):
            similarity = (feat * other).sum()
            torch.testing.assert_close(given['similarity'][caption, image], similarity)
    assert not given['similarity'].requires_grad


def test_each_rank_matches_its_own_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, _, call = matched(monkeypatch)
    whole, calls = call.batch, spy_on(model, monkeypatch)
    pids = whole.pids.tolist()

    for rank, rows in enumerate((range(0, 2), range(2, 4))):
        part = slice(rows.start, rows.stop)
        source, target = (
            {name: values[part] for name, values in feats.items()}
            for feats in (whole.source, whole.target)
        )
        monkeypatch.setattr(matching, 'get_rank', lambda rank=rank: rank)
        of_rank = whole._replace(source=source, target=target, pids=whole.pids[part])
        model.matching_loss(of_rank)

        soft = whole.labels['text_to_image']
        pairs, trust, possible = naive_target(model, batch, soft, rows)
        given = calls[-1].given
        assert given['positives'].tolist()[2:] == [[2 + k, 2 + j] for k, j in pairs]
        assert given['weights'].tolist() == pytest.approx([1.0, 1.0, *trust])
        assert given['same'].tolist() == naive_same(pids[part], possible)
        assert pairs


def test_pairs_of_a_batch_against_a_loop() -> None:
    seen = set()
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        slots = torch.randperm(12, generator=generator)[:6]
        labels = torch.randn(6, 12, generator=generator).mul(3).softmax(dim=1)
        kept = torch.rand(6, generator=generator) < 0.7
        # A weight that is not 0 counts, however small.
        weights = 0.01 * kept
        for rows in (slice(None), slice(0, 3), slice(3, 6)):
            pairs, trust, possible = [], [], []
            for row, (label, counts) in enumerate(
                zip(labels.tolist()[rows], kept.tolist()[rows], strict=True)
            ):
                own = [label[slot] for slot in slots.tolist()[rows]]
                best = max(own)
                possible.append([value > 0.001 for value in own])
                if counts and best >= 0.1:
                    pairs.append([row, own.index(best)])
                    trust.append(pytest.approx(best))
                seen.add((counts, best >= 0.1, best == max(label)))

            found = pairs_of_batch(SoftLabels(labels, weights), slots, rows)

            assert [each.tolist() for each in found] == [pairs, trust, possible]
            assert found[0].shape == (len(trust), 2)
    # Gated or not; with the best image in the batch, or a likely or unlikely other.
    of_batch = [(True, True), (True, False), (False, False)]
    assert seen >= {(gate, *kind) for gate in (True, False) for kind in of_batch}


def test_the_terms_are_those_of_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = dict(start=0.1, end=0.5, length=0.04)  # the third step: 0.3
    weights = dict(matching=ramp)
    model, _, terms, call = matched(monkeypatch, loss_weights=weights)

    assert not model.schedules()['loss_weights.matching'].is_constant
    assert call.result['loss'] > 0
    torch.testing.assert_close(terms['loss_matching'], 0.3 * call.result['loss'])
    assert terms['matching_accuracy'] == call.result['accuracy']
    # mmengine sums whatever has 'loss' in its name.
    assert {name for name in terms if 'loss' in name} == {
        'loss_sdm',
        'loss_matching',
        *LOSSES['distill'],
        *LOSSES['consistency'],
    }


def test_matching_changes_no_other_term() -> None:
    with_head, plain = begin(build()), begin(build_plain())
    with_head.load_state_dict(plain.state_dict(), strict=False)

    for step in range(3):
        for model in (with_head, plain):
            model.set_iteration(SOURCE_ITERS + step)
        found, expected = (losses_of(m, collated(step)) for m in (with_head, plain))

        assert_equal({name: found[name] for name in expected}, expected)
        assert found.keys() - expected.keys() == {
            'loss_matching',
            'matching_accuracy',
            'matching_target_positives',
        }


@pytest.mark.parametrize('captions', [True, False])
def test_gradients_reach_the_head_and_both_backbones(captions: bool) -> None:
    model = begin(build())

    losses_of(model, collated(captions=captions))['loss_matching'].backward()

    for part in ('matching', 'image_backbone', 'text_backbone'):
        for name, weight in model.get_submodule(part).named_parameters():
            assert weight.grad.abs().sum() > 0, (part, name)
    # The embeddings only choose the negatives.
    for part in ('image_neck', 'text_neck'):
        assert all(
            weight.grad is None for weight in model.get_submodule(part).parameters()
        )


def test_the_head_is_trained_and_has_no_teacher() -> None:
    model = begin(build())
    before = copy.deepcopy(model.matching.state_dict())
    assert not any('matching' in name for name in model.teacher.state_dict())

    adapt(model, collated(), 0)

    for name, value in model.matching.state_dict().items():
        assert not torch.equal(value, before[name]), name


def test_the_source_stage_does_without_the_head() -> None:
    model = build()
    model.set_iteration(0)

    terms = losses_of(model, collated())
    terms['loss_sdm'].backward()

    assert terms.keys() == {'loss_sdm'}
    assert all(weight.grad is None for weight in model.matching.parameters())


def test_matching_alone() -> None:
    model = begin(build(**without(*LOSSES)))

    for step in range(3):
        terms = adapt(model, collated(step), step)

        assert {n for n in terms if 'loss' in n} == {'loss_sdm', 'loss_matching'}
        assert all(value.isfinite() for value in terms.values())


def predict(model: GCKDWithMatching, inputs: dict[str, Any]) -> list[BaseDataElement]:
    batch = {'inputs': inputs, 'data_samples': [BaseDataElement(pid=i) for i in (3, 4)]}
    with torch.no_grad():
        return model(**model.data_preprocessor(batch), mode='predict')


def test_the_tokens_give_the_logits_of_the_matching_head() -> None:
    model = build().eval()
    model.keep_tokens = True
    images, captions = (predict(model, {role: BATCHES[role]}) for role in BATCHES)

    for sample in [*images, *captions]:
        assert sample.tokens.dtype == torch.float16
        assert sample.tokens.device.type == 'cpu'
    assert all('token_mask' not in sample for sample in images)
    inputs = model.data_preprocessor({'inputs': BATCHES})['inputs']
    lengths = inputs['captions']['attention_mask'].sum(dim=1).tolist()
    assert [sample.token_mask.sum().item() for sample in captions] == lengths
    with torch.no_grad():
        maps = model.image_backbone(inputs['images'])
        words = model.text_backbone(**inputs['captions'])
        head = model.matching
        expected = head.score(
            head.tokens_of_images(maps),
            head.tokens_of_captions(words),
            inputs['captions']['attention_mask'],
        )
        found = head.score(
            torch.stack([sample.tokens for sample in images]).float(),
            torch.stack([sample.tokens for sample in captions]).float(),
            torch.stack([sample.token_mask for sample in captions]),
        )
    # as close as float16 keeps the tokens
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


@pytest.mark.parametrize('role', ['images', 'captions'])
def test_tokens_cost_one_pass_and_change_nothing_else(role: str) -> None:
    model = build().eval()
    plain = predict(model, {role: BATCHES[role]})
    passes = []
    for backbone in (model.image_backbone, model.text_backbone):
        backbone.register_forward_hook(lambda *_: passes.append(1))
    model.keep_tokens = True

    found = predict(model, {role: BATCHES[role]})

    assert len(passes) == 1
    for before, after in zip(plain, found, strict=True):
        assert set(before.keys()) == {'feat', 'modality', 'pid'}
        assert torch.equal(before.feat, after.feat)
        assert (before.modality, before.pid) == (after.modality, after.pid)


def test_both_modalities_at_once_are_refused() -> None:
    model = build().eval()
    model.keep_tokens = True
    with pytest.raises(ValueError, match='one modality at a time'):
        predict(model, BATCHES)
