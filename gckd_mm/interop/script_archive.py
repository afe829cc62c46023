"""Read the tensors of a TorchScript archive, and none of its code."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import IO, Any

import torch
from torch import Tensor

from gckd_mm.errors import CheckpointError

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
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith('/constants.pkl') for name in archive.namelist())


def read_script_archive(path: str) -> dict[str, Tensor]:
    """Read the weights that OpenAI publishes: they come as TorchScript.

    ``torch.jit.load`` would run what is in the file. Here modules are taken for bare
    holders of their tensors, whatever their class, and every other class is refused.

    Args:
        path: The archive.

    Returns:
        Name -> tensor, plain tensor attributes included.

    Raises:
        CheckpointError: If it is damaged, or holds anything but modules, tensors and
            plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(n for n in archive.namelist() if n.endswith('/constants.pkl'))
            root = root.removesuffix('constants.pkl')
            with archive.open(f'{root}data.pkl') as file:
                module = _Unpickler(file, archive, root).load()
        return dict(_tensors_of(module, ''))
    except _Refused as error:
        raise CheckpointError(
            f'{path}: refused ({error}). Nothing was executed'
        ) from error
    # A damaged pickle raises almost anything.
    except Exception as error:
        raise CheckpointError(
            f'{path}: truncated, or not an archive of TorchScript ({error!r})'
        ) from error


class _Module:
    """Stands in for every module: its attributes, and no method."""


class _Refused(pickle.UnpicklingError):
    pass


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive = archive
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
        data = self._archive.read(f'{self._root}data/{key}')
        if not data:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(data), dtype=dtype)


def _rebuild_tensor(
    storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any
) -> Tensor:
    return storage.as_strided(size, stride, offset).clone()


def _tensors_of(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, _Module):
        for key, part in vars(value).items():
            yield from _tensors_of(part, f'{name}.{key}' if name else key)
