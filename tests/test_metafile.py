"""The index of models that `mim` and others read."""

from __future__ import annotations

import json
import statistics
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml
from mmengine.config import Config

from gckd_mm.engine.direction import turned

ROOT = Path(__file__).parents[1]
METAFILE = yaml.safe_load((ROOT / 'configs/metafile.yml').read_text(encoding='utf-8'))
MODELS = METAFILE['Models']
OFFICIAL = ('cuhk', 'icfg', 'rstp')
DRAWN = ('campus', 'mall', 'street')


def results(model: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return model.get(kind, [])


def direction_of(model: dict[str, Any]) -> list[str]:
    """The values of ``--source`` and ``--target``, where an entry has them."""
    return model['Metadata'].get('Options', '').split()[1::2]


def test_every_model_is_a_config_of_a_known_collection() -> None:
    names = [model['Name'] for model in MODELS]
    assert len(set(names)) == len(names)
    collections = {collection['Name'] for collection in METAFILE['Collections']}
    for model in MODELS:
        assert (ROOT / model['Config']).is_file(), model['Name']
        cfg = turned(Config.fromfile(ROOT / model['Config']), *direction_of(model))
        assert Path(cfg.filename).stem == model['Name']
        assert model['In Collection'] in collections
    for source, target in [*permutations(OFFICIAL, 2), *permutations(DRAWN, 2)]:
        assert f'gckd_{source}2{target}' in names
        assert f'source_only_{source}2{target}' in names


def test_the_entry_of_a_config_stands_before_those_of_its_other_directions() -> None:
    """mmengine's hub takes the first."""
    first = {model['Config']: model['Name'] for model in reversed(MODELS)}
    for config, name in first.items():
        assert Path(config).stem == name


def test_what_is_quoted_stands_apart_from_what_was_measured() -> None:
    for model in MODELS:
        # None of the official datasets was at hand.
        if any(name in model['Name'].split('_')[-1] for name in OFFICIAL):
            assert not results(model, 'Results'), model['Name']
        for quoted in results(model, 'Quoted Results'):
            assert {'Method', 'Source', 'Dataset', 'Metrics'} <= quoted.keys()
        for result in results(model, 'Results') + results(model, 'Quoted Results'):
            assert all(0 < value < 100 for value in result['Metrics'].values())


def test_what_was_measured_is_the_mean_of_the_reported_rows() -> None:
    rows = json.loads((ROOT / 'benchmarks/results/adaptation.json').read_text())
    measured = [model for model in MODELS if results(model, 'Results')]
    assert len(measured) == 2 * len(DRAWN) * (len(DRAWN) - 1)
    for model in measured:
        method, _, direction = model['Name'].rpartition('_')
        source, target = direction.split('2')
        own = [
            row
            for row in rows
            if (row['method'], row['source'], row['target']) == (method, source, target)
        ]
        assert [row['world'] for row in own] == [10, 11, 12]
        (result,) = model['Results']
        assert result['Dataset'].startswith(f'SynthPedes {target},')
        for name, value in result['Metrics'].items():
            assert value == pytest.approx(
                statistics.mean(row[name] for row in own), abs=0.006
            )


def test_the_reference_reader_reads_it() -> None:
    load = pytest.importorskip('modelindex.load_model_index').load
    index = load(str(ROOT / 'model-index.yml'))
    assert [model.name for model in index.models] == [m['Name'] for m in MODELS]
