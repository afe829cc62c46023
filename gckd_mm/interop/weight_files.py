"""Files and folders of weights: torch's, safetensors, transformers'."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gckd_mm.checkpoint import check_regular_file, local_path, read_checkpoint
from gckd_mm.checkpoint.safetensors_files import safetensors_bytes
from gckd_mm.checkpoint.structure import check_structure
from gckd_mm.errors import CheckpointError, InputError
from gckd_mm.fileio import write_atomically
from gckd_mm.interop.script_archive import is_script_archive, read_script_archive

_HF_INDICES = ('model.safetensors.index.json', 'pytorch_model.bin.index.json')
_HF_FILES = ('model.safetensors', 'pytorch_model.bin')
#: under which training codes keep the weights beside the optimiser
NESTED = ('state_dict', 'model', 'net')


class WeightFile(NamedTuple):
    """What a file of weights holds."""

    state_dict: dict[str, Tensor]
    meta: dict[str, Any]  # what it says about itself
    config: dict[str, Any] | None  # the config.json beside the weights


def read_weights(path: str) -> WeightFile:
    """Read weights without running anything in the file.

    Args:
        path: ``.safetensors``, a file of ``torch.save`` (a state dict, or a dict with
            one under ``state_dict``, ``model`` or ``net``), an archive of
            TorchScript such as OpenAI's, or a folder that transformers wrote.
    """
    folder = Path(local_path(path))
    if folder.is_dir():
        return _read_folder(folder)
    check_regular_file(str(folder))
    if is_script_archive(str(folder)):
        found = read_script_archive(str(folder))
        check_structure(found, path, folder.stat().st_size)
        return WeightFile(found, {}, None)
    checkpoint = read_checkpoint(path)
    state_dict: Any = checkpoint
    for key in NESTED:
        if isinstance(checkpoint.get(key), Mapping):
            state_dict = checkpoint[key]
            break
    tensors = {k: v for k, v in state_dict.items() if isinstance(v, Tensor)}
    if not tensors:
        raise CheckpointError(
            f'{path}: holds no weights, neither by themselves nor under '
            f'{" or ".join(map(repr, NESTED))}'
        )
    meta = checkpoint.get('meta')
    return WeightFile(tensors, meta if isinstance(meta, dict) else {}, None)


def write_checkpoint(
    path: str, state_dict: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> None:
    """Write a checkpoint that the tools read."""
    if path.endswith('.safetensors'):
        data = safetensors_bytes(state_dict, dict(meta))
    else:
        buffer = io.BytesIO()
        torch.save({'state_dict': dict(state_dict), 'meta': dict(meta)}, buffer)
        data = buffer.getvalue()
    write_atomically(path, data)


def write_hf_folder(
    path: str, state_dict: Mapping[str, Tensor], config: Mapping[str, Any]
) -> None:
    """Write a folder that transformers' ``from_pretrained`` reads."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise InputError(f'{path}: is a file; name a folder to write')
    write_atomically(folder / 'model.safetensors', safetensors_bytes(state_dict))
    write_atomically(folder / 'config.json', json.dumps(config, indent=2) + '\n')


def read_hf_config(path: str | Path) -> dict[str, Any]:
    """Read the ``config.json`` of a ``CLIPModel``, or of the folder that has one."""
    file = Path(path)
    file = file / 'config.json' if file.is_dir() else file
    config = _read_json(file)
    if config.get('model_type') != 'clip':
        raise CheckpointError(
            f'{file}: is the config of a {config.get("model_type", "nameless")!r} '
            f"model, not of transformers' CLIPModel"
        )
    # A config.json before transformers 4.25 may have these as null.
    return {key: value for key, value in config.items() if value is not None}


def _read_folder(folder: Path) -> WeightFile:
    if not (folder / 'config.json').is_file():
        raise CheckpointError(
            f'{folder}: is no folder of transformers, it has no config.json'
        )
    config = read_hf_config(folder)
    for name in _HF_INDICES:
        if (folder / name).is_file():
            files = _files_of_index(folder / name)
            break
    else:
        files = [name for name in _HF_FILES if (folder / name).is_file()][:1]
    if not files:
        raise CheckpointError(
            f'{folder}: holds none of {", ".join((*_HF_FILES, *_HF_INDICES))}'
        )
    state_dict: dict[str, Tensor] = {}
    for name in files:
        found = read_weights(str(folder / name)).state_dict
        twice = sorted(found.keys() & state_dict.keys())
        if twice:
            raise CheckpointError(f'{folder}: {twice[0]} is in two of its files')
        state_dict |= found
    return WeightFile(state_dict, {}, config)


def _files_of_index(path: Path) -> list[str]:
    weight_map = _read_json(path).get('weight_map')
    names = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not names or not all(isinstance(x, str) and Path(x).name for x in names):
        raise CheckpointError(
            f"{path}: 'weight_map' must be an object of weight -> name of a file "
            f'beside it'
        )
    # An index names files beside it; anything else would leave the folder.
    return sorted({Path(name).name for name in names})


def _read_json(path: Path) -> dict[str, Any]:
    if path.exists():
        check_regular_file(str(path))
    try:
        value = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be read ({error.strerror})') from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f'{path}: is no JSON ({error})') from error
    if not isinstance(value, dict):
        raise CheckpointError(f'{path}: must hold a JSON object')
    return value
