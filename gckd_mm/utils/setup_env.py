"""Register all components at once, as other OpenMMLab packages offer it."""

from __future__ import annotations

import warnings
from datetime import datetime

from mmengine import DefaultScope
from mmengine.registry import Registry

from gckd_mm import registry

_SCOPE = 'gckd_mm'


def register_all_modules(init_default_scope: bool = True) -> None:
    """Import all components, so that the registries hold them.

    A runner does without: the registries import what they hold when they are first
    looked into.

    Args:
        init_default_scope: Whether types without a scope are ours from then on
            (``default_scope = 'gckd_mm'``). If another scope is current, a warning says
            that it is replaced. Defaults to True.
    """
    for found in vars(registry).values():
        if isinstance(found, Registry):
            found.import_from_location()
    if not init_default_scope:
        return
    current = DefaultScope.get_current_instance()
    if current is None:
        DefaultScope.get_instance(_SCOPE, scope_name=_SCOPE)
    elif current.scope_name != _SCOPE:
        warnings.warn(
            f'The current default scope "{current.scope_name}" is not "{_SCOPE}": '
            f'`register_all_modules` replaces it. To keep it, set '
            f'`init_default_scope=False`.',
            stacklevel=2,
        )
        # an instance of the same name would be the earlier one
        name = f'{_SCOPE}-{datetime.now()}'
        DefaultScope.get_instance(name, scope_name=_SCOPE)
