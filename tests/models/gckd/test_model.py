"""The model that adapts: its stages, its terms, its teacher, and what it refuses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models import GCKD, DualEncoder
from gckd_mm.registry import MODELS
from tests.training import SMALL_MODEL

ROOT = Path(__file__).resolve().parents[3]
CAPTIONS = [
    f'a {person} in a {colour} {garment}'
    for person in ('man', 'woman')
    for colour in ('red', 'blue', 'green')
    for garment in ('coat', 'hat')
]
NUM_SAMPLES = len(CAPTIONS)
GRAPH = dict(
    type='MemoryGraph',
    neck=dict(type='GraphPropagationNeck', layer='parameter_free', num_layers=1),
    k=dict(near=2, cross_domain=2, cross_modal=1),
    refresh=3,
)
LEARNED = dict(
    GRAPH, neck=dict(type='GraphPropagationNeck', layer='SAGEConv', num_layers=1)
)
LEARNED_NEAR = dict(LEARNED, k=dict(near=2))
PARTS = dict(
    graph=GRAPH,
    labels=dict(type='PseudoLabels', candidates=4, refresh=3),
    distill=dict(type='MomentumDistillHead'),
    consistency=dict(type='NeighbourConsistencyHead', k=2),
)
#: part -> the losses that it adds
LOSSES: dict[str, set[str]] = {
    'graph': set(),
    'distill': {'loss_distill_text_to_image', 'loss_distill_image_to_text'},
    'consistency': {'loss_consistency_images', 'loss_consistency_captions'},
}
#: what is taken out with a part
TOGETHER = {'distill': ('labels', 'distill')}
SOURCE_ITERS, ADAPT_ITERS = 2, 100


def config(**changes: Any) -> dict[str, Any]:
    """The shipped tiny model, made small, with every part of the adaptation."""
    cfg = Config.fromfile(ROOT / 'configs/_base_/models/dual_encoder_tiny.py')
    cfg.merge_from_dict(SMALL_MODEL)
    return {
        **cfg.model.to_dict(),
        'type': 'GCKD',
        'embedding_size': 16,
        'memory_size': NUM_SAMPLES,
        **PARTS,
        **changes,
    }


def build(**changes: Any) -> GCKD:
    torch.manual_seed(0)
    if changes.get('graph') in (LEARNED, LEARNED_NEAR):
        changes['type'] = 'GCKDWithLearnedGraph'
    model = MODELS.build(config(**changes))
    model.data_preprocessor.tokenizer.fit(CAPTIONS)
    model.set_stages(SOURCE_ITERS, ADAPT_ITERS)
    return model.train()


def without(*parts: str) -> dict[str, None]:
    """The options that take these parts out."""
    return {name: None for part in parts for name in TOGETHER.get(part, (part,))}


def collated(seed: int = 0, captions: bool = True, size: int = 5) -> dict[str, Any]:
    """A batch as the loader gives it; an image is a function of its index."""
    generator = torch.Generator().manual_seed(seed)
    source, image, caption = (
        torch.randperm(NUM_SAMPLES, generator=generator)[:size].tolist()
        for _ in range(3)
    )
    target: dict[str, Any] = {
        'inputs': {'images': [random_image(100 + index) for index in image]},
        'image_index': image,
    }
    if captions:
        target['inputs']['captions'] = [CAPTIONS[index] for index in caption]
        target['caption_index'] = caption
    return {
        'inputs': {
            'images': [random_image(index) for index in source],
            'captions': [CAPTIONS[index] for index in source],
        },
        'data_samples': [
            BaseDataElement(pid=index // 2, sample_idx=index) for index in source
        ],
        'target': target,
    }


def random_image(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    colour = torch.randint(0, 256, (3, 4, 2), generator=generator, dtype=torch.uint8)
    return colour.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)


def losses_of(
    model: DualEncoder, batch: dict[str, Any], seed: int = 0
) -> dict[str, Tensor]:
    torch.manual_seed(seed)  # of the dropout
    return model(**model.data_preprocessor(batch, training=True), mode='loss')


def begin(model: GCKD) -> GCKD:
    """Go to the first step of the adaptation, as the hook does."""
    model.set_iteration(model.source_iters)
    model.start_adaptation()
    return model


def adapt(
    model: GCKD, batch: dict[str, Any], step: int, lr: float = 0.05
) -> dict[str, Tensor]:
    """One iteration of the adaptation: losses, step of the optimiser, teacher."""
    model.set_iteration(model.source_iters + step)
    terms = losses_of(model, batch, seed=step)
    model.zero_grad()
    total_of(terms).backward()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.grad is not None:
                weight -= lr * weight.grad
    model.update_teacher()
    return terms


def total_of(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([value for name, value in terms.items() if 'loss' in name]).sum()


def encoders(model: DualEncoder) -> dict[str, Tensor]:
    """Weights and buffers of what the teacher averages."""
    parts = ('image_backbone', 'image_neck', 'text_backbone', 'text_neck')
    return {
        name: value.clone()
        for name, value in model.state_dict().items()
        if name.split('.')[0] in parts
    }


def of_teacher(model: GCKD) -> dict[str, Tensor]:
    state = model.teacher.module.state_dict()
    return {name: value.clone() for name, value in state.items()}


def shift(model: GCKD) -> None:
    """Move the student's weights, as a source stage would."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn_like(weight))


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize('graph', [GRAPH, LEARNED], ids=['free', 'learned'])
def test_the_source_stage_is_that_of_the_dual_encoder(graph: dict) -> None:
    model = build(graph=graph)
    tower = config()
    for name in ('embedding_size', 'memory_size', *PARTS):
        del tower[name]
    plain = MODELS.build({**tower, 'type': 'DualEncoder'}).train()
    weights = model.state_dict()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    batch = collated()
    del batch['target']

    for iteration in range(SOURCE_ITERS):
        model.set_iteration(iteration)
        found, expected = losses_of(model, batch), losses_of(plain, batch)

        assert_equal(found, expected)
        total_of(found).backward()
        total_of(expected).backward()
        for name, weight in plain.named_parameters():
            assert torch.equal(model.get_parameter(name).grad, weight.grad), name


