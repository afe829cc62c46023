"""Read the file of a checkpoint without running anything in it."""

from __future__ import annotations

import os
import pickle
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

from gckd_mm.checkpoint.archive import is_archive, verify_archive
from gckd_mm.checkpoint.foreign import convert_call
from gckd_mm.checkpoint.safetensors_files import SUFFIX, read_safetensors
from gckd_mm.checkpoint.structure import check_structure
from gckd_mm.checkpoint.unverifiable import say_not_verifiable
from gckd_mm.checkpoint.weights import listed
from gckd_mm.errors import CheckpointError

#: before the name of weights that come with the package
PACKAGED = 'gckd_mm://'
PACKAGED_FOLDER = Path(__file__).parents[1] / 'pretrained'

#: words of torch's advice to switch its protection off
_ADVICE = ('weights_only', 'safe_globals', 'allowlist', 'torch.load')
_STATISTICS = ('min', 'max', 'current', 'mean')
#: what lies in the place of a file that was not fetched: its beginning -> its name
_STAND_INS = {
    b'version https://git-lfs': 'a pointer of git LFS, without the file: run git lfs '
    'pull where it was cloned',
    b'<!doctype html': 'a web page, not a checkpoint: download the file itself',
    b'<html': 'a web page, not a checkpoint: download the file itself',
}


def read_checkpoint(
    path: str | os.PathLike[str], map_location: Any = 'cpu'
) -> dict[str, Any]:
    """Read a checkpoint of mmengine's form: tensors, plain values, log histories.

    Unlike mmengine's own loader it never falls back to unpickling arbitrary objects,
    and it verifies the checksums that the file holds before anything is read of it.

    Args:
        path: The file, of torch or ``.safetensors``, or ``gckd_mm://<name>`` for
            weights that come with the package.
        map_location: As in :func:`torch.load`.

    Raises:
        CheckpointError: If the file is missing, damaged, no checkpoint, holds a class
            that is not on the list (the class is named and not executed), or parts of
            another type than a checkpoint's.
    """
    path = local_path(path)
    check_regular_file(path)
    try:
        # One descriptor for all: a training that replaces the file is not met halfway.
        with open(path, 'rb') as file:
            _refuse_stand_in(file, path)
            if path.endswith(SUFFIX):
                checkpoint = read_safetensors(path, map_location)
            else:
                checkpoint = _read_torch(file, path, map_location)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f'{path}: cannot be read ({reason})') from error
    check_structure(checkpoint, path, os.path.getsize(path))
    # `Runner.resume` would execute this key, of mmcv 1.x, as Python code.
    checkpoint.get('meta', {}).pop('config', None)
    return checkpoint


def check_regular_file(path: str) -> None:
    """Refuse what cannot be read as a file, without opening it: a FIFO would block."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise CheckpointError(
                f'{path}: cannot be read ({error.strerror})'
            ) from error
        raise CheckpointError(
            f'checkpoint {path} does not exist: name a file that tools/train.py wrote '
            f'(work_dirs/<config>/iter_<n>.pth), or set load_from=None to train from '
            f'scratch'
        ) from error
    if stat.S_ISDIR(mode):
        hint = 'name a checkpoint in it (iter_<n>.pth)'
        if os.path.isfile(os.path.join(path, 'config.json')):
            hint = f'of transformers? {convert_call("hf", path)}'
        raise CheckpointError(f'{path}: is a folder, not a checkpoint: {hint}')
    if not stat.S_ISREG(mode):
        raise CheckpointError(f'{path}: is no regular file, but a FIFO or a device')


def local_path(path: str | os.PathLike[str]) -> str:
    """Return where a checkpoint lies: ``gckd_mm://<name>`` is inside the package."""
    path = os.fspath(path)
    if not path.startswith(PACKAGED):
        return os.path.expanduser(path)
    files = {file.stem: file for file in PACKAGED_FOLDER.glob('*.pth')}
    name = path.removeprefix(PACKAGED)
    if name not in files:
        raise CheckpointError(
            f'{path}: the package has no such weights, only '
            f'{listed(PACKAGED + stem for stem in files)}'
        )
    return str(files[name])


