"""Registries of scope ``gckd_mm``: children of mmengine's roots.

A component is found as ``type='DualEncoder'`` in our own configs (``default_scope =
'gckd_mm'``) and as ``type='gckd_mm.DualEncoder'`` from any other, once
``custom_imports = dict(imports=['gckd_mm'])`` has run. The parents are mmengine's
registries and not mmpretrain's, because a grandchild is not found from the root.

The registries that hold nothing of ours are there because mmengine warns, whenever it
builds an optimiser, about a scope without them.
"""

from typing import Any

from mmengine import registry as root
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.registry import Registry

_SCOPE = 'gckd_mm'


def _child(parent: Registry, location: str = 'gckd_mm') -> Registry:
    return Registry(parent.name, parent=parent, scope=_SCOPE, locations=[location])


DATASETS = _child(root.DATASETS, 'gckd_mm.datasets')
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, 'gckd_mm.datasets.samplers')
TRANSFORMS = _child(root.TRANSFORMS, 'gckd_mm.datasets.transforms')
MODELS = _child(root.MODELS, 'gckd_mm.models')
FUNCTIONS = _child(root.FUNCTIONS, 'gckd_mm.datasets.collate')
HOOKS = _child(root.HOOKS, 'gckd_mm.engine.hooks')
LOOPS = _child(root.LOOPS, 'gckd_mm.engine.loops')
METRICS = _child(root.METRICS, 'gckd_mm.evaluation.metrics')
PARAM_SCHEDULERS = _child(root.PARAM_SCHEDULERS, 'gckd_mm.engine.schedulers')

EVALUATOR = _child(root.EVALUATOR)
LOG_PROCESSORS = _child(root.LOG_PROCESSORS)
MODEL_WRAPPERS = _child(root.MODEL_WRAPPERS)
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS)
OPTIM_WRAPPER_CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS)
OPTIMIZERS = _child(root.OPTIMIZERS)
RUNNERS = _child(root.RUNNERS)
VISBACKENDS = _child(root.VISBACKENDS)
VISUALIZERS = _child(root.VISUALIZERS)


def type_name(kind: Any) -> str:
    """Return the name of a component's class, without scope and module.

    Args:
        kind: The ``type`` of a config in any form that mmengine takes: a class or a
            function, ``'Name'``, ``'scope.Name'``, a dotted path, or what stands for an
            import in a pure-Python config.
    """
    if isinstance(kind, LazyObject | LazyAttr):
        kind = str(kind)
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rpartition('.')[2]


def short_type(kind: Any, scope: str | None) -> str:
    """Return the ``type`` of a component as a config of strings writes it.

    Args:
        kind: See :func:`type_name`. A name with a scope or without one stays.
        scope: The ``default_scope`` of the config.

    Returns:
        ``'Name'`` for a component of that scope, of mmcv or of mmengine;
        ``'package.Name'`` for others.
    """
    if isinstance(kind, LazyObject | LazyAttr):
        kind = str(kind)
    if not isinstance(kind, str):
        kind = f'{kind.__module__}.{kind.__name__}'
    package, _, path = kind.partition('.')
    if '.' not in path:
        return kind
    name = type_name(path)
    return name if package in (scope, 'mmcv', 'mmengine') else f'{package}.{name}'


def type_of(registry: Registry, kind: Any) -> type | None:
    """Return the class that the ``type`` of a config stands for."""
    if isinstance(kind, LazyObject | LazyAttr):
        kind = kind.build()
    found = registry.get(kind) if isinstance(kind, str) else kind
    return found if isinstance(found, type) else None