def test_the_source_stage_leaves_teacher_and_memories_alone() -> None:
    model = build()
    before = copy.deepcopy(model.state_dict())
    model.set_iteration(0)

    losses_of(model, collated())

    after = model.state_dict()
    changed = [n for n, v in after.items() if not torch.equal(v, before[n])]
    assert changed == []


def test_the_adaptation_names_every_term() -> None:
    model = begin(build(graph=LEARNED))

    terms = losses_of(model, collated())

    assert {name for name in terms if 'loss' in name} == {
        'loss_sdm',
        'loss_graph_sdm',
        *LOSSES['distill'],
        *LOSSES['consistency'],
    }
    assert all(value.shape == () and value.isfinite() for value in terms.values())


@pytest.mark.parametrize(
    'off', [(), ('graph',), ('distill',), ('consistency',), tuple(LOSSES)], ids=str
)
def test_what_stays_still_trains(off: tuple[str, ...]) -> None:
    model = begin(build(**without(*off)))
    before = encoders(model)

    for step in range(4):  # past a refresh
        terms = adapt(model, collated(step), step)

        kept = [losses for part, losses in LOSSES.items() if part not in off]
        assert {n for n in terms if 'loss' in n} == {'loss_sdm'}.union(*kept)
        assert total_of(terms).isfinite()

    after = encoders(model)
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize('part', ['distill', 'consistency'])
def test_each_loss_of_the_target_reaches_both_encoders(part: str) -> None:
    model = begin(build())

    terms = losses_of(model, collated())
    torch.stack([terms[name] for name in LOSSES[part]]).sum().backward()

    for name in ('image_backbone', 'image_neck', 'text_backbone', 'text_neck'):
        for key, weight in model.get_submodule(name).named_parameters():
            assert weight.grad.abs().sum() > 0, (name, key)


def test_the_terms_are_those_of_the_parts_alone() -> None:
    # Memories, neighbours and schedules are shared; the terms are not to mix.
    model = begin(build())
    alone = {
        part: begin(build(**without(*(other for other in LOSSES if other != part))))
        for part in ('distill', 'consistency')
    }
    plain = build(graph=None)
    begin(plain)

    terms = losses_of(model, collated())

    found = losses_of(alone['consistency'], collated())
    for name in LOSSES['consistency']:
        torch.testing.assert_close(terms[name], found[name])
    # Labels are made of propagated embeddings.
    ungraphed = losses_of(plain, collated())
    for name, value in losses_of(alone['distill'], collated()).items():
        torch.testing.assert_close(ungraphed[name], value)
    for name in LOSSES['distill']:
        assert not torch.isclose(terms[name], ungraphed[name], rtol=1e-4)


