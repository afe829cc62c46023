"""A dual encoder with one head on both domains: stages, what the head is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models import DualEncoder
from gckd_mm.models.uda.adaptation_head import AdaptationHead, CrossDomainFeats
from gckd_mm.models.uda.adapted_dual_encoder import AdaptedDualEncoder
from gckd_mm.registry import MODELS
from tests.models.gckd.test_model import CAPTIONS, collated, losses_of
from tests.training import SMALL_MODEL

ROOT = Path(__file__).resolve().parents[3]
BASELINES = sorted((ROOT / 'configs/baselines/uda').glob('*_street2mall.py'))
SOURCE_ITERS, ADAPT_ITERS = 2, 40


class MeanHead(AdaptationHead):
    """Says what it was given, and lets the means of both domains meet."""

    seen: CrossDomainFeats
    resets = 0

    def terms(self, feats: CrossDomainFeats, step: int) -> dict[str, Tensor]:
        self.seen = feats
        losses = {
            f'loss_mean_{name}': (rows.mean(dim=0) - feats.source[name].mean(dim=0))
            .square()
            .sum()
            for name, rows in feats.target.items()
        }
        return {**losses, 'step_seen': torch.tensor(float(step))}

    def reset(self) -> None:
        self.resets += 1


@pytest.fixture(autouse=True)
def _scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        yield


def build(**changes: Any) -> AdaptedDualEncoder:
    cfg = Config.fromfile(ROOT / 'configs/_base_/models/dual_encoder_tiny.py')
    cfg.merge_from_dict(SMALL_MODEL)
    torch.manual_seed(0)
    model = MODELS.build(
        {
            **cfg.model.to_dict(),
            'type': AdaptedDualEncoder,
            'adaptation': dict(type=MeanHead, loss_weight=3.0),
            **changes,
        }
    )
    model.data_preprocessor.tokenizer.fit(CAPTIONS)
    model.set_stages(SOURCE_ITERS, ADAPT_ITERS)
    return model.train()


def test_the_source_stage_is_that_of_the_dual_encoder() -> None:
    cfg = Config.fromfile(ROOT / 'configs/_base_/models/dual_encoder_tiny.py')
    cfg.merge_from_dict(SMALL_MODEL)
    torch.manual_seed(0)
    plain: DualEncoder = MODELS.build(cfg.model.to_dict())
    plain.data_preprocessor.tokenizer.fit(CAPTIONS)
    model = build()
    batch = collated()
    del batch['target']
    model.set_iteration(SOURCE_ITERS - 1)

    ours, theirs = losses_of(model, batch), losses_of(plain.train(), batch)

    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_head_sees_both_domains_and_no_label_of_the_target() -> None:
    model = build()
    batch = collated()
    model.set_iteration(SOURCE_ITERS + 7)

    terms = losses_of(model, batch)

    seen = model.adaptation.seen
    assert set(terms) == {
        'loss_sdm',
        'loss_mean_images',
        'loss_mean_captions',
        'step_seen',
    }
    assert terms['step_seen'] == 7
    assert seen.pids.tolist() == [each.pid for each in batch['data_samples']]
    for modality in ('images', 'captions'):
        index = batch['target'][f'{modality.removesuffix("s")}_index']
        assert seen.keys[modality].tolist() == index
        means = [side[modality].mean(dim=0) for side in (seen.source, seen.target)]
        expected = 3 * (means[0] - means[1]).square().sum()
        torch.testing.assert_close(terms[f'loss_mean_{modality}'], expected)


def test_the_loss_of_the_target_reaches_both_encoders() -> None:
    model = build()
    model.set_iteration(SOURCE_ITERS)

    terms = losses_of(model, collated())
    (terms['loss_mean_images'] + terms['loss_mean_captions']).backward()

    for name, part in model.named_children():
        if name in ('image_backbone', 'image_neck', 'text_backbone', 'text_neck'):
            gradients = [w.grad for w in part.parameters() if w.grad is not None]
            assert max(float(each.abs().max()) for each in gradients) > 0, name


def test_a_target_without_captions() -> None:
    model = build()
    model.set_iteration(SOURCE_ITERS)

    terms = losses_of(model, collated(captions=False))

    assert 'loss_mean_images' in terms
    assert 'loss_mean_captions' not in terms


def test_without_a_head_the_source_goes_on_alone() -> None:
    model = build(adaptation=None)
    model.set_iteration(SOURCE_ITERS)
    model.start_adaptation()
    model.update_teacher()

    assert set(losses_of(model, collated())) == {'loss_sdm'}
    assert model.schedules() == {}


def test_the_start_of_the_adaptation_resets_the_head() -> None:
    model = build()

    model.start_adaptation()

    assert model.adaptation.resets == 1


def test_the_weight_may_be_a_ramp() -> None:
    ramp = dict(start=0.0, end=2.0, length=10 / ADAPT_ITERS)
    model = build(adaptation=dict(type=MeanHead, loss_weight=ramp))
    batch = collated()
    weights = []
    for step in (0, 5, 10):
        model.set_iteration(SOURCE_ITERS + step)
        weights.append(float(losses_of(model, batch)['loss_mean_images'].detach()))

    assert weights[1] > 0
    assert weights == pytest.approx([0.0, weights[1], 2 * weights[1]])
    (schedule,) = model.schedules().values()
    assert schedule.num_steps == ADAPT_ITERS


def test_what_does_not_fit_the_stage_is_refused_by_the_models_name() -> None:
    model = build()
    with pytest.raises(InputError, match='AdaptedDualEncoder: nobody says'):
        losses_of(model, collated())
    model.set_iteration(SOURCE_ITERS)
    batch = collated()
    del batch['target']
    with pytest.raises(InputError, match='AdaptedDualEncoder: the adaptation has'):
        losses_of(model, batch)
    batch = collated()
    del batch['data_samples'][0].pid
    with pytest.raises(InputError, match='AdaptedDualEncoder: the source has no'):
        losses_of(model, batch)


@pytest.mark.parametrize('path', BASELINES, ids=lambda path: path.stem)
def test_every_baseline_takes_steps_on_both_encoders(path: Path) -> None:
    cfg = Config.fromfile(path)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.data_preprocessor.tokenizer.fit(CAPTIONS)
    model.train()
    weights = [w for w in model.parameters() if w.requires_grad]
    optimiser = torch.optim.SGD(weights, lr=1e-3)
    lengths = (cfg.train_cfg.source_iters, cfg.train_cfg.adapt_iters)
    model.set_stages(*lengths)
    model.set_iteration(lengths[0])
    model.start_adaptation()

    for step in range(100, 103):  # all ramps have ended
        model.set_iteration(lengths[0] + step)
        terms = losses_of(model, collated(seed=step), seed=step)
        losses = {k: v for k, v in terms.items() if 'loss' in k and k != 'loss_sdm'}
        assert all(torch.isfinite(value).all() for value in terms.values())
        if path.stem.startswith('continued'):
            assert not losses
            return
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
        model.update_teacher()

    # A head may have nothing to say yet, but both encoders hear it.
    for part in (model.image_backbone, model.text_backbone):
        gradients = [weight.grad for weight in part.parameters()]
        assert any(gradient is not None for gradient in gradients)
        assert all(g is None or g.isfinite().all() for g in gradients)


def test_a_head_that_matches_needs_captions() -> None:
    head = MeanHead()
    feats = CrossDomainFeats({}, torch.zeros(0), {'images': torch.ones(1, 2)}, {})

    with pytest.raises(InputError, match=r'MeanHead matches .* has no captions'):
        head.need_captions(feats)
