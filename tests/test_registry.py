"""Our components, from anybody's config."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mmcv.transforms import Resize
from mmengine import registry as root
from mmpretrain.models.necks import LinearNeck

from gckd_mm import datasets, models, registry
from gckd_mm.datasets import samplers, transforms
from gckd_mm.engine import hooks, loops, schedulers
from gckd_mm.evaluation import metrics

ROOT = Path(__file__).resolve().parents[1]
#: root registry -> what a user may write into a config; the rest is for Python
COMPONENTS = {
    'DATASETS': sorted({*datasets.__all__} - {'Draw', 'collate_person_text'}),
    'DATA_SAMPLERS': sorted({*samplers.__all__} - {'DrawSampler'}),
    'FUNCTIONS': ['collate_person_text'],
    'TRANSFORMS': transforms.__all__,
    'MODELS': models.__all__,
    'HOOKS': hooks.__all__,
    'LOOPS': loops.__all__,
    'PARAM_SCHEDULERS': schedulers.__all__,
    'METRICS': sorted({*metrics.__all__} - {'Embeddings'}),
}
CONFIG = """
default_scope = 'mmengine'
custom_imports = dict(imports=['gckd_mm'], allow_failed_imports=False)
backbone = dict(type='gckd_mm.TinyImageEncoder', channels=(8,), blocks=(1,))
"""
STRANGER = """
import json, sys
from mmengine import registry
from mmengine.config import Config

config = Config.fromfile(sys.argv[1])
def find(kind, name):
    component = getattr(registry, kind).get(f'gckd_mm.{name}')
    return f'{component.__module__}.{component.__qualname__}'

found = {
    kind: {name: find(kind, name) for name in names}
    for kind, names in json.loads(sys.argv[2]).items()
}
built = registry.MODELS.build(config.backbone)
print(json.dumps([found, type(built).__name__, built.out_channels]))
"""


def test_a_strangers_config_needs_custom_imports_alone(tmp_path: Path) -> None:
    config = tmp_path / 'config.py'
    config.write_text(CONFIG)

    done = subprocess.run(
        [sys.executable, '-c', STRANGER, str(config), json.dumps(COMPONENTS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    found, built, channels = json.loads(done.stdout.splitlines()[-1])
    for kind, names in COMPONENTS.items():
        for name in names:
            assert found[kind][name].startswith('gckd_mm.'), name
            assert found[kind][name].endswith(f'.{name}'), name
    assert (built, channels) == ('TinyImageEncoder', 8)


def test_ours_are_children_of_mmengines_roots() -> None:
    # A child of mmpretrain's registry would not be found from the root.
    ours = {
        name: value
        for name, value in vars(registry).items()
        if isinstance(value, root.Registry)
    }

    assert COMPONENTS.keys() <= ours.keys()
    for name, child in ours.items():
        assert child.parent is getattr(root, name), name
        assert child.scope == 'gckd_mm'


@pytest.mark.parametrize('name', ['gckd_mm.DualEncodr', 'nobody.DualEncoder'])
def test_a_component_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(KeyError, match=name.rpartition('.')[2]):
        registry.MODELS.build(dict(type=name))


@pytest.mark.parametrize(
    ('kind', 'scope', 'expected'),
    [
        # as written, a name is what galleries of version 0.1 hash
        ('DualEncoder', 'gckd_mm', 'DualEncoder'),
        ('gckd_mm.DualEncoder', 'gckd_mm', 'gckd_mm.DualEncoder'),
        ('mmpretrain.LinearNeck', 'gckd_mm', 'mmpretrain.LinearNeck'),
        (models.DualEncoder, 'gckd_mm', 'DualEncoder'),
        ('gckd_mm.models.DualEncoder', 'gckd_mm', 'DualEncoder'),
        (models.DualEncoder, None, 'gckd_mm.DualEncoder'),
        ('gckd_mm.models.DualEncoder', 'mmpretrain', 'gckd_mm.DualEncoder'),
        (Resize, 'gckd_mm', 'Resize'),
        ('mmcv.transforms.Resize', None, 'Resize'),
        (LinearNeck, 'gckd_mm', 'mmpretrain.LinearNeck'),
        (LinearNeck, 'mmpretrain', 'LinearNeck'),
    ],
)
def test_a_class_is_written_as_a_config_of_names_writes_it(
    kind: Any, scope: str | None, expected: str
) -> None:
    assert registry.short_type(kind, scope) == expected
