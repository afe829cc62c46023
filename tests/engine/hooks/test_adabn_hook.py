"""The target's statistics, computed by hand, and where they end up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.engine.hooks.adabn_hook import AdaBNHook
from gckd_mm.errors import InputError
from gckd_mm.registry import DATASETS, HOOKS, MODELS
from tests.training import last_checkpoint, on_ranks, small_config, train

MAX_ITERS = 3


@MODELS.register_module()
class BatchNormEncoder(nn.Module):
    """Two convolutions with batch normalisation, and dropout between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=4, bias=False)
        self.first_norm = nn.BatchNorm2d(8, momentum=0.3)
        self.dropout = nn.Dropout(0.5)
        self.second = nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(16)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        hidden = self.dropout(self.first_norm(self.first(images)).relu())
        return (self.second_norm(self.second(hidden)).relu(),)


class NormalisedNeck(nn.Module):
    """A neck, and a batch normalisation behind it."""

    def __init__(self, neck: nn.Module) -> None:
        super().__init__()
        self.neck = neck
        self.norm = nn.BatchNorm1d(16)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.norm(self.neck(tokens, mask))


@pytest.fixture(autouse=True)
def _scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        yield


def config(data: Path, work_dir: Path, **overrides: Any) -> Config:
    cfg = small_config(
        data,
        work_dir,
        train_cfg__max_iters=MAX_ITERS,
        default_hooks__checkpoint__interval=1,
        default_hooks__checkpoint__max_keep_ckpts=-1,
        **overrides,
    )
    cfg.model.image_backbone = dict(type='BatchNormEncoder')
    return cfg


def target_of(cfg: Config, data: Path, **options: Any) -> dict[str, Any]:
    dataset = cfg.test_dataloader.rstpreid.gallery.dataset.to_dict()
    return {**dataset, 'split': 'train', **options}


class Run(SimpleNamespace):
    """As much of a runner as the hook looks at, in its last iteration but one."""

    def __init__(self, model: nn.Module) -> None:
        logger = MMLogger.get_current_instance()
        super().__init__(model=model, iter=MAX_ITERS - 2, logger=logger)
        self.max_iters = MAX_ITERS


@pytest.fixture
def run(miniature: Path, tmp_path: Path) -> Run:
    """A model that has seen something else than the target."""
    cfg = config(miniature, tmp_path)
    model = MODELS.build(cfg.model)
    captions = DATASETS.build(target_of(cfg, miniature, view='captions')).captions()
    model.data_preprocessor.tokenizer.fit(captions)
    model.train()
    model.image_backbone(5 + 3 * torch.randn(4, 3, 64, 32))
    model.image_backbone.second.eval()
    return Run(model)


@pytest.fixture
def target(miniature: Path, tmp_path: Path) -> dict[str, Any]:
    return target_of(config(miniature, tmp_path), miniature)


def adapt(run: Run, target: dict[str, Any], **options: Any) -> None:
    hook = HOOKS.build(dict(type='AdaBNHook', target=target, **options))
    hook.before_train(run)
    hook.after_train_iter(run, 0)
    run.iter += 1
    hook.after_train_iter(run, 0)


def all_images(run: Run, target: dict[str, Any]) -> Tensor:
    dataset = DATASETS.build({**target, 'view': 'images'})
    images = torch.stack([item['inputs']['images'] for item in dataset])
    return run.model.data_preprocessor({'inputs': {'images': images}})['inputs'][
        'images'
    ]


def moments(maps: Tensor) -> tuple[np.ndarray, np.ndarray]:
    values = maps.detach().double().transpose(0, 1).flatten(1).numpy()
    return values.mean(axis=1), values.var(axis=1, ddof=1)


