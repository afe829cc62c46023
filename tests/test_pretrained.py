"""The weights that come with the package: they load, and score what is said of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from gckd_mm.checkpoint import (
    PACKAGED,
    PACKAGED_FOLDER,
    config_of,
    load_weights,
    local_path,
    read_checkpoint,
)
from gckd_mm.errors import CheckpointError
from gckd_mm.registry import MODELS
from gckd_mm.synthpedes.domain import Sizes, SynthDomain
from gckd_mm.synthpedes.places import WORLD_NAMES
from gckd_mm.synthpedes.version import VERSION
from gckd_mm.synthpedes.writer import write_domain
from tests.training import in_process
from tools import test as test_tool

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in PACKAGED_FOLDER.glob('*.pth'))
SYNTHCLIP = f'{PACKAGED}synthclip_tiny_web'


def description(name: str) -> dict:
    return json.loads((PACKAGED_FOLDER / f'{name}.json').read_text())


def test_synthclip_is_there() -> None:
    assert 'synthclip_tiny_web' in NAMES


@pytest.mark.parametrize('name', NAMES)
def test_is_small_and_what_its_description_says(name: str) -> None:
    data = (PACKAGED_FOLDER / f'{name}.pth').read_bytes()
    told = description(name)
    assert len(data) <= 3e6
    assert told['bytes'] == len(data)
    assert told['sha256'] == hashlib.sha256(data).hexdigest()
    assert told['synthpedes'] == VERSION
    assert (ROOT / told['config']).is_file()
    assert told['selection'] == 'last'


@pytest.mark.parametrize('name', NAMES)
def test_loads_with_its_own_config_and_vocabulary(name: str) -> None:
    checkpoint = read_checkpoint(f'{PACKAGED}{name}')
    assert set(checkpoint) == {'state_dict', 'meta'}
    cfg = config_of(checkpoint, name)
    model = MODELS.build({**cfg.model, '_scope_': 'gckd_mm'})
    load_weights(model, checkpoint, name)
    assert model.data_preprocessor.tokenizer.fitted
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == description(name)['parameters']


def test_its_vocabulary_knows_every_word_of_the_wardrobe() -> None:
    checkpoint = read_checkpoint(SYNTHCLIP)
    cfg = config_of(checkpoint, SYNTHCLIP)
    model = MODELS.build({**cfg.model, '_scope_': 'gckd_mm'})
    load_weights(model, checkpoint, SYNTHCLIP)
    vocabulary = json.loads(model.data_preprocessor.tokenizer.to_json())
    pieces = set(vocabulary['model']['vocab'])
    for domain in (SynthDomain('street', 3), SynthDomain('mall', 4)):
        captions = ' '.join(
            caption
            for shot in domain.shots()[:400:4]
            for caption in domain.write_captions(shot)
        )
        words = set(captions.lower().replace('-', ' ').translate(_NO_MARKS).split())
        assert words
        assert words <= pieces


_NO_MARKS = str.maketrans(dict.fromkeys('.,;:/()\'"', ' '))


SCORED = [
    (name, test_set)
    for name in NAMES
    for test_set in description(name)['metrics']
    if test_set in WORLD_NAMES
]


@pytest.mark.parametrize(('name', 'domain'), SCORED)
def test_scores_what_its_description_says(
    name: str, domain: str, tmp_path: Path
) -> None:
    """The scores on world 0, by the tool that measured them."""
    # A picture does not depend on the sizes: this is the default's test split.
    sizes = Sizes(train=2, val=0)
    folder = write_domain(SynthDomain(domain, 0, sizes), tmp_path / domain, processes=1)
    weights = f'{PACKAGED}{name}'
    cfg = config_of(read_checkpoint(weights), name)
    test_set = cfg.test_dataloader[domain]
    for loader in test_set.values():
        loader.dataset.data_root = str(folder)
        loader.num_workers = 0
    cfg.test_dataloader = {domain: test_set}
    cfg.log_level = 'ERROR'
    cfg.dump(tmp_path / 'config.py')
    out = tmp_path / 'results.json'
    arguments = [str(tmp_path / 'config.py'), weights, '--out', str(out)]
    work_dir = ['--work-dir', str(tmp_path / 'work')]
    assert in_process(test_tool.main, arguments + work_dir) == 0
    found = json.loads(out.read_text())['metrics'][domain]
    told = description(name)['metrics'][domain]
    assert found.keys() == told.keys()
    for key, value in told.items():
        # A rounding of another processor may swap two neighbours in a ranking.
        assert found[key] == pytest.approx(value, abs=0.3), key


def test_unknown_weights() -> None:
    with pytest.raises(CheckpointError, match=r'only .*gckd_mm://synthclip_tiny_web'):
        local_path('gckd_mm://synthclip_huge')


def test_paths_of_the_user_are_left_alone() -> None:
    assert local_path('work_dirs/x.pth') == 'work_dirs/x.pth'
    assert local_path('~/x.pth') == str(Path.home() / 'x.pth')