def use_strict_loading() -> None:
    """Make mmengine read checkpoints through :func:`read_checkpoint` and no other way.

    Its loaders for addresses (``https://``, ``s3://``, …) would unpickle anything; they
    are replaced by an error that asks for a download. For programs of ours only:
    importing ``gckd_mm`` must not change how other people's configs load theirs.
    """
    for prefix in set(CheckpointLoader._schemes) - {PACKAGED}:
        loader = _refuse_address if prefix else _load_from_local
        CheckpointLoader.register_scheme(prefixes=prefix, loader=loader, force=True)


def _load_from_local(filename: str, map_location: Any) -> dict[str, Any]:
    return read_checkpoint(filename, map_location)


def _refuse_address(filename: str, map_location: Any) -> dict[str, Any]:
    raise CheckpointError(
        f'{filename}: only files are read; download it, and name the file'
    )


def _refuse_stand_in(file: BinaryIO, path: str) -> None:
    head = file.read(512).lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    for begin, what in _STAND_INS.items():
        if head.startswith(begin):
            raise CheckpointError(f'{path}: is {what}')


def _read_torch(file: BinaryIO, path: str, map_location: Any) -> Any:
    try:
        _verify(file, path)
        file.seek(0)
        with torch.serialization.safe_globals(_allowed_globals()):
            return torch.load(
                file, map_location=map_location, weights_only=True, mmap=False
            )
    except (CheckpointError, OSError):
        raise
    # A damaged pickle raises almost anything. The text of torch advises to unpickle it
    # with weights_only=False: it goes no further, not as the cause either.
    except Exception as error:
        failure = _explained(path, error)
    raise failure


def _verify(file: BinaryIO, path: str) -> None:
    if not is_archive(file):
        say_not_verifiable(path, 'the format of torch before 1.6 has no checksums')
        return
    archive = verify_archive(file, path)
    if any(name.endswith('/constants.pkl') for name in archive.entries):
        raise CheckpointError(
            f'{path}: is an archive of TorchScript, such as OpenAI publishes its CLIP '
            f'in: {convert_call("openai-clip", path)}'
        )
    if not archive.is_verified:
        say_not_verifiable(
            path, 'it was saved without checksums (set_crc32_options(False))'
        )


def _allowed_globals() -> list[Any]:
    core = np._core if hasattr(np, '_core') else np.core
    return [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        core.multiarray._reconstruct,
        core.multiarray.scalar,
        *{type(np.dtype(name)) for name in ('f4', 'f8', 'i4', 'i8', 'u4', 'b1')},
        # A log history pickles its methods as getattr(HistoryBuffer, 'mean').
        (_statistic, 'builtins.getattr'),
    ]


def _statistic(owner: Any, name: str) -> Callable:
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {name!r} refused')
    return getattr(owner, name)


def _explained(path: str, error: Exception) -> CheckpointError:
    found = re.search(r'GLOBAL ([\w.]+)', str(error))
    if isinstance(error, pickle.UnpicklingError) and found is not None:
        return CheckpointError(
            f'{path}: refused, because it holds {found.group(1)}, which could run code '
            f'when loaded. Nothing was executed. Convert it where you trust it: '
            f"torch.save(dict(state_dict=model.state_dict()), 'weights.pth')"
        )
    found = re.search(r'WeightsUnpickler error: ([^\n]+)', str(error))
    reason = found.group(1) if found else str(error).partition('\n')[0]
    if not reason or any(word in reason for word in _ADVICE):
        reason = type(error).__name__
    return CheckpointError(
        f'{path}: truncated, or not a checkpoint of torch ({reason})'
    )
