"""What the model that adapts gives its matching head, against loops over the pairs."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from gckd_mm.models import GCKD
from gckd_mm.models.heads.momentum_distill_head import TargetBatch
from gckd_mm.models.retrievers import gckd
from tests.models.gckd.test_gckd import (
    LOSSES,
    PARTS,
    SOURCE_ITERS,
    _scope,  # noqa: F401
    adapt,
    assert_equal,
    begin,
    build,
    collated,
    losses_of,
)

MATCHING = dict(
    type='ImageTextMatchingHead',
    image_channels=16,
    caption_channels=16,
    channels=8,
    num_heads=2,
    grid=(2, 1),
)
#: soft enough for some captions to be sure of an image of the batch, and some not
DISTILL = dict(
    PARTS['distill'], candidates=8, teacher_temperature=0.05, assignment=None
)
GATED = dict(DISTILL, gate=dict(method='quantile', threshold=0.5))
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


class Call(NamedTuple):
    """What the head was given, and what it answered."""

    given: dict[str, Tensor]
    result: dict[str, Tensor]


def spy_on(model: GCKD, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    calls: list[Call] = []
    original = model.matching.loss

    def loss(*args: Tensor) -> dict[str, Tensor]:
        result = original(*args)
        calls.append(Call(dict(zip(ARGUMENTS, args, strict=True)), result))
        return result

    monkeypatch.setattr(model.matching, 'loss', loss)
    return calls


def matched(
    monkeypatch: pytest.MonkeyPatch,
    captions: bool = True,
    words: dict[str, int] | None = None,
    **changes: Any,
) -> tuple[GCKD, dict[str, Any], dict[str, Tensor], Call]:
    """The last of three steps: the memories hold more than its batch.

    Args:
        monkeypatch: Of the test.
        captions: Whether the target has any.
        words: Domain -> words of its captions that are kept.
        **changes: See ``build``.

    Returns:
        The model, its inputs in that step, the terms and what the head was given.
    """
    model = begin(build(**{'matching': MATCHING, 'distill': DISTILL, **changes})).eval()
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
    model: GCKD, batch: dict[str, Any], rows: range
) -> tuple[list[tuple[int, int]], list[float], list[list[bool]]]:
    """Pairs, trust and what is possible among rows of the target's batch."""
    held = model.memories['target_images'].keys.tolist()
    pairs, trust, possible = [], [], []
    for caption in rows:
        labels = model.distill.last_labels[caption].tolist()
        of_batch = [
            labels[held.index(batch['target']['image_index'][image])] for image in rows
        ]
        possible.append([label > 0.001 for label in of_batch])
        best = max(of_batch)
        if best >= 0.1 and model.last_pairs.kept[caption]:
            pairs.append((caption - rows.start, of_batch.index(best)))
            trust.append(best)
    return pairs, trust, possible


def naive_same(pids: list[int], possible: list[list[bool]]) -> list[list[bool]]:
    """Captions × images: the source's block, the target's, and False in between."""
    num = len(pids)
    same = [[one == other for other in pids] + [False] * num for one in pids]
    return same + [[False] * num + row for row in possible]


@pytest.mark.parametrize('distill', [DISTILL, GATED, None], ids=['all', 'gated', 'off'])
def test_the_pairs_of_the_batch_against_a_loop(
    monkeypatch: pytest.MonkeyPatch, distill: dict | None
) -> None:
    model, batch, terms, call = matched(monkeypatch, distill=distill)
    given = call.given

    pairs, trust = [], []
    possible = [[True] * NUM] * NUM  # nobody knows
    if distill is not None:
        pairs, trust, possible = naive_target(model, batch, range(NUM))
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
    for distill in (DISTILL, GATED):
        model, batch, _, _ = matched(monkeypatch, distill=distill)
        pairs, trust, possible = naive_target(model, batch, range(NUM))
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
    model, batch, *_ = matched(monkeypatch)
    prepared = model.data_preprocessor(batch, training=True)
    domains = [prepared['inputs'], prepared['target']['inputs']]
    slots = {
        modality: torch.tensor(
            [
                model.memories[f'target_{modality}'].keys.tolist().index(key)
                for key in batch['target'][f'{modality.rstrip("s")}_index']
            ]
        )
        for modality in ('images', 'captions')
    }
    whole = TargetBatch({}, slots, {}, {}, {})
    pids = [sample.pid for sample in batch['data_samples']]

    for rank, rows in enumerate((range(0, 2), range(2, 4))):
        part = slice(rows.start, rows.stop)
        embedded = [model._embed(inputs) for inputs in domains]
        feats, tokens = (
            [{k: v[part] for k, v in each.items()} for each in half]
            for half in zip(*embedded, strict=True)
        )
        calls = spy_on(model, monkeypatch)
        monkeypatch.setattr(gckd, 'get_rank', lambda rank=rank: rank)
        model._matching_loss(feats, tokens, torch.tensor(pids[part]), whole, 0)

        pairs, trust, possible = naive_target(model, batch, rows)
        given = calls[-1].given
        assert given['positives'].tolist()[2:] == [[2 + k, 2 + j] for k, j in pairs]
        assert given['weights'].tolist() == pytest.approx([1.0, 1.0, *trust])
        assert given['same'].tolist() == naive_same(pids[part], possible)
        assert pairs


