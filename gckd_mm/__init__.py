"""Graph-based cross-domain knowledge distillation for text-to-image person retrieval.

Importing the package checks the OpenMMLab stack and imports nothing of it. The
registries of scope ``gckd_mm`` and the paths ``gckd_mm://`` are there as soon as
mmengine is; a component is imported when a registry first looks for it.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

from gckd_mm import compat, moved_modules
from gckd_mm.import_hooks import after_import
from gckd_mm.version import __version__

__all__ = ['__version__', 'checkpoint', 'registry']


def __getattr__(name: str) -> ModuleType:
    if name in ('checkpoint', 'registry'):
        return import_module(f'gckd_mm.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def _register_packaged_weights() -> None:
    from mmengine.runner.checkpoint import CheckpointLoader

    def load(filename: str, map_location: Any) -> dict[str, Any]:
        from gckd_mm.checkpoint import read_checkpoint

        return read_checkpoint(filename, map_location)

    # a prefix that is ours alone: nobody else's loading changes
    CheckpointLoader.register_scheme(prefixes='gckd_mm://', loader=load, force=True)


compat.apply()
moved_modules.apply()
after_import('mmengine', lambda: import_module('gckd_mm.registry'))
after_import('mmengine.runner.checkpoint', _register_packaged_weights)
