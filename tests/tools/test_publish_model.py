"""Published weights hold what a test needs, and nothing that training needs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from gckd_mm.checkpoint import config_of, load_weights, read_checkpoint
from gckd_mm.registry import MODELS
from gckd_mm.search.apis import PersonSearchInferencer
from tests.training import in_process, last_checkpoint, small_gckd_config, train
from tools import publish_model


def results_of(checkpoint: Path, folder: Path) -> Path:
    path = folder / 'results.json'
    results = {
        'checkpoint': str(checkpoint),
        'config': 'configs/pretrain/synthclip_tiny_web.py',
        'seed': 0,
        'iteration': 4,
        'selection': 'last',
        'torch': torch.__version__,
        'metrics': {'mall': {'R1': 12.5}},
    }
    path.write_text(json.dumps(results))
    return path


def publish(checkpoint: Path, results: Path, folder: Path, *options: str) -> None:
    arguments = [str(checkpoint), str(results), 'small', '--folder', str(folder)]
    publish_model.main([*arguments, '--command', 'make small', *options])


def test_weights_and_their_description(trained: Path, tmp_path: Path) -> None:
    checkpoint = last_checkpoint(trained)
    publish(checkpoint, results_of(checkpoint, tmp_path), tmp_path / 'out')
    data = (tmp_path / 'out/small.pth').read_bytes()
    told = json.loads((tmp_path / 'out/small.json').read_text())
    assert told['sha256'] == hashlib.sha256(data).hexdigest()
    assert told['bytes'] == len(data) < checkpoint.stat().st_size
    assert told['metrics'] == {'mall': {'R1': 12.5}}
    assert told['command'] == 'make small'

    published = read_checkpoint(tmp_path / 'out/small.pth')
    assert set(published) == {'state_dict', 'meta'}
    cfg = config_of(published, 'small')
    model = MODELS.build({**cfg.model, '_scope_': 'gckd_mm'})
    load_weights(model, published, 'small')
    assert told['parameters'] == sum(p.numel() for p in model.parameters())
    before = read_checkpoint(checkpoint)['state_dict']
    assert all(torch.equal(published['state_dict'][key], before[key]) for key in before)


def _adapt(data: Path, work_dir: Path) -> None:
    train(small_gckd_config(data, work_dir))


def test_the_encoders_alone_embed_as_the_whole(miniature: Path, tmp_path: Path) -> None:
    assert in_process(_adapt, miniature, tmp_path / 'work') == 0
    checkpoint = last_checkpoint(tmp_path / 'work')
    results = results_of(checkpoint, tmp_path)
    publish(checkpoint, results, tmp_path / 'out', '--encoders-only')
    published = PersonSearchInferencer(tmp_path / 'out/small.pth', device='cpu')
    whole = PersonSearchInferencer(checkpoint, device='cpu')
    assert published.fingerprint == whole.fingerprint
    size = (tmp_path / 'out/small.pth').stat().st_size
    assert size < checkpoint.stat().st_size / 2
    cfg = config_of(read_checkpoint(tmp_path / 'out/small.pth'), 'small')
    assert cfg.model.type == 'DualEncoder'


def test_results_of_another_checkpoint(trained: Path, tmp_path: Path) -> None:
    checkpoint = last_checkpoint(trained)
    results = results_of(checkpoint.with_name('iter_999.pth'), tmp_path)
    with pytest.raises(SystemExit, match=r'are the results of .*iter_999\.pth, not of'):
        publish(checkpoint, results, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_missing_results(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r'does not exist: see tools/test\.py'):
        publish(last_checkpoint(trained), tmp_path / 'none.json', tmp_path / 'out')


def test_weights_without_a_config(tmp_path: Path) -> None:
    bare = tmp_path / 'bare.pth'
    torch.save({'state_dict': {}, 'meta': {}}, bare)
    with pytest.raises(SystemExit, match='holds no config'):
        publish(bare, results_of(bare, tmp_path), tmp_path / 'out')
    torch.save({'meta': {}}, bare)
    with pytest.raises(SystemExit, match='holds no state_dict'):
        publish(bare, results_of(bare, tmp_path), tmp_path / 'out')


@pytest.mark.parametrize('content', [b'', b'\xff', b'[]', b'{"checkpoint": 3}', b'{}'])
def test_results_that_are_none(trained: Path, tmp_path: Path, content: bytes) -> None:
    results = tmp_path / 'results.json'
    results.write_bytes(content)
    with pytest.raises(SystemExit, match=r'error: .*results\.json: not '):
        publish(last_checkpoint(trained), results, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