def test_the_terms_are_those_of_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    weighted = dict(MATCHING, loss_weight=0.3)
    _, _, terms, call = matched(monkeypatch, matching=weighted)

    torch.testing.assert_close(terms['loss_matching'], 0.3 * call.result['loss'])
    assert terms['matching_accuracy'] == call.result['accuracy']
    matching = {name for name in terms if name.startswith(('loss_m', 'matching'))}
    assert matching == {
        'loss_matching',
        'matching_accuracy',
        'matching_target_positives',
    }
    # mmengine sums whatever has 'loss' in its name.
    assert {name for name in terms if 'loss' in name} == {
        'loss_sdm',
        'loss_matching',
        *LOSSES['distill'],
        *LOSSES['consistency'],
    }


def test_the_weight_follows_the_step_of_the_adaptation() -> None:
    ramp = dict(start=0.0, end=1.0, length=4)
    ramped, full = (
        begin(build(matching=dict(MATCHING, loss_weight=weight)))
        for weight in (ramp, 1.0)
    )
    assert ramped.schedules()['matching.loss_weight'].last_step == 4
    assert 'matching.loss_weight' not in build().schedules()

    for step in range(6):
        for model in (ramped, full):
            model.set_iteration(SOURCE_ITERS + step)
        found, expected = (
            losses_of(model, collated(step))['loss_matching']
            for model in (ramped, full)
        )

        torch.testing.assert_close(found, expected * min(step / 4, 1))
        assert expected > 0


def test_matching_changes_no_other_term() -> None:
    with_head, without = begin(build(matching=MATCHING)), begin(build())
    with_head.load_state_dict(without.state_dict(), strict=False)

    for step in range(3):
        for model in (with_head, without):
            model.set_iteration(SOURCE_ITERS + step)
        found, expected = (losses_of(m, collated(step)) for m in (with_head, without))

        assert_equal({name: found[name] for name in expected}, expected)


@pytest.mark.parametrize('captions', [True, False])
def test_gradients_reach_the_head_and_both_backbones(captions: bool) -> None:
    model = begin(build(matching=MATCHING))

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
    model = begin(build(matching=MATCHING))
    before = copy.deepcopy(model.matching.state_dict())
    assert not any('matching' in name for name in model.teacher.state_dict())

    adapt(model, collated(), 0)

    for name, value in model.matching.state_dict().items():
        assert not torch.equal(value, before[name]), name


def test_the_source_stage_does_without_the_head() -> None:
    model = build(matching=MATCHING)
    model.set_iteration(0)

    terms = losses_of(model, collated())
    terms['loss_sdm'].backward()

    assert terms.keys() == {'loss_sdm'}
    assert all(weight.grad is None for weight in model.matching.parameters())


def test_the_state_dict_continues_an_adaptation_bit_for_bit() -> None:
    ramp = dict(start=0.0, end=1.0, length=6)
    model, resumed = (
        build(matching=dict(MATCHING, loss_weight=ramp), distill=DISTILL)
        for _ in range(2)
    )
    begin(model)
    for step in range(4):
        adapt(model, collated(step), step)
    resumed.load_state_dict(copy.deepcopy(model.state_dict()))

    for step in range(4, 7):  # between two renewals, and at one
        expected, found = (
            adapt(each, collated(step), step) for each in (model, resumed)
        )

        assert_equal(found, expected)
    assert_equal(resumed.state_dict(), model.state_dict())


def test_matching_alone() -> None:
    model = begin(build(matching=MATCHING, **dict.fromkeys(PARTS)))

    for step in range(3):
        terms = adapt(model, collated(step), step)

        assert {n for n in terms if 'loss' in n} == {'loss_sdm', 'loss_matching'}
        assert all(value.isfinite() for value in terms.values())
