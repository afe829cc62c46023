"""The one place for third-party quirks: each with its reason and when it can go.

Nothing is imported for them: each is dealt with when its package is first imported.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gckd_mm.import_hooks import after_import, around_import

_INSTALL = "pip install 'gckd-mm[mm]'"
_MINIMUM_TORCH = (2, 6)
_REMEMBERED_CONFIGS = 16

#: import name -> (maintained fork, oldest fork version, oldest upstream version)
_OPENMMLAB = {
    'mmengine': ('onedl-mmengine', (0, 10, 12), (0, 10, 7)),
    'mmcv': ('onedl-mmcv', (2, 3, 6), (2, 1, 0)),
    'mmpretrain': ('onedl-mmpretrain', (1, 3, 6), (1, 2, 0)),
}

_VERSION = re.compile(r"""^__version__(?:: str)? = ['"]([^'"]+)['"]""", re.MULTILINE)

_TORCHVISION_SCHEMAS = (
    'nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    'qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
)
#: kept, because the schemas are gone when their library is
_torchvision_library: Any = None


def apply() -> None:
    """Check the stack, and prepare for what keeps it from importing.

    Raises:
        ImportError: If a package of the stack is missing, too old, or half
            overwritten by another distribution with the same import name.
    """
    check_versions()
    around_import('torchvision', import_torchvision)
    around_import('mmpretrain.datasets', import_quietly)
    after_import('mmengine.config', prepare_configs)


def check_versions() -> None:
    """Check torch, mmengine, mmcv and mmpretrain, and say what to install.

    Raises:
        ImportError: See :func:`apply`.
    """
    _check_oldest('torch', _installed_version('torch', None), _MINIMUM_TORCH)
    for module_name, (fork, oldest_fork, oldest_upstream) in _OPENMMLAB.items():
        promised = _distribution_version(fork)
        found = _installed_version(module_name, promised)
        if promised is None:
            _check_oldest(module_name, found, oldest_upstream)
            continue
        if _parse(promised) != _parse(found):
            raise ImportError(
                f'{fork} {promised} is installed, but the files of {module_name} are '
                f'of {found}: another distribution (such as mmcv-lite, which brings '
                f'upstream mmengine) has overwritten them. Fix it with: '
                f'pip uninstall -y {module_name} mmcv-lite {fork} && {_INSTALL}'
            )
        _check_oldest(module_name, found, oldest_fork)


def _installed_version(module_name: str, promised: str | None) -> str:
    """Read the version in a package's files: importing it would take seconds.

    The forks' files have none, and ask their distribution.
    """
    spec = find_spec(module_name)
    if spec is None:
        raise ImportError(
            f'gckd_mm needs {module_name}, which is not installed: {_INSTALL}'
        )
    for folder in spec.submodule_search_locations or ():
        file = Path(folder) / 'version.py'
        if file.is_file() and (found := _VERSION.search(file.read_text())):
            return found[1]
    return promised or str(importlib.import_module(module_name).__version__)


def _check_oldest(module_name: str, found: str, oldest: tuple[int, ...]) -> None:
    if _parse(found) < oldest:
        raise ImportError(
            f'gckd_mm needs {module_name} >= {_join(oldest)}, found {found}: {_INSTALL}'
        )


def import_torchvision(execute: Callable[[], None]) -> None:
    """Let torchvision import beside a torch that its compiled part does not fit.

    PyPI's torchvision beside a CPU build of torch fails to load its operators and
    then to import (``operator torchvision::nms does not exist``), and takes
    mmpretrain and mmengine's environment report with it. We call none of these
    operators: declaring their schemas is enough. The real import is tried first,
    because declaring clashes with a healthy torchvision. Can go when torchvision
    publishes CPU wheels beside torch's on PyPI.
    """
    global _torchvision_library
    try:
        execute()
    except (RuntimeError, OSError):
        import torch

        for name in [name for name in sys.modules if name.startswith('torchvision.')]:
            del sys.modules[name]
        library = torch.library.Library('torchvision', 'FRAGMENT')
        for schema in _TORCHVISION_SCHEMAS:
            library.define(schema)
        _torchvision_library = library
        execute()


def import_quietly(execute: Callable[[], None]) -> None:
    """Import mmpretrain's datasets, whose first import prints to the user.

    ``Could not import OneDL`` is about an optional data format of the fork's publisher.
    Can go when onedl-mmpretrain logs it at the level it means (debug).
    """
    with contextlib.redirect_stdout(io.StringIO()):
        execute()


def prepare_configs() -> None:
    """Prepare mmengine's configs."""
    declare_config_package()
    format_configs_once()


def declare_config_package() -> None:
    """Let mmengine resolve ``_base_ = 'gckd_mm::...'`` and scope ``gckd_mm``.

    mmengine keeps a closed list of the packages whose configs it reads. Can go
    when it reads any package that ships a ``.mim`` folder.
    """
    from mmengine.config import utils as config_utils

    config_utils.MODULE2PACKAGE.setdefault('gckd_mm', 'gckd_mm')


def format_configs_once() -> None:
    """Remember what a config looks like as text.

    mmengine formats the whole config with yapf for every checkpoint, which takes longer
    than writing a small one. Can go when ``Config.pretty_text`` remembers it.
    """
    from mmengine.config import Config

    pretty_text = Config.pretty_text
    if getattr(pretty_text.fget, 'remembers', False):
        return
    texts: dict[str, str] = {}

    def remembered(config: Config) -> str:
        key = repr((config._format_python_code, config.to_dict()))
        if key not in texts:
            if len(texts) >= _REMEMBERED_CONFIGS:
                texts.clear()
            texts[key] = pretty_text.fget(config)
        return texts[key]

    remembered.remembers = True  # type: ignore[attr-defined]
    Config.pretty_text = property(remembered, doc=pretty_text.__doc__)


def _distribution_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _parse(version: str) -> tuple[int, ...]:
    """Parse the leading numbers of a version: ``2.13.0+cpu`` -> (2, 13, 0)."""
    found = re.match(r'\d+(\.\d+)*', version)
    return tuple(map(int, found.group().split('.'))) if found else ()


def _join(version: tuple[int, ...]) -> str:
    return '.'.join(str(number) for number in version)
