"""Checkpoints as safetensors: tensors, and plain values as JSON beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gckd_mm.errors import CheckpointError, InputError

SUFFIX = '.safetensors'
#: of safetensors' own metadata, which holds strings alone
_META = 'gckd_mm'


def read_safetensors(path: str, map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a file of safetensors as a checkpoint.

    Args:
        path: The file.
        map_location: The device, such as ``'cpu'``.

    Returns:
        ``state_dict``, and ``meta`` if :func:`safetensors_bytes` wrote one.

    Raises:
        CheckpointError: If the file is damaged or no safetensors file.
        InputError: If the package is not installed.
    """
    safetensors = _package()
    try:
        with safetensors.safe_open(path, 'pt', device=str(map_location)) as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            meta = json.loads((file.metadata() or {}).get(_META, '{}'))
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f'{path}: truncated, or not a file of safetensors ({error})'
        ) from error
    return {'state_dict': tensors, 'meta': meta}


def safetensors_bytes(
    tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None
) -> bytes:
    """Return the contents of a file of safetensors.

    Args:
        tensors: Name -> tensor; each is stored whole, shared memory or not.
        meta: Values that JSON can hold. Defaults to None.

    Raises:
        InputError: If the package is not installed.
    """
    _package()
    from safetensors.torch import save

    metadata = {'format': 'pt'}
    if meta is not None:
        metadata[_META] = json.dumps(dict(meta))
    copies = {
        key: value.detach().clone().contiguous() for key, value in tensors.items()
    }
    return save(copies, metadata)


def _package() -> Any:
    try:
        import safetensors
    except ModuleNotFoundError as error:
        raise InputError(
            'this needs the package safetensors: pip install safetensors'
        ) from error
    return safetensors
