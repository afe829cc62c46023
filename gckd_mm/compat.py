"""The one place for third-party quirks: each with its reason and what ends it."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
from importlib import metadata
from types import ModuleType
from typing import Any

_INSTALL = "pip install 'gckd-mm[mm]'"
_MINIMUM_TORCH = (2, 6)
_REMEMBERED_CONFIGS = 16

#: import name -> (maintained fork, oldest fork version, oldest upstream version)
_OPENMMLAB = {
    'mmengine': ('onedl-mmengine', (0, 10, 12), (0, 10, 7)),
    'mmcv': ('onedl-mmcv', (2, 3, 6), (2, 1, 0)),
    'mmpretrain': ('onedl-mmpretrain', (1, 3, 6), (1, 2, 0)),
}

_TORCHVISION_SCHEMAS = (
    'nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    'qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
)
#: kept, because the schemas are gone when their library is
_torchvision_library: Any = None


def apply() -> None:
    """Check the stack and fix what keeps it from importing. Runs once, at import."""
    check_versions()
    make_torchvision_importable()
    import_mmpretrain_quietly()
    declare_config_package()
    format_configs_once()


def check_versions() -> None:
    """Check torch, mmengine, mmcv and mmpretrain, and say what to install."""
    _check_oldest('torch', _import_version('torch'), _MINIMUM_TORCH)
    for module_name, (fork, oldest_fork, oldest_upstream) in _OPENMMLAB.items():
        found = _import_version(module_name)
        promised = _distribution_version(fork)
        if promised is None:
            _check_oldest(module_name, found, oldest_upstream)
            continue
        if _parse(promised) != _parse(found):
            raise ImportError(
                f'{fork} {promised} is installed, but `import {module_name}` gives '
                f'{found}: another distribution (such as mmcv-lite, which brings '
                f'upstream mmengine) has overwritten its files. Fix it with: '
                f'pip uninstall -y {module_name} mmcv-lite {fork} && {_INSTALL}'
            )
        _check_oldest(module_name, found, oldest_fork)


def _import_version(module_name: str) -> str:
    try:
        return str(importlib.import_module(module_name).__version__)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise ImportError(
            f'gckd_mm needs {module_name}, which is not installed: {_INSTALL}'
        ) from error


def _check_oldest(module_name: str, found: str, oldest: tuple[int, ...]) -> None:
    if _parse(found) < oldest:
        raise ImportError(
            f'gckd_mm needs {module_name} >= {_join(oldest)}, found {found}: {_INSTALL}'
        )


def make_torchvision_importable() -> None:
    """Let torchvision import beside a torch that its compiled part does not fit.

    PyPI's torchvision beside a CPU build of torch fails to load its operators and
    then to import (``operator torchvision::nms does not exist``), and takes
    mmpretrain and mmengine's environment report with it. We call none of these
    operators: declaring their schemas is enough. The real import is tried first,
    because declaring clashes with a healthy torchvision. Ends when torchvision
    publishes CPU wheels beside torch's on PyPI.
    """
    global _torchvision_library
    try:
        importlib.import_module('torchvision')
    except ModuleNotFoundError:
        return
    except (RuntimeError, OSError):
        import torch

        _forget('torchvision')
        library = torch.library.Library('torchvision', 'FRAGMENT')
        for schema in _TORCHVISION_SCHEMAS:
            library.define(schema)
        _torchvision_library = library
        importlib.import_module('torchvision')


def import_mmpretrain_quietly() -> None:
    """Import mmpretrain's datasets, whose first import prints to the user.

    ``Could not import OneDL`` is about an optional data format of the fork's publisher.
    Ends when onedl-mmpretrain logs it at the level it means (debug).
    """
    with contextlib.redirect_stdout(io.StringIO()):
        importlib.import_module('mmpretrain.datasets')


def declare_config_package() -> None:
    """Let mmengine resolve ``_base_ = 'gckd_mm::...'`` and scope ``gckd_mm``.

    mmengine keeps a closed list of the packages whose configs it reads. Ends when
    it reads any package that ships a ``.mim`` folder.
    """
    from mmengine.config import utils as config_utils

    config_utils.MODULE2PACKAGE.setdefault('gckd_mm', 'gckd_mm')


def format_configs_once() -> None:
    """Remember what a config looks like as text.

    mmengine formats the whole config with yapf for every checkpoint, which takes longer
    than writing a small one. Ends when ``Config.pretty_text`` remembers it.
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


def _forget(package: str) -> None:
    modules: dict[str, ModuleType] = sys.modules
    for name in list(modules):
        if name == package or name.startswith(f'{package}.'):
            del modules[name]


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
