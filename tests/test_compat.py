"""The checks of the stack say what is wrong and what to install."""

from __future__ import annotations

import importlib
import sys
import types
from importlib import metadata

import pytest
from mmengine.config import Config

from gckd_mm import compat


def _pretend(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, str], promised: dict[str, str]
) -> None:
    """Let modules have these versions, and distributions those."""

    def import_module(name: str) -> types.SimpleNamespace:
        if name not in found:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
        return types.SimpleNamespace(__version__=found[name])

    def version(name: str) -> str:
        if name not in promised:
            raise metadata.PackageNotFoundError(name)
        return promised[name]

    monkeypatch.setattr(compat.importlib, 'import_module', import_module)
    monkeypatch.setattr(compat.metadata, 'version', version)


FORKS = {
    'torch': '2.6.0',
    'mmengine': '0.10.12',
    'mmcv': '2.3.6',
    'mmpretrain': '1.3.6',
}
PROMISED = {f'onedl-{name}': version for name, version in list(FORKS.items())[1:]}
UPSTREAM = {
    'torch': '2.13.0+cpu',
    'mmengine': '0.10.7',
    'mmcv': '2.2.0',
    'mmpretrain': '1.2.0',
}


def test_forks_and_upstream_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, FORKS, PROMISED)
    compat.check_versions()
    _pretend(monkeypatch, UPSTREAM, {})
    compat.check_versions()


@pytest.mark.parametrize('missing', FORKS)
def test_missing_package(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    found = {name: version for name, version in FORKS.items() if name != missing}
    _pretend(monkeypatch, found, PROMISED)
    with pytest.raises(ImportError, match=rf'needs {missing},.*pip install') as error:
        compat.check_versions()
    assert 'gckd-mm[mm]' in str(error.value)


def test_fork_overwritten_by_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, {**FORKS, 'mmengine': '0.10.7'}, PROMISED)
    with pytest.raises(ImportError, match=r'overwritten.*pip uninstall -y mmengine'):
        compat.check_versions()


def test_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, {**UPSTREAM, 'mmcv': '2.0.1'}, {})
    with pytest.raises(ImportError, match=r'needs mmcv >= 2\.1\.0, found 2\.0\.1'):
        compat.check_versions()
    _pretend(monkeypatch, {**FORKS, 'torch': '2.5.1+cpu'}, PROMISED)
    with pytest.raises(ImportError, match=r'needs torch >= 2\.6, found 2\.5\.1'):
        compat.check_versions()


@pytest.mark.parametrize(
    ('text', 'numbers'),
    [
        ('2.13.0+cpu', (2, 13, 0)),
        ('2.13.0a0+git1', (2, 13, 0)),
        ('1.2.0rc1', (1, 2, 0)),
        ('10', (10,)),
    ],
)
def test_parse(text: str, numbers: tuple[int, ...]) -> None:
    assert compat._parse(text) == numbers


def test_a_real_import_error_inside_a_package_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def import_module(name: str) -> None:
        raise ModuleNotFoundError("No module named 'addict'", name='addict')

    monkeypatch.setattr(compat.importlib, 'import_module', import_module)
    with pytest.raises(ModuleNotFoundError, match='addict'):
        compat.check_versions()


def test_torchvision_imports_and_a_healthy_one_is_left_alone() -> None:
    torchvision = importlib.import_module('torchvision')
    compat.make_torchvision_importable()
    assert sys.modules['torchvision'] is torchvision


def test_configs_are_formatted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import yapf.yapflib.yapf_api as yapf_api

    calls = []
    original = yapf_api.FormatCode
    monkeypatch.setattr(
        yapf_api, 'FormatCode', lambda *a, **k: (calls.append(1), original(*a, **k))[1]
    )
    cfg = Config(dict(something_new=dict(a=1)))
    first = cfg.pretty_text
    assert cfg.pretty_text == first == 'something_new = dict(a=1)\n'
    assert len(calls) == 1
    cfg.something_new.a = 2
    assert cfg.pretty_text == 'something_new = dict(a=2)\n'
    assert len(calls) == 2
