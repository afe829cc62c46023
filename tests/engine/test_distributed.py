"""Two gloo ranks with the same global batch do what one process does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.datasets import CUHKPEDES
from gckd_mm.datasets.samplers import PairedSampler
from gckd_mm.registry import MODELS
from tests.training import (
    in_process,
    last_checkpoint,
    on_ranks,
    small_config,
    train,
)
from tools import test as test_tool

NO_DROPOUT = {'model__text_backbone__dropout': 0.0}


def _one_step(data: Path, out: Path, world_size: int, head: str) -> None:
    """Write the losses and the gradients of one global batch of 8 pairs."""
    if world_size > 1:
        torch.distributed.init_process_group('gloo')
    DefaultScope.get_instance('one_step', scope_name='gckd_mm')
    cfg = small_config(data, out.parent, **NO_DROPOUT)
    cfg.model.heads = {'contrast': {'type': head}}
    pipeline = [step for step in cfg.train_pipeline if 'Random' not in step['type']]
    dataset = CUHKPEDES(str(data / 'cuhk_pedes'), pipeline=pipeline)
    sampler = PairedSampler(dataset, seed=3, num_instances=2)
    loader = Runner.build_dataloader(
        dict(
            dataset=dataset, sampler=sampler, batch_size=8 // world_size, num_workers=0
        )
    )
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.data_preprocessor.tokenizer.fit(dataset.captions())
    wrapped = MMDistributedDataParallel(model) if world_size > 1 else model
    batch = model.data_preprocessor(next(iter(loader)), training=True)
    losses = wrapped(**batch, mode='loss')
    sum(losses.values()).backward()
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        gradients = {name: p.grad for name, p in model.named_parameters()}
        torch.save({'losses': losses, 'gradients': gradients}, out)


@pytest.mark.parametrize('head', ['SDMHead', 'InfoNCEHead'])
def test_losses_and_gradients_equal_those_of_one_process(
    miniature: Path, tmp_path: Path, head: str
) -> None:
    one, two = tmp_path / 'one.pth', tmp_path / 'two.pth'
    assert in_process(_one_step, miniature, one, 1, head) == 0
    on_ranks(_one_step, 2, miniature, two, 2, head)
    expected, found = torch.load(one), torch.load(two)
    torch.testing.assert_close(
        found['losses'], expected['losses'], rtol=1e-5, atol=0, check_stride=False
    )
    assert found['gradients'].keys() == expected['gradients'].keys()
    gradient, other = (
        torch.cat([part.flatten() for part in result['gradients'].values()])
        for result in (expected, found)
    )
    assert gradient.norm() > 0
    assert (other - gradient).norm() <= 1e-5 * gradient.norm()


def _train_and_test(data: Path, work_dir: Path, launcher: str, batch_size: int) -> None:
    cfg = small_config(
        data,
        work_dir,
        launcher=launcher,
        train_dataloader__batch_size=batch_size,
        **NO_DROPOUT,
    )
    metrics = train(cfg).test()
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        (work_dir / 'metrics.json').write_text(json.dumps(metrics))


def test_training_and_metrics_equal_those_of_one_process(
    miniature: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / 'one', tmp_path / 'two'
    assert in_process(_train_and_test, miniature, one, 'none', 8) == 0
    on_ranks(_train_and_test, 2, miniature, two, 'pytorch', 4)
    expected, found = (json.loads((d / 'metrics.json').read_text()) for d in (one, two))
    assert found.keys() == expected.keys()
    assert found['rstpreid/num_queries'] == 160
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=0.05), name
    weights, expected_weights = (
        read_checkpoint(folder / 'iter_8.pth')['state_dict'] for folder in (two, one)
    )
    for name, value in expected_weights.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)


def _test_tool(arguments: list[str]) -> None:
    test_tool.main(arguments)


def test_the_tool_gives_on_two_ranks_what_it_gives_on_one(
    trained: Path, tmp_path: Path
) -> None:
    arguments = [str(last_checkpoint(trained)), '--work-dir', str(tmp_path / 'work')]
    one, two = tmp_path / 'one.json', tmp_path / 'two.json'
    assert in_process(_test_tool, [*arguments, '--out', str(one)]) == 0
    distributed = ['--out', str(two), '--launcher', 'pytorch']
    on_ranks(_test_tool, 2, [*arguments, *distributed])
    expected, found = (json.loads(path.read_text())['metrics'] for path in (one, two))
    for test_set, scores in expected.items():
        assert found[test_set] == pytest.approx(scores, abs=0.05)
