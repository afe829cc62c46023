"""Checkpoints of other projects: say which call of the converter they need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gckd_mm.errors import CheckpointError


def refuse_foreign(checkpoint: Mapping[str, Any], where: str) -> None:
    """Refuse the checkpoint of another project, and say how to convert it."""
    # That package reads its files through the module that calls this.
    from gckd_mm.interop.recognition import family_of

    family = family_of(checkpoint)
    if family is not None:
        raise CheckpointError(
            f'{where}: holds the weights of another project, under the names of '
            f'{family!r}: {convert_call(family, where)}'
        )


def convert_call(family: str, where: str) -> str:
    """Return the advice to convert a file of a family."""
    out = f'{Path(where).stem}_converted.pth'
    return (
        f'convert it with python tools/convert_checkpoint.py --from {family} '
        f'{where} {out}, and name {out}'
    )