def test_the_weight_of_a_part_follows_the_step_of_the_adaptation() -> None:
    ends = {'distill': 3.0, 'consistency': 5.0, 'graph': 7.0}
    ramps = {
        name: dict(start=0.0, end=end, length=4 / ADAPT_ITERS)
        for name, end in ends.items()
    }
    ramped, full = (
        begin(build(graph=LEARNED, loss_weights=weights)) for weights in (ramps, None)
    )

    for step in (0, 1, 3, 6):
        for model in (ramped, full):
            model.set_iteration(SOURCE_ITERS + step)
        terms, expected = (losses_of(m, collated(step)) for m in (ramped, full))
        for part, end in ends.items():
            for name in LOSSES[part] or {'loss_graph_sdm'}:
                weight = end * min(step / 4, 1)
                torch.testing.assert_close(terms[name], weight * expected[name])
        torch.testing.assert_close(terms['loss_sdm'], expected['loss_sdm'])


def test_schedules_are_listed_by_name() -> None:
    ramp = dict(start=0.5, end=1.0, length=0.7, begin=0.2)
    model = build(
        teacher_momentum=ramp,
        labels=dict(PARTS['labels'], temperature=ramp),
        loss_weights=dict(consistency=ramp),
    )

    schedules = model.schedules()

    assert set(schedules) == {
        'teacher_momentum',
        'labels.temperature',
        'loss_weights.distill',
        'loss_weights.consistency',
    }
    ramped = {name for name, schedule in schedules.items() if not schedule.is_constant}
    assert ramped == {
        'teacher_momentum',
        'labels.temperature',
        'loss_weights.consistency',
    }
    assert 'labels.temperature' not in build(**without('distill')).schedules()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(loss_weights=dict(matching=1.0)), r"unknown \['matching'\], expected"),
        (
            dict(loss_weights=dict(distill='much')),
            'loss_weights.distill must be a number',
        ),
        (dict(labels=None), 'go together'),
        (dict(distill=None), 'go together'),
    ],
)
def test_parts_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**options)


def test_every_list_is_as_long_as_the_longest_that_anybody_reads() -> None:
    graph = dict(GRAPH, k=dict(near=2, cross_domain=3, cross_modal=5))
    lengths = []
    for near, consistency in ((7, 6), (4, 6), (1, 1)):
        propagation = dict(alpha=0.5, k=near)
        model = build(
            graph=graph,
            labels=dict(PARTS['labels'], propagation=propagation),
            consistency=dict(PARTS['consistency'], k=consistency),
        )
        lists = {name: each.k for name, each in model.graph.lists.items()}
        assert lists['images_cross_domain'] == lists['captions_cross_domain'] == 3
        assert lists['images_cross_modal'] == lists['captions_cross_modal'] == 5
        assert lists['images_near'] == lists['captions_near']
        lengths.append(lists['images_near'])
    assert lengths == [7, 6, 2]


def test_the_start_of_the_adaptation_makes_the_teacher_the_student() -> None:
    model = build(graph=LEARNED)
    shift(model)
    before = of_teacher(model)

    begin(model)

    found = of_teacher(model)
    assert any(not torch.equal(found[name], value) for name, value in before.items())
    neck = model.graph.neck.state_dict()
    expected = encoders(model)
    expected |= {f'graph_neck.{name}': value for name, value in neck.items()}
    assert_equal(found, expected)
    assert model.teacher.steps == 0


def test_the_start_of_the_adaptation_forgets_an_earlier_one() -> None:
    model = begin(build())
    used = copy.deepcopy(model)
    for step in range(4):
        adapt(used, collated(step), step)
    for name, value in encoders(model).items():
        used.state_dict()[name].copy_(value)
    begin(used)

    for step in range(3):
        for each in (model, used):
            each.set_iteration(SOURCE_ITERS + step)
        # The same samples come to the same slots as in the earlier one.
        found, expected = (losses_of(m, collated(step)) for m in (used, model))
        assert_equal(found, expected)


def test_the_teacher_gets_no_gradient_and_no_dropout() -> None:
    model = begin(build(graph=LEARNED))

    total_of(losses_of(model, collated())).backward()

    assert not any(weight.requires_grad for weight in model.teacher.parameters())
    assert all(weight.grad is None for weight in model.teacher.parameters())
    assert model.train().training
    assert not any(module.training for module in model.teacher.modules())


