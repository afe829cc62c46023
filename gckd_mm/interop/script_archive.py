"""Read the tensors of a TorchScript archive, and none of its code."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import torch
from torch import Tensor

from gckd_mm.checkpoint.archive import (
    Archive,
    is_archive,
    read_entry,
    verify_archive,
)
from gckd_mm.checkpoint.unverifiable import say_not_verifiable
from gckd_mm.errors import CheckpointError

_MARK = 'constants.pkl'

_DTYPES = {
    'BFloat16Storage': torch.bfloat16,
    'BoolStorage': torch.bool,
    'ByteStorage': torch.uint8,
    'DoubleStorage': torch.float64,
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'IntStorage': torch.int32,
    'LongStorage': torch.int64,
}


def is_script_archive(path: str) -> bool:
    """Return whether a file is an archive of ``torch.jit.save``."""
    with open(path, 'rb') as file:
        return is_archive(file) and _root_of(verify_archive(file, path)) is not None


def read_script_archive(path: str) -> dict[str, Tensor]:
    """Read the weights that OpenAI publishes: they come as TorchScript.

    ``torch.jit.load`` would run what is in the file. Here modules are taken for bare
    holders of their tensors, whatever their class, and every other class is refused.
    """
    try:
        with open(path, 'rb') as file:
            archive = verify_archive(file, path)
            module = _Unpickler(file, archive, _root_of(archive) or '').load()
        found = dict(_tensors_of(module, ''))
    except CheckpointError:
        raise
    except _Refused as error:
        raise CheckpointError(
            f'{path}: refused ({error}). Nothing was executed'
        ) from error
    # A damaged pickle raises almost anything.
    except Exception as error:
        raise CheckpointError(
            f'{path}: truncated, or not an archive of TorchScript ({error!r})'
        ) from error
    if not archive.is_verified:
        say_not_verifiable(path, 'it was saved without checksums')
    return found


def _root_of(archive: Archive) -> str | None:
    """Return what is before the names of a TorchScript archive; None of another."""
    marks = [name for name in archive.entries if name.endswith(f'/{_MARK}')]
    return marks[0].removesuffix(_MARK) if marks else None


class _Module:
    """Stands in for every module: its attributes, and no method."""


class _Refused(pickle.UnpicklingError):
    pass


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, archive: Archive, root: str) -> None:
        super().__init__(io.BytesIO(read_entry(file, archive, f'{root}data.pkl')))
        self._file = file
        self._archive = archive
        self._storages: dict[str, Tensor] = {}
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        if module.split('.')[0] == '__torch__':
            return _Module
        if module == 'torch' and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return _rebuild_tensor
        if (module, name) == ('collections', 'OrderedDict'):
            return OrderedDict
        if module == 'torch.jit._pickle' and name.startswith('build_'):
            return list  # build_intlist and its like: lists of plain values
        raise _Refused(f'holds {module}.{name}')

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, _ = pid
        if key not in self._storages:
            data = read_entry(self._file, self._archive, f'{self._root}data/{key}')
            self._storages[key] = (
                torch.frombuffer(bytearray(data), dtype=dtype)
                if data
                else torch.empty(0, dtype=dtype)
            )
        return self._storages[key]


def _rebuild_tensor(
    storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any
) -> Tensor:
    view = storage.as_strided(size, stride, offset)
    if view.numel() > storage.numel():
        raise _Refused(f'a tensor of shape {tuple(size)} on {storage.numel()} numbers')
    return view.clone()


def _tensors_of(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, _Module):
        for key, part in vars(value).items():
            yield from _tensors_of(part, f'{name}.{key}' if name else key)
