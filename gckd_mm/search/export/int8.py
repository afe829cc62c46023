"""An export with weights in 8 bits: smaller, and a model of its own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from gckd_mm.errors import InputError
from gckd_mm.search.apis.export_folder import (
    GRAPHS,
    TOKENIZER,
    ExportSettings,
    file_hashes,
    new_folder,
    write_settings,
)
from gckd_mm.search.apis.onnx_encoder import OnnxEncoder
from gckd_mm.search.export.onnx_files import quantise
from gckd_mm.search.export.random_inputs import embed_random_inputs, smallest_cosine

#: below it, an embedding has not been rounded but broken
MIN_COSINE = 0.9


def export_int8(
    source: str | os.PathLike[str], folder: str | os.PathLike[str]
) -> float:
    """Write an export of an export in float32, its products and tables in 8 bits.

    Returns:
        The smallest cosine between an embedding and that in float32, of random inputs.

    Raises:
        InputError: If ``source`` is no such export or that cosine is below 0.9.
    """
    exact = OnnxEncoder(source)
    if exact.settings.precision != 'float32':
        raise InputError(
            f'{source}: is an export in {exact.settings.precision}, not in float32'
        )
    with new_folder(folder) as partial:
        for name in GRAPHS:
            quantise(exact.folder / name, partial / name)
        shutil.copyfile(exact.folder / TOKENIZER, partial / TOKENIZER)
        settings = exact.settings._replace(name=f'{exact.name}-int8', precision='int8')
        settings = settings._replace(fingerprint=_fingerprint(partial, settings))
        write_settings(partial, settings)
        cosine = smallest_cosine(
            embed_random_inputs(exact), embed_random_inputs(OnnxEncoder(partial))
        )
        if not cosine >= MIN_COSINE:
            raise InputError(
                f'{exact.name}: in int8, an embedding has a cosine of {cosine:.3f} '
                f'with that in float32, and {MIN_COSINE} is the least. Nothing was '
                f'written'
            )
    return cosine


def _fingerprint(folder: Path, settings: ExportSettings) -> str:
    """Hash the files and how inputs are prepared: they make embeddings of their own."""
    described = [file_hashes(folder), settings.image, settings.text]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
