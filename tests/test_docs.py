"""What the documentation shows in Python does what it says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

from gckd_mm.models.uda import CrossDomainFeats
from gckd_mm.registry import MODELS

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / 'docs').glob('*.md')), ROOT / 'README.md']


def blocks(page: Path) -> list[str]:
    text = page.read_text(encoding='utf-8')
    return re.findall(r'^```python\n(.*?)^```', text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_every_sample_is_python(page: Path) -> None:
    for number, block in enumerate(blocks(page)):
        shown = block.replace('…', '...')
        compile(shown, f'{page.name}, sample {number}', 'exec')


def test_a_baseline_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, config = (
        next(block for block in blocks(ROOT / 'docs/baselines.md') if sign in block)
        for sign in ('class MeanHead', "type='MeanHead'")
    )
    (tmp_path / 'mean_head.py').write_text(head, encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path)
    folder = ROOT / 'configs/baselines/uda'
    path = tmp_path / 'mean_street2mall.py'
    path.write_text(config.replace("'./", f"'{folder}/"), encoding='utf-8')
    try:
        cfg = Config.fromfile(path)
        model = MODELS.build({**cfg.model, '_scope_': 'gckd_mm'})
        source = {m: F.normalize(torch.randn(4, 8), dim=1) for m in ('images', 'x')}
        target = {m: source[m] + 1 for m in source}
        feats = CrossDomainFeats(source, torch.arange(4), target, {})

        losses = model.adaptation.loss(feats, 0)

        # a distance of one in each of 8 dimensions, weighed by 3
        assert losses.keys() == {'loss_mean_images', 'loss_mean_x'}
        assert losses['loss_mean_images'].item() == pytest.approx(24)
    finally:
        MODELS.module_dict.pop('MeanHead', None)
        sys.modules.pop('mean_head', None)
