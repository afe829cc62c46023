"""From another project's weights to a retriever's, and back, with nothing lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gckd_mm.checkpoint.structure import check_tensors
from gckd_mm.checkpoint.values import check_finite
from gckd_mm.errors import CheckpointError, InputError
from gckd_mm.interop.clip_config import clip_shapes, infer_clip_config
from gckd_mm.interop.efficientnet_lite import map_efficientnet_lite0
from gckd_mm.interop.hf_clip import map_hf_clip, map_to_hf_clip
from gckd_mm.interop.irra import map_irra
from gckd_mm.interop.keys import IMAGE_POSITIONS, Mapped
from gckd_mm.interop.open_clip import map_open_clip
from gckd_mm.interop.openai_clip import map_openai_clip
from gckd_mm.model_wrapper import bare_name
from gckd_mm.models.functional.position_grid import (
    grid_of_image,
    resize_position_grid,
    square_grid,
)

FAMILIES: dict[str, Callable[[Mapping[str, Tensor], str], Mapped]] = {
    'openai-clip': map_openai_clip,
    'open-clip': map_open_clip,
    'irra': map_irra,
    'hf': map_hf_clip,
}
#: what is an image backbone alone
BACKBONES: dict[str, Callable[[Mapping[str, Tensor]], tuple[Mapped, list[str]]]] = {
    'efficientnet-lite0': map_efficientnet_lite0,
}
_LOGIT_SCALE = 'logit_scale'
#: before every key of a checkpoint of PyTorch Lightning
_LIGHTNING = 'model.'


class Conversion(NamedTuple):
    """Converted weights, and what became of the rest."""

    weights: dict[str, Tensor]
    config: dict[str, Any]  # of a CLIPModel of these sizes; empty for what is no CLIP
    ignored: list[str]  # keys of the file that have no place in what was made
    unused: list[str]  # keys of the file that no mapping knows
    missing: list[str]  # keys that should have been made


def convert(
    state_dict: Mapping[str, Tensor],
    family: str,
    where: str,
    given: Mapping[str, Any] | None = None,
    grid: tuple[int, int] | None = None,
    image_size: tuple[int, int] | None = None,
    allow_unused: bool = False,
    allow_missing: bool = False,
) -> Conversion:
    """Turn a public CLIP into the weights of a :class:`DualEncoder` of two CLIP towers.

    Args:
        state_dict: Name -> tensor, under the family's names.
        family: One of :data:`FAMILIES`.
        where: The file, for messages.
        given: A ``config.json``; see :func:`infer_clip_config`.
        grid: Rows and columns of the file's position grid. Defaults to the square one.
        image_size: Height and width in pixels that the position grid is to fit.
            Defaults to the file's own.
        allow_unused: Whether unknown keys of the file are left out.
        allow_missing: Whether weights may be missing.

    Returns:
        Our names; dtypes kept, and values too but for a resized grid.

    Raises:
        CheckpointError: Lists unknown and missing keys that are not allowed, and
            weights of a shape that does not fit the others; or names the first weight
            that is not finite.
        InputError: If the grid or the image size does not fit.
    """
    state_dict, names = _unwrapped(state_dict, where)
    mapped = _mapped(FAMILIES[family], state_dict, names, where)
    config = infer_clip_config(mapped.weights, where, given)
    missing = _check(
        mapped, config, where, allow_unused=allow_unused, allow_missing=allow_missing
    )
    check_finite(mapped.weights, where)
    if _LOGIT_SCALE in state_dict and state_dict[_LOGIT_SCALE].numel() == 1:
        config['logit_scale_init_value'] = state_dict[_LOGIT_SCALE].item()
    weights = _fit_grid(mapped.weights, config, grid, image_size)
    return Conversion(weights, config, mapped.ignored, mapped.unused, missing)


def convert_backbone(
    state_dict: Mapping[str, Tensor],
    family: str,
    where: str,
    allow_unused: bool = False,
    allow_missing: bool = False,
) -> Conversion:
    """Turn a public image model into the image backbone of a :class:`DualEncoder`.

    Returns:
        Names after ``image_backbone.``; dtypes and values kept.
    """
    state_dict, names = _unwrapped(state_dict, where)
    mapped, missing = BACKBONES[family](state_dict)
    mapped = mapped.under(names)
    _raise_any(where, _gaps(mapped, missing, allow_unused, allow_missing))
    check_finite(mapped.weights, where)
    return Conversion(mapped.weights, {}, mapped.ignored, mapped.unused, missing)


def export_hf(
    state_dict: Mapping[str, Tensor],
    where: str,
    given: Mapping[str, Any] | None = None,
    grid: tuple[int, int] | None = None,
    image_size: tuple[int, int] | None = None,
    allow_unused: bool = False,
    allow_missing: bool = False,
) -> Conversion:
    """Turn the weights of a retriever of two CLIP towers into a ``CLIPModel``'s."""
    state_dict, names = _unwrapped(state_dict, where)
    out = map_to_hf_clip(state_dict).under(names)
    weights = map_hf_clip(out.weights, where).weights
    config = infer_clip_config(weights, where, given)
    mapped = Mapped(weights, out.ignored, out.unused)
    missing = _check(
        mapped, config, where, allow_unused=allow_unused, allow_missing=allow_missing
    )
    check_finite(weights, where)
    weights = _fit_grid(weights, config, grid, image_size)
    if 'image_size' not in config['vision_config']:
        raise InputError(
            f"{where}: transformers' CLIPModel takes square images alone, and this "
            f'position grid is not square: name it and what it is to become, such as '
            f'--grid 24 8 --image-size 224 224'
        )
    dtype = max((value.dtype for value in weights.values()), key=lambda d: d.itemsize)
    config.pop('torch_dtype', None)
    config['dtype'] = str(dtype).removeprefix('torch.')
    scale = torch.tensor(config['logit_scale_init_value'], dtype=dtype)
    hf_weights = {**map_to_hf_clip(weights).weights, _LOGIT_SCALE: scale}
    return Conversion(hf_weights, config, out.ignored, out.unused, missing)


