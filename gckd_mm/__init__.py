"""Graph-based cross-domain knowledge distillation for text-to-image person retrieval.

Importing the package checks the OpenMMLab stack and opens the registries of scope
``gckd_mm``; the components are imported when a registry first looks for one.
"""

from gckd_mm import compat, moved_modules

compat.apply()
moved_modules.apply()

from gckd_mm import checkpoint, registry  # noqa: E402 - checkpoint: gckd_mm:// paths
from gckd_mm.version import __version__  # noqa: E402

__all__ = ['__version__', 'checkpoint', 'registry']
