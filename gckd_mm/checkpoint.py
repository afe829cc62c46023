"""Read checkpoints without running anything in them, and refuse what does not fit."""

from __future__ import annotations

import os
import pickle
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from gckd_mm.checkpoint_archive import is_archive, verify_archive
from gckd_mm.checkpoint_config import built_from, config_of
from gckd_mm.checkpoint_foreign import convert_call, refuse_foreign
from gckd_mm.checkpoint_resume import check_resumable
from gckd_mm.checkpoint_structure import check_structure, check_tensors
from gckd_mm.checkpoint_values import check_finite, first_non_finite
from gckd_mm.errors import CheckpointError
from gckd_mm.model_wrapper import unwrapped, without_wrapper
from gckd_mm.registry import type_name
from gckd_mm.safetensors_files import SUFFIX, read_safetensors
from gckd_mm.unverifiable import say_not_verifiable
from gckd_mm.work_dir import pointed_checkpoint

__all__ = [
    'ADAPTATION_STEPS',
    'ENCODERS',
    'PACKAGED',
    'PACKAGED_FOLDER',
    'as_tested',
    'built_from',
    'check_finite',
    'check_regular_file',
    'check_resumable',
    'check_state_dict',
    'config_of',
    'encoders_alone',
    'ended_in_source_stage',
    'find_last_checkpoint',
    'first_non_finite',
    'load_weights',
    'local_path',
    'read_checkpoint',
    'refuse_foreign',
    'steps_of_teacher',
    'use_strict_loading',
    'weights_of_encoders',
    'with_teacher',
]

#: before the name of weights that come with the package
PACKAGED = 'gckd_mm://'
PACKAGED_FOLDER = Path(__file__).parent / 'pretrained'
#: the parts of a model's config that embed, whatever else it does in training
ENCODERS = (
    'image_backbone',
    'image_neck',
    'text_backbone',
    'text_neck',
    'data_preprocessor',
)

