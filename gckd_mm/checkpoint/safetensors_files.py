"""Checkpoints as safetensors: tensors, and plain values as JSON beside them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from gckd_mm.checkpoint.unverifiable import say_not_verifiable
from gckd_mm.errors import CheckpointError, InputError

SUFFIX = '.safetensors'
#: of safetensors' own metadata, which holds strings alone
_META = 'gckd_mm'
_DIGEST = 'gckd_mm.sha256'
#: a digest under another name is one whose name is damaged
_HEX = re.compile('[0-9a-f]{64}')
_THREADS = 8


def read_safetensors(path: str, map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a file of safetensors as a checkpoint.

    The format has no checksum. Files of :func:`safetensors_bytes` carry one, which is
    verified; of others it is logged once that they are not verifiable.
    """
    safetensors = _package()
    try:
        with safetensors.safe_open(path, 'pt', device='cpu') as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        meta = json.loads(metadata.get(_META, '{}'))
    except (
        safetensors.SafetensorError,
        ValueError,
        OSError,
        RecursionError,
        # Element types that torch does not have.
        AttributeError,
        KeyError,
        TypeError,
        RuntimeError,
    ) as error:
        raise CheckpointError(
            f'{path}: truncated, or not a file of safetensors ({error})'
        ) from error
    if not isinstance(meta, dict):
        raise CheckpointError(
            f'{path}: its metadata {_META!r} must be a JSON object, got '
            f'{type(meta).__name__}'
        )
    digest = metadata.get(_DIGEST)
    if digest is None and not any(map(_HEX.fullmatch, metadata.values())):
        say_not_verifiable(
            path, 'safetensors has no checksums, and it was not written by gckd_mm'
        )
    elif digest != _digest(tensors, metadata.get(_META)):
        raise CheckpointError(
            f'{path}: damaged: its bytes are not those that were written (SHA-256): '
            f'copy or download it again'
        )
    return {
        'state_dict': {key: _moved(v, map_location) for key, v in tensors.items()},
        'meta': meta,
    }


def safetensors_bytes(
    tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None
) -> bytes:
    """Return the contents of a file of safetensors."""
    _package()
    from safetensors.torch import save

    metadata = {'format': 'pt'}
    if meta is not None:
        metadata[_META] = json.dumps(dict(meta))
    copies = {
        key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()
    }
    metadata[_DIGEST] = _digest(copies, metadata.get(_META))
    return save(copies, metadata)


def _digest(tensors: Mapping[str, Tensor], meta: str | None) -> str:
    """Return the SHA-256 of names, types, shapes and bytes, and of the metadata."""
    names = sorted(tensors)
    # hashlib works outside of Python's global lock.
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        hashes = threads.map(_hash, (tensors[name] for name in names))
        described = [
            [name, str(tensors[name].dtype), list(tensors[name].shape), found]
            for name, found in zip(names, hashes, strict=True)
        ]
    return hashlib.sha256(json.dumps([described, meta]).encode()).hexdigest()


def _hash(tensor: Tensor) -> str:
    if not tensor.numel():
        return ''
    numbers: Any = tensor.contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(numbers).hexdigest()


def _moved(value: Tensor, map_location: Any) -> Tensor:
    if map_location is None or callable(map_location):
        return value
    return value.to(map_location)


def _package() -> Any:
    try:
        import safetensors
    except ModuleNotFoundError as error:
        raise InputError(
            'this needs the package safetensors: pip install safetensors'
        ) from error
    return safetensors