def bare_names(keys: Iterable[str]) -> dict[str, str]:
    """Return name -> key, without what training codes put before every name.

    That is ``module.`` (DistributedDataParallel), ``_orig_mod.`` (torch.compile) and
    ``model.`` (PyTorch Lightning), where all keys have it.
    """
    names = {bare_name(key): key for key in keys}
    if names and all(name.startswith(_LIGHTNING) for name in names):
        names = {name.removeprefix(_LIGHTNING): key for name, key in names.items()}
    return names


def _unwrapped(
    state_dict: Mapping[str, Tensor], where: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    check_tensors(state_dict, where)
    names = bare_names(state_dict)
    if len(names) != len(state_dict):
        raise CheckpointError(
            f"{where}: some weights are there twice, with and without 'module.' before "
            f'their names'
        )
    return {name: state_dict[key] for name, key in names.items()}, names


def _mapped(
    mapping: Callable[[Mapping[str, Tensor], str], Mapped],
    state_dict: Mapping[str, Tensor],
    names: Mapping[str, str],
    where: str,
) -> Mapped:
    try:
        return mapping(state_dict, where).under(names)
    # A matrix that is none, such as a number where three matrices are to be.
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise CheckpointError(
            f'{where}: cannot be converted, a weight has another shape than a CLIP '
            f'has ({error})'
        ) from error


def _check(
    mapped: Mapped,
    config: Mapping[str, Any],
    where: str,
    allow_unused: bool,
    allow_missing: bool,
) -> list[str]:
    """Return the missing keys, or raise what is wrong."""
    shapes = clip_shapes(config)
    missing = sorted(shapes.keys() - mapped.weights.keys())
    beyond = sorted(mapped.weights.keys() - shapes.keys())
    misshapen = [
        f'{key}: {tuple(mapped.weights[key].shape)}, not {shape}'
        for key, shape in sorted(shapes.items())
        if shape is not None
        and key in mapped.weights
        and tuple(mapped.weights[key].shape) != shape
    ]
    problems = {
        'of another shape than the rest or the config.json tells': misshapen,
        'belonging to layers or parts that the model does not have': beyond,
        **_gaps(mapped, missing, allow_unused, allow_missing),
    }
    _raise_any(where, problems)
    return missing


def _gaps(
    mapped: Mapped, missing: list[str], allow_unused: bool, allow_missing: bool
) -> dict[str, list[str]]:
    unused = [] if allow_unused else mapped.unused
    return {
        'not known (--allow-unused leaves them out)': unused,
        'missing (--allow-missing does without)': [] if allow_missing else missing,
    }


def _raise_any(where: str, problems: Mapping[str, list[str]]) -> None:
    found = {reason: keys for reason, keys in problems.items() if keys}
    if found:
        lists = '\n'.join(
            f'  {len(keys)} keys {reason}:\n' + '\n'.join(f'    {key}' for key in keys)
            for reason, keys in found.items()
        )
        raise CheckpointError(f'{where}: cannot be converted\n{lists}')


def _fit_grid(
    weights: Mapping[str, Tensor],
    config: dict[str, Any],
    grid: tuple[int, int] | None,
    image_size: tuple[int, int] | None,
) -> dict[str, Tensor]:
    """Resize the position grid, if asked to, and write its size into the config."""
    if image_size is None:
        return dict(weights)
    positions = weights[IMAGE_POSITIONS]
    new_grid = grid_of_image(image_size, config['vision_config']['patch_size'])
    grid = grid or square_grid(positions)
    if grid is None and len(positions) == 1 + new_grid[0] * new_grid[1]:
        grid = new_grid
    if grid is None:
        raise InputError(
            f'{len(positions)} position embeddings are no square grid and do not fit '
            f'{image_size[0]} × {image_size[1]} pixels: name the grid of the file, '
            f'such as --grid 24 8'
        )
    if image_size[0] == image_size[1]:
        config['vision_config']['image_size'] = image_size[0]
    else:
        config['vision_config'].pop('image_size', None)
    resized = resize_position_grid(positions, new_grid, grid)
    return {**weights, IMAGE_POSITIONS: resized}
