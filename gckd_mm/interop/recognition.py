"""Tell by its keys which project's weights a checkpoint holds."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gckd_mm.errors import CheckpointError
from gckd_mm.interop.conversion import BACKBONES, FAMILIES, bare_names
from gckd_mm.interop.weight_files import NESTED

#: part of the keys that a family must know
_MOST_UNKNOWN = 0.5
_FEWEST = 4


def family_of(checkpoint: Mapping[str, Any]) -> str | None:
    """Return the ``--from`` of ``tools/convert_checkpoint.py`` that fits best."""
    found = [_best(names) for names in _candidates(checkpoint)]
    return max(found, default=(0, None))[1]


def _candidates(checkpoint: Mapping[str, Any]) -> list[list[str]]:
    parts = [checkpoint.get(key) for key in NESTED]
    state_dicts = [part for part in parts if isinstance(part, Mapping)] or [checkpoint]
    return [
        [str(name) for name, value in part.items() if isinstance(value, Tensor)]
        for part in state_dicts
    ]


def _best(names: list[str]) -> tuple[int, str | None]:
    # Names alone count; the mappings of whole weights would copy them.
    empty = torch.empty(3, 3, device='meta')
    state_dict = {name: empty for name in bare_names(names)}
    counts = {
        family: len(of_backbone(state_dict)[0].weights)
        for family, of_backbone in BACKBONES.items()
    }
    for family, mapping in FAMILIES.items():
        # Of this family's names there may be none.
        with contextlib.suppress(CheckpointError):
            counts[family] = len(mapping(state_dict, '').weights)
    best = max(counts, key=lambda family: counts[family])
    enough = max(_FEWEST, _MOST_UNKNOWN * len(names))
    return (counts[best], best) if counts[best] >= enough else (0, None)