#: words of torch's advice to switch its protection off
_ADVICE = ('weights_only', 'safe_globals', 'allowlist', 'torch.load')
_STATISTICS = ('min', 'max', 'current', 'mean')
#: where a model with a teacher keeps it, and how often it has moved
_TEACHER = 'teacher.module.'
_TEACHER_STEPS = 'teacher.steps'
#: models that adapt, and before the names of all that only training looks at
_ADAPTING = ('GCKD', 'GCKDWithMatching', 'AdaptedDualEncoder')
_OF_TRAINING = (
    'adaptation.',
    'consistency.',
    'distill.',
    'graph.',
    'heads.',
    'labels.',
    'matching.',
    'memories.',
    'neighbours.',  # of version 0.1
    'teacher.',
)
#: in the meta of models that adapt: steps of the adaptation that the weights have seen
ADAPTATION_STEPS = 'adaptation_steps'


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

    Returns:
        The checkpoint's dict.

    Raises:
        CheckpointError: If the file is missing, damaged, no checkpoint, holds a class
            that is not on the list (the class is named and not executed), or parts of
            another type than a checkpoint's.
    """
    path = local_path(path)
    check_regular_file(path)
    if path.endswith(SUFFIX):
        checkpoint = read_safetensors(path, map_location)
    else:
        checkpoint = _read_torch(path, map_location)
    check_structure(checkpoint, path, os.path.getsize(path))
    # `Runner.resume` would execute this key, of mmcv 1.x, as Python code.
    checkpoint.get('meta', {}).pop('config', None)
    return checkpoint


def check_regular_file(path: str) -> None:
    """Refuse what cannot be read as a file, without opening it: a FIFO would block.

    Raises:
        CheckpointError: If it is missing, a folder, or a device.
    """
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


def _read_torch(path: str, map_location: Any) -> Any:
    try:
        # One descriptor for both: a training that replaces the file is not met halfway.
        with open(path, 'rb') as file:
            _verify(file, path)
            file.seek(0)
            with torch.serialization.safe_globals(_allowed_globals()):
                return torch.load(
                    file, map_location=map_location, weights_only=True, mmap=False
                )
    except CheckpointError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f'{path}: cannot be read ({reason})') from error
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


def _explained(path: str, error: Exception) -> CheckpointError:
    found = re.search(r'GLOBAL ([\w.]+)', str(error))
    if isinstance(error, pickle.UnpicklingError) and found is not None:
        return CheckpointError(
            f'{path}: refused, because it holds {found.group(1)}, which could run code '
            f'when loaded. Nothing was executed. Convert it where you trust it: '
            f"torch.save(dict(state_dict=model.state_dict()), 'weights.pth')"
        )
    return _damaged(path, error)


def local_path(path: str | os.PathLike[str]) -> str:
    """Return where a checkpoint lies: ``gckd_mm://<name>`` is inside the package.

    Raises:
        CheckpointError: If the package has no weights of that name.
    """
    path = os.fspath(path)
    if not path.startswith(PACKAGED):
        return os.path.expanduser(path)
    files = {file.stem: file for file in PACKAGED_FOLDER.glob('*.pth')}
    name = path.removeprefix(PACKAGED)
    if name not in files:
        raise CheckpointError(
            f'{path}: the package has no such weights, only '
            f'{_list(PACKAGED + stem for stem in files)}'
        )
    return str(files[name])


def find_last_checkpoint(work_dir: str | os.PathLike[str]) -> str | None:
    """Return the checkpoint that ``last_checkpoint`` in a work dir names, if any.

    The file may have been written under another path: a work dir can be moved. Where it
    must be known why there is none, see
    :func:`gckd_mm.work_dir.checkpoint_to_resume`.
    """
    return pointed_checkpoint(work_dir)


def use_strict_loading() -> None:
    """Make mmengine read checkpoints through :func:`read_checkpoint` and no other way.

    Its loaders for addresses (``https://``, ``s3://``, …) would unpickle anything; they
    are replaced by an error that asks for a download. For programs of ours only:
    importing ``gckd_mm`` must not change how other people's configs load theirs.
    """
    for prefix in set(CheckpointLoader._schemes) - {PACKAGED}:
        loader = _refuse_address if prefix else _load_from_local
        CheckpointLoader.register_scheme(prefixes=prefix, loader=loader, force=True)


def check_state_dict(
    model: nn.Module,
    state_dict: Mapping[str, Any],
    where: str,
    partial: bool = False,
) -> None:
    """Refuse a state dict of another architecture, or one with weights that are NaN.

    Args:
        model: The model that is to take it.
        state_dict: Parameter name -> tensor.
        where: Named in the error, such as the file.
        partial: Whether keys may be missing or left over, as when training starts from
            another model's weights. Shapes must fit all the same, and some key must.
            Defaults to False.

    Raises:
        CheckpointError: Lists missing, unexpected and misshapen keys; or names the
            first parameter that is not finite; or says how to convert the weights of
            another project.
    """
    own, given = unwrapped(model).state_dict(), without_wrapper(state_dict)
    shared = own.keys() & given.keys()
    misshapen = [
        f'{key} ({_shape(given[key])} in the file, {_shape(own[key])} in the model)'
        for key in shared
        if not _fits(key, given[key], own[key])
    ]
    missing = own.keys() - given.keys()
    unexpected = given.keys() - own.keys()
    if misshapen or not shared or (not partial and (missing or unexpected)):
        refuse_foreign({'state_dict': state_dict}, where)
        raise CheckpointError(
            f"{where}: of another architecture than the config's model.\n"
            f'  missing: {_list(missing)}\n'
            f'  unexpected: {_list(unexpected)}\n'
            f'  of another shape: {_list(misshapen)}\n'
            f'  use the config that it was trained with'
        )
    check_finite({key: given[key] for key in given if key in shared}, where, model)


def load_weights(model: nn.Module, checkpoint: Mapping[str, Any], where: str) -> None:
    """Load a whole state dict into a model, the tokenizer's vocabulary included.

    Raises:
        CheckpointError: See :func:`check_state_dict`.
    """
    refuse_foreign(checkpoint, where)
    state_dict = checkpoint.get('state_dict', checkpoint)
    check_tensors(state_dict, where)
    check_state_dict(model, state_dict, where)
    unwrapped(model).load_state_dict(without_wrapper(state_dict))


def encoders_alone(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a DualEncoder of a model's encoders, without what trains.

    A model of other people's making, which lacks some of them, is returned as it is.
    """
    if not all(part in model for part in ENCODERS):
        return dict(model)
    return {'type': 'DualEncoder', **{part: model[part] for part in ENCODERS}}


def weights_of_encoders(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return what :func:`encoders_alone` has weights for."""
    return {
        name: value
        for name, value in without_wrapper(state_dict).items()
        if name.startswith(ENCODERS)
    }


def as_tested(
    model: Mapping[str, Any], checkpoint: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Leave out what a model of ours has for its adaptation, and no test looks at.

    So checkpoints can be tested whose adaptation another version has written.

    Args:
        model: Its config.
        checkpoint: Its weights.

    Returns:
        Both, without those parts; as they are if the model is none that adapts.
    """
    if type_name(model.get('type')) not in _ADAPTING:
        return dict(model), dict(checkpoint)
    state_dict = {
        key: value
        for key, value in without_wrapper(
            checkpoint.get('state_dict', checkpoint)
        ).items()
        if not key.startswith(_OF_TRAINING)
    }
    # built in the scope of the config, which need not be ours
    encoders = encoders_alone(model) | {'type': 'gckd_mm.DualEncoder'}
    return encoders, {**checkpoint, 'state_dict': state_dict}


def with_teacher(checkpoint: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Put the teacher's encoders and necks in the place of the student's.

    Args:
        checkpoint: Of a model with a ``teacher``; left as it is.
        where: Its name, for messages.

    Returns:
        The same with another ``state_dict``.

    Raises:
        CheckpointError: If it has no teacher, as after source-only training and with
            most baselines, or one that has not begun to teach, as in the source stage.
    """
    state_dict = without_wrapper(checkpoint.get('state_dict', checkpoint))
    taught = {
        key.removeprefix(_TEACHER): value
        for key, value in state_dict.items()
        if key.startswith(_TEACHER)
    }
    if not taught:
        raise CheckpointError(f'{where}: holds no teacher: what trained it has none')
    if steps_of_teacher(state_dict, where) == 0:
        raise CheckpointError(
            f'{where}: its teacher has not begun: the adaptation had not started'
        )
    own = {key: value for key, value in taught.items() if key in state_dict}
    return {**checkpoint, 'state_dict': {**state_dict, **own}}


def steps_of_teacher(state_dict: Mapping[str, Any], where: str) -> int:
    """Return how often a teacher has moved; 0 where there is none.

    Raises:
        CheckpointError: If the count is no count.
    """
    steps = state_dict.get(_TEACHER_STEPS, 0)
    if isinstance(steps, int):
        return steps
    if not isinstance(steps, Tensor) or steps.numel() != 1 or steps.is_floating_point():
        raise CheckpointError(f'{where}: {_TEACHER_STEPS} must be a whole number')
    return int(steps)


def ended_in_source_stage(checkpoint: Mapping[str, Any]) -> bool:
    """Return whether a model that adapts had not begun to: its heads are untrained."""
    return checkpoint.get('meta', {}).get(ADAPTATION_STEPS) == 0


def _load_from_local(filename: str, map_location: Any) -> dict[str, Any]:
    return read_checkpoint(filename, map_location)


def _refuse_address(filename: str, map_location: Any) -> dict[str, Any]:
    raise CheckpointError(
        f'{filename}: only files are read; download it, and name the file'
    )


def _allowed_globals() -> list[Any]:
    core = np._core if hasattr(np, '_core') else np.core
    allowed: list[Any] = [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        core.multiarray._reconstruct,
        core.multiarray.scalar,
        *{type(np.dtype(name)) for name in ('f4', 'f8', 'i4', 'i8', 'u4', 'b1')},
    ]
    # A log history pickles its methods as getattr(HistoryBuffer, 'mean').
    allowed.append((_statistic, 'builtins.getattr'))
    return allowed


def _statistic(owner: Any, name: str) -> Callable:
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {name!r} refused')
    return getattr(owner, name)


def _damaged(path: str, error: Exception) -> CheckpointError:
    found = re.search(r'WeightsUnpickler error: ([^\n]+)', str(error))
    reason = found.group(1) if found else str(error).partition('\n')[0]
    if not reason or any(word in reason for word in _ADVICE):
        reason = type(error).__name__
    return CheckpointError(
        f'{path}: truncated, or not a checkpoint of torch ({reason})'
    )


def _fits(key: str, given: Any, own: Any) -> bool:
    if not isinstance(own, Tensor) or not isinstance(given, Tensor):
        return type(given) is type(own)
    if key.endswith('_extra_state'):  # of any length, but of one kind
        return given.dtype == own.dtype and given.ndim == own.ndim
    same_kind = given.is_floating_point() == own.is_floating_point()
    return same_kind and given.shape == own.shape


def _shape(value: Any) -> str:
    return (
        str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
    )


def _list(names: Iterable[str], limit: int = 5) -> str:
    names = sorted(names)
    shown = ', '.join(names[:limit]) or 'none'
    return shown if len(names) <= limit else f'{shown}, … ({len(names)} in all)'
