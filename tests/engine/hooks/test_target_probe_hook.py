"""The probe sees the target's labels; the training does not see the probe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.engine.hooks import TargetProbeHook
from gckd_mm.errors import InputError
from tests.training import in_process, small_config, small_gckd_config, train


def _run(data: Path, work_dir: Path, probe: bool) -> None:
    cfg = small_config(data, work_dir, train_cfg__max_iters=4)
    if probe:
        cfg.custom_hooks.append(
            dict(
                type='TargetProbeHook',
                test_sets=dict(rstpreid=cfg.test_dataloader.rstpreid),
                interval=3,
            )
        )
    train(cfg)


def test_a_run_with_the_probe_ends_with_identical_weights(
    miniature: Path, tmp_path: Path
) -> None:
    plain, probed = tmp_path / 'plain', tmp_path / 'probed'
    assert in_process(_run, miniature, plain, False) == 0
    assert in_process(_run, miniature, probed, True) == 0
    expected, found = (
        read_checkpoint(folder / 'iter_4.pth') for folder in (plain, probed)
    )
    for name, value in expected['state_dict'].items():
        assert torch.equal(found['state_dict'][name], value), name
    # It did look, and what it saw reached the log and not the checkpoint.
    assert _steps(probed) == [3, 4], 'at the interval, and at the end'
    for part in ('log_scalars', 'runtime_info'):
        assert not [name for name in found['message_hub'][part] if 'probe/' in name]


def _adapt(data: Path, work_dir: Path) -> None:
    cfg = small_gckd_config(data, work_dir)
    cfg.custom_hooks.append(
        dict(
            type='TargetProbeHook',
            test_sets=dict(rstpreid=cfg.test_dataloader.rstpreid),
            interval=4,
        )
    )
    train(cfg)


def test_it_looks_when_the_adaptation_starts(miniature: Path, tmp_path: Path) -> None:
    assert in_process(_adapt, miniature, tmp_path) == 0
    assert _steps(tmp_path) == [3, 4, 8]


def test_no_interval() -> None:
    with pytest.raises(InputError, match=r'TargetProbeHook: interval .* got 0'):
        TargetProbeHook({}, interval=0)


def _steps(work_dir: Path) -> list[int]:
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    return [row['step'] for row in rows if 'probe/rstpreid/R1' in row]
