"""The checks of the stack say what is wrong and what to install."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import pytest
from mmengine.config import Config

from gckd_mm import compat


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Let packages have these versions in their files, and distributions those."""

    def pretend(found: dict[str, str], promised: dict[str, str]) -> None:
        for name, version in found.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / 'version.py').write_text(f"__version__ = '{version}'\n")

        def find_spec(name: str) -> ModuleSpec | None:
            return PathFinder.find_spec(name, [str(tmp_path)] if name in found else [])

        def version(name: str) -> str:
            if name not in promised:
                raise metadata.PackageNotFoundError(name)
            return promised[name]

        monkeypatch.setattr(compat, 'find_spec', find_spec)
        monkeypatch.setattr(compat.metadata, 'version', version)

    return pretend


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


def test_forks_and_upstream_pass(pretend: Callable[..., None]) -> None:
    pretend(FORKS, PROMISED)
    compat.check_versions()
    pretend(UPSTREAM, {})
    compat.check_versions()


@pytest.mark.parametrize('missing', FORKS)
def test_missing_package(pretend: Callable[..., None], missing: str) -> None:
    found = {name: version for name, version in FORKS.items() if name != missing}
    pretend(found, PROMISED)
    with pytest.raises(ImportError, match=rf'needs {missing},.*pip install') as error:
        compat.check_versions()
    assert 'gckd-mm[mm]' in str(error.value)


def test_fork_overwritten_by_upstream(pretend: Callable[..., None]) -> None:
    pretend({**FORKS, 'mmengine': '0.10.7'}, PROMISED)
    with pytest.raises(ImportError, match=r'overwritten.*pip uninstall -y mmengine'):
        compat.check_versions()


def test_too_old(pretend: Callable[..., None]) -> None:
    pretend({**UPSTREAM, 'mmcv': '2.0.1'}, {})
    with pytest.raises(ImportError, match=r'needs mmcv >= 2\.1\.0, found 2\.0\.1'):
        compat.check_versions()
    pretend({**FORKS, 'torch': '2.5.1+cpu'}, PROMISED)
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


def test_the_files_of_a_fork_may_ask_their_distribution(
    pretend: Callable[..., None], tmp_path: Path
) -> None:
    pretend(FORKS, PROMISED)
    version = tmp_path / 'mmengine' / 'version.py'
    version.write_text("__version__ = version('onedl-mmengine')\n")

    compat.check_versions()

    pretend({**FORKS, 'torch': '2.5.0'}, PROMISED)
    with pytest.raises(ImportError, match='torch'):
        compat.check_versions()


def _run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_gckd_mm_imports_nothing_of_the_stack() -> None:
    stack = "('torch', 'torchvision', 'numpy', 'mmengine', 'mmcv', 'mmpretrain')"

    assert _run(f'import gckd_mm, sys; print({{*{stack}}} & {{*sys.modules}})') == (
        'set()'
    )


@pytest.mark.parametrize(
    'program',
    [
        'import gckd_mm; import mmengine',
        'import gckd_mm.registry; import mmengine',
        'import gckd_mm; from mmengine.registry import MODELS',
        'from mmengine.runner import Runner; import gckd_mm',
        'import gckd_mm.checkpoint',
        'import gckd_mm.evaluation',
    ],
)
def test_mmengine_knows_the_package_in_any_order_of_imports(program: str) -> None:
    found = _run(
        f"""{program}
import gckd_mm
from mmengine.config import Config, utils
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import CheckpointLoader
print(
    utils.MODULE2PACKAGE['gckd_mm'], Config.pretty_text.fget.remembers,
    MODELS.get('gckd_mm.DualEncoder') is gckd_mm.registry.MODELS.get('DualEncoder'),
)
weights = CheckpointLoader.load_checkpoint('gckd_mm://gckd_street2mall')
print(*weights)
"""
    ).splitlines()

    assert 'state_dict' in found[-1].split()
    assert 'gckd_mm True True' in found


def test_mmpretrains_datasets_are_imported_in_silence() -> None:
    assert _run('import gckd_mm; import mmpretrain.datasets') == ''


@pytest.mark.parametrize('first', ['', 'import torchvision; '])
def test_a_torchvision_without_its_operators_is_imported(first: str) -> None:
    torchvision = _run(
        f'import gckd_mm; {first}import mmpretrain.models; import torchvision; '
        'print(torchvision.__name__, torchvision.__version__)'
    )

    assert torchvision.splitlines()[-1].startswith('torchvision ')


def test_a_healthy_torchvision_is_left_alone() -> None:
    executed: list[int] = []
    before = compat._torchvision_library

    compat.import_torchvision(lambda: executed.append(1))

    assert executed == [1]
    assert compat._torchvision_library is before


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