def test_one_batch_of_everything_against_numpy(
    run: Run, target: dict[str, Any]
) -> None:
    images = all_images(run, target)

    adapt(run, target, batch_size=len(images))

    encoder = run.model.image_backbone
    first = encoder.first(images)
    hidden = (first - first.mean(dim=(0, 2, 3), keepdim=True)) / (
        first.var(dim=(0, 2, 3), keepdim=True, unbiased=False) + 1e-5
    ).sqrt()
    for norm, maps in (
        (encoder.first_norm, first),
        (encoder.second_norm, encoder.second(hidden.relu())),
    ):
        mean, variance = moments(maps)
        np.testing.assert_allclose(norm.running_mean, mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(norm.running_var, variance, rtol=1e-3)


def test_batches_average_to_the_whole(run: Run, target: dict[str, Any]) -> None:
    seen: list[Tensor] = []
    norm = run.model.image_backbone.first_norm
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))

    adapt(run, target, batch_size=50)

    assert [len(batch) for batch in seen] == [40, 40, 40]
    mean, variance = moments(torch.cat(seen))
    np.testing.assert_allclose(norm.running_mean, mean, rtol=1e-3, atol=1e-4)
    of_batches = np.mean([moments(batch)[1] for batch in seen], axis=0)
    np.testing.assert_allclose(norm.running_var, of_batches, rtol=1e-3)
    # Shuffled: a batch is nearly as varied as the whole.
    np.testing.assert_allclose(norm.running_var, variance, rtol=0.1)
    # Every image once.
    expected = run.model.image_backbone.first(all_images(run, target))
    found, expected = (
        x.flatten(1).sum(dim=1).sort()[0] for x in (torch.cat(seen), expected)
    )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_nothing_else_changes(run: Run, target: dict[str, Any]) -> None:
    model = run.model
    before = {
        name: value.clone()
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor)
    }
    modes = {name: module.training for name, module in model.named_modules()}
    random = torch.get_rng_state()

    adapt(run, target)

    changed = {
        name
        for name, value in before.items()
        if not torch.equal(model.state_dict()[name], value)
    }
    assert changed == {
        f'image_backbone.{norm}_norm.{name}'
        for norm in ('first', 'second')
        for name in ('running_mean', 'running_var', 'num_batches_tracked')
    }
    assert {name: m.training for name, m in model.named_modules()} == modes
    assert model.image_backbone.first_norm.momentum == 0.3
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_it_waits_for_the_last_iteration(run: Run, target: dict[str, Any]) -> None:
    before = run.model.image_backbone.first_norm.running_mean.clone()
    hook = AdaBNHook(target)
    hook.before_train(run)

    hook.after_train_iter(run, 0)

    assert torch.equal(run.model.image_backbone.first_norm.running_mean, before)


def test_the_text_encoder_looks_at_captions(run: Run, target: dict[str, Any]) -> None:
    model = run.model
    model.text_neck = NormalisedNeck(model.text_neck)
    dataset = DATASETS.build({**target, 'view': 'captions', 'pipeline': []})
    captions = [item['caption'] for item in dataset]

    adapt(run, target, batch_size=len(captions))

    inner, model.text_neck.norm = model.text_neck.norm, nn.Identity()
    prepared = model.data_preprocessor({'inputs': {'captions': captions}})
    inputs = prepared['inputs']['captions']
    model.eval()
    feats = model.text_neck(model.text_backbone(**inputs), inputs['attention_mask'])
    mean, variance = moments(feats[..., None])
    np.testing.assert_allclose(inner.running_mean, mean, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(inner.running_var, variance, rtol=1e-3)


def test_a_model_without_batch_norm_is_refused(
    miniature: Path, tmp_path: Path, target: dict[str, Any]
) -> None:
    model = MODELS.build(small_config(miniature, tmp_path).model)

    with pytest.raises(InputError, match='DualEncoder has no batch normalisation'):
        AdaBNHook(target).before_train(Run(model))


def test_the_test_split_is_refused(run: Run, target: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the target's 'test' split must not be seen"):
        AdaBNHook({**target, 'split': 'test'}).before_train(run)


def test_a_batch_of_one_is_refused(target: dict[str, Any]) -> None:
    with pytest.raises(InputError, match='batch_size must be at least 2'):
        AdaBNHook(target, batch_size=1)


def _train(data: Path, work_dir: Path) -> None:
    cfg = config(data, work_dir, launcher='pytorch', train_dataloader__batch_size=4)
    target = target_of(cfg, data)
    cfg.custom_hooks.append(dict(type='AdaBNHook', target=target, batch_size=50))
    runner = train(cfg)
    rank = torch.distributed.get_rank()
    model = runner.model.module
    torch.save(model.state_dict(), work_dir / f'rank_{rank}.pth')
    if rank == 0:
        run = Run(model)
        for layer in (
            model.image_backbone.first_norm,
            model.image_backbone.second_norm,
        ):
            layer.reset_running_stats()
        adapt(run, target, batch_size=50)
        torch.save(model.state_dict(), work_dir / 'again.pth')


def test_a_run_on_two_ranks_saves_the_statistics_of_its_last_weights(
    miniature: Path, tmp_path: Path
) -> None:
    on_ranks(_train, 2, miniature, tmp_path)

    assert last_checkpoint(tmp_path).name == f'iter_{MAX_ITERS}.pth'
    saved = read_checkpoint(last_checkpoint(tmp_path))['state_dict']
    earlier = read_checkpoint(tmp_path / f'iter_{MAX_ITERS - 1}.pth')['state_dict']
    for name in ('rank_0', 'rank_1', 'again'):
        found = torch.load(tmp_path / f'{name}.pth')
        for key in saved:
            if 'running_' in key or 'num_batches' in key:
                assert torch.equal(found[key], saved[key]), (name, key)
    assert saved['image_backbone.first_norm.num_batches_tracked'] == 3
    assert not torch.allclose(
        saved['image_backbone.first_norm.running_mean'],
        earlier['image_backbone.first_norm.running_mean'],
        rtol=0.05,
    )