def test_the_memories_hold_the_teachers_target_and_the_students_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = begin(build())
    shift(model)  # the student has gone on, the teacher has not
    batch = collated()
    embedded = []
    extract_feat = model.extract_feat
    monkeypatch.setattr(
        model,
        'extract_feat',
        lambda inputs: embedded.append(extract_feat(inputs)) or embedded[-1],
    )

    losses_of(model, batch)

    target = model.data_preprocessor(batch)['target']['inputs']
    with torch.no_grad():
        expected = model.teacher.module.extract_feat(target)
    samples = batch['data_samples']
    for modality in ('images', 'captions'):
        of_source = model.memories[f'source_{modality}']
        torch.testing.assert_close(of_source.feats, embedded[0][modality].detach())
        assert of_source.keys.tolist() == [each.sample_idx for each in samples]
        of_target = model.memories[f'target_{modality}']
        torch.testing.assert_close(of_target.feats, expected[modality])
        index = batch['target'][f'{modality.removesuffix("s")}_index']
        assert of_target.keys.tolist() == index


def test_the_source_is_only_remembered_where_something_receives_from_it() -> None:
    near = dict(GRAPH, k=dict(near=2))
    for graph, off, received in (
        (None, (), False),
        (near, (), False),
        (GRAPH, (), True),
        (LEARNED, (), True),
        # Without soft labels nothing of the target is propagated, ...
        (GRAPH, ('distill',), False),
        # ... but the source is, which trains the neck.
        (LEARNED, ('distill',), True),
        (LEARNED_NEAR, ('distill',), True),
    ):
        model = begin(build(**{'graph': graph, **without(*off)}))

        losses_of(model, collated())

        filled = len(model.memories['source_images'])
        assert filled == (5 if received else 0)
        assert model.needs_source_memory == received


def test_the_teacher_holds_neither_memories_nor_heads() -> None:
    state = build(graph=LEARNED).teacher.state_dict()

    parts = {name.removeprefix('module.').split('.')[0] for name in state} - {'steps'}
    assert parts == {
        'image_backbone',
        'image_neck',
        'text_backbone',
        'text_neck',
        'graph_neck',
    }


@pytest.mark.parametrize('momentum', [0, 1, 0.75])
def test_the_teacher_follows_with_its_momentum(momentum: float) -> None:
    model = begin(build(teacher_momentum=momentum))
    before = of_teacher(model)
    shift(model)

    model.update_teacher()

    after, student = of_teacher(model), encoders(model)
    for name, value in after.items():
        expected = momentum * before[name] + (1 - momentum) * student[name]
        torch.testing.assert_close(value, expected)


def test_the_momentum_follows_the_step_of_the_adaptation() -> None:
    model = begin(
        build(teacher_momentum=dict(start=1.0, end=0.0, length=1 / ADAPT_ITERS))
    )
    before = of_teacher(model)
    shift(model)

    model.update_teacher()
    assert_equal(of_teacher(model), before)

    model.set_iteration(SOURCE_ITERS + 1)
    model.update_teacher()
    torch.testing.assert_close(of_teacher(model), encoders(model))


@pytest.mark.parametrize(
    'momentum', [-0.1, 1.1, dict(start=0.9, end=1.1, length=0.5)], ids=str
)
def test_a_momentum_beyond_its_range_is_refused(momentum: float | dict) -> None:
    with pytest.raises(InputError, match=r'within \[0, 1\], got (-0|1)\.1'):
        build(teacher_momentum=momentum)


@pytest.mark.parametrize('part', ['source', 'target', 'text'])
def test_what_is_not_a_number_stays_none(part: str) -> None:
    # For the hook that stops a diverged training: no error on the way, no healing.
    model = build(graph=LEARNED, labels=dict(PARTS['labels'], gate=0.4))
    if part == 'text':
        model.text_neck.get_parameter(
            next(name for name, _ in model.text_neck.named_parameters())
        ).data.fill_(torch.nan)
    begin(model)
    batch = model.data_preprocessor(collated(), training=True)
    if part != 'text':
        given = batch if part == 'source' else batch['target']
        given['inputs']['images'][1] = torch.nan

    terms = model(**batch, mode='loss')

    assert total_of(terms).isnan()


def test_more_neighbours_than_nodes() -> None:
    plenty = begin(
        build(
            graph=dict(GRAPH, k=dict(near=40, cross_domain=50, cross_modal=60)),
            labels=dict(PARTS['labels'], candidates=70),
            consistency=dict(PARTS['consistency'], k=90),
        )
    )

    for step in range(2):
        terms = adapt(plenty, collated(step), step)

        assert total_of(terms).isfinite()


