"""Registering everything at once; mmengine's hub, which asks for it: test_packaging."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from mmengine import DefaultScope

from gckd_mm.utils import register_all_modules


@pytest.fixture(autouse=True)
def _same_scope_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        DefaultScope, '_instance_dict', type(DefaultScope._instance_dict)()
    )


def current() -> str | None:
    scope = DefaultScope.get_current_instance()
    return scope and scope.scope_name


def test_all_components_are_registered(tmp_path: Path) -> None:
    code = """if True:
        import json
        from mmengine.registry import Registry
        from gckd_mm import registry
        from gckd_mm.utils import register_all_modules
        register_all_modules()
        registries = vars(registry).values()
        found = [r for r in registries if isinstance(r, Registry)]
        print(json.dumps([name for r in found for name in r.module_dict]))
    """
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    names = set(json.loads(done.stdout.splitlines()[-1]))
    assert names >= {
        *('GCKD', 'MMDHead', 'GraphPropagationNeck', 'WordPieceTokenizer'),
        *('CUHKPEDES', 'CrossDomainSampler', 'RandomWordMask', 'collate_person_text'),
        *('AdaptationHook', 'TwoStageTrainLoop', 'AdaptationLR'),
        'PersonRetrievalMetric',
    }


def test_the_scope_becomes_ours_unless_that_is_turned_off() -> None:
    register_all_modules(init_default_scope=False)
    assert current() is None
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        register_all_modules()
        register_all_modules()
    assert current() == 'gckd_mm'


def test_another_scope_is_replaced_with_a_warning() -> None:
    DefaultScope.get_instance('theirs', scope_name='mmpretrain')
    register_all_modules(init_default_scope=False)
    assert current() == 'mmpretrain'
    with pytest.warns(UserWarning, match='"mmpretrain" is not "gckd_mm"'):
        register_all_modules()
    assert current() == 'gckd_mm'
    # a second time from yet another
    DefaultScope.get_instance('theirs again', scope_name='mmpretrain')
    with pytest.warns(UserWarning, match='init_default_scope=False'):
        register_all_modules()
    assert current() == 'gckd_mm'