def test_a_target_without_captions_leaves_out_what_needs_them() -> None:
    model = begin(build())

    for step in range(4):
        terms = adapt(model, collated(step, captions=False), step)

        names = {name for name in terms if 'loss' in name}
        assert names == {'loss_sdm', 'loss_consistency_images'}
        assert total_of(terms).isfinite()
    assert len(model.memories['target_images']) > 0
    assert len(model.memories['target_captions']) == 0


@pytest.mark.parametrize('graph', [GRAPH, LEARNED], ids=['free', 'learned'])
def test_the_order_of_the_targets_batch_changes_no_loss(graph: dict) -> None:
    one, other = (begin(build(graph=graph)).eval() for _ in range(2))
    generator = torch.Generator().manual_seed(0)

    for step in range(4):
        batch, permuted = collated(step), collated(step)
        target = permuted['target']
        for names in (('images', 'image_index'), ('captions', 'caption_index')):
            order = torch.randperm(5, generator=generator).tolist()
            modality, index = names
            target['inputs'][modality] = [target['inputs'][modality][i] for i in order]
            target[index] = [target[index][i] for i in order]
        for model in (one, other):
            model.set_iteration(SOURCE_ITERS + step)
        expected, found = losses_of(one, batch), losses_of(other, permuted)

        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('graph', [GRAPH, LEARNED], ids=['free', 'learned'])
def test_the_state_dict_continues_an_adaptation_bit_for_bit(graph: dict) -> None:
    # A memory that is smaller than the target, so that rows are replaced.
    model, resumed = (build(graph=graph, memory_size=7) for _ in range(2))
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


def test_without_soft_labels_nothing_is_propagated() -> None:
    alone, bare = (begin(build(**without('distill'), graph=g)) for g in (GRAPH, None))

    for step in range(4):  # past a renewal
        found, expected = (adapt(m, collated(step), step) for m in (alone, bare))

        assert_equal(found, expected)
    assert not alone.graph.propagated_images.any()


def test_it_tests_as_the_dual_encoder_does() -> None:
    model = build().eval()
    batch = collated()
    inputs = model.data_preprocessor({'inputs': batch['inputs']})

    feats = model(**inputs, mode='tensor')

    assert {name: feat.shape for name, feat in feats.items()} == {
        'images': (5, 16),
        'captions': (5, 16),
    }


def test_a_memory_that_cannot_hold_a_batch_is_refused() -> None:
    model = begin(build(memory_size=4))

    with pytest.raises(InputError, match=r'memory_size=4 .* batch of all ranks, 5'):
        losses_of(model, collated())


def test_a_memory_as_large_as_a_batch_will_do() -> None:
    model = begin(build(memory_size=5))

    for step in range(2):
        assert total_of(adapt(model, collated(step), step)).isfinite()
    assert len(model.memories['target_images']) == 5


@pytest.mark.parametrize('iteration', [0, SOURCE_ITERS])
@pytest.mark.parametrize('modality', ['images', 'captions'])
def test_towers_of_another_size_are_refused_in_both_stages(
    modality: str, iteration: int
) -> None:
    tower = {'images': 'image_neck', 'captions': 'text_neck'}[modality]
    model = begin(build(**{tower: dict(config()[tower], out_channels=24)}))
    model.set_iteration(iteration)
    message = f'embeddings of {modality} have 24 numbers, embedding_size is 16: '

    with pytest.raises(InputError, match=message):
        losses_of(model, collated())


@pytest.mark.parametrize('iteration', [0, SOURCE_ITERS])
def test_towers_that_agree_with_each_other_alone_are_refused(iteration: int) -> None:
    model = begin(build(embedding_size=8))
    model.set_iteration(iteration)

    with pytest.raises(InputError, match='have 16 numbers, embedding_size is 8: '):
        losses_of(model, collated())


@pytest.mark.parametrize('iteration', [0, SOURCE_ITERS])
def test_a_source_without_ids_is_refused(iteration: int) -> None:
    model = begin(build())
    model.set_iteration(iteration)
    batch = collated()
    batch['data_samples'][2] = BaseDataElement(sample_idx=2)

    with pytest.raises(InputError, match='the source has no person ids'):
        losses_of(model, batch)


def test_a_target_that_does_not_come_is_missed() -> None:
    model = begin(build())
    batch = collated()
    del batch['target']

    with pytest.raises(InputError, match=r'has no target.*CrossDomainDataset'):
        losses_of(model, batch)


def test_without_the_hook_it_names_the_hook() -> None:
    with pytest.raises(InputError, match='AdaptationHook'):
        losses_of(build(), collated())
    with pytest.raises(InputError, match='AdaptationHook'):
        build().update_teacher()
