"""Write the encoders of a retriever as graphs, and see that they embed as it does."""

from __future__ import annotations

import os

from gckd_mm.errors import InputError
from gckd_mm.search.apis.export_folder import (
    GRAPHS,
    TOKENIZER,
    new_folder,
    write_settings,
)
from gckd_mm.search.apis.onnx_encoder import OnnxEncoder
from gckd_mm.search.apis.torch_encoder import TorchEncoder
from gckd_mm.search.export.capture import INPUTS, capture
from gckd_mm.search.export.description import describe
from gckd_mm.search.export.onnx_files import import_onnx, write_onnx
from gckd_mm.search.export.random_inputs import (
    Differences,
    differences,
    embed_random_inputs,
)
from gckd_mm.search.export.torch_programs import (
    TorchProgramEncoder,
    program_path,
    write_program,
)

#: by which an embedding may differ from PyTorch's
MAX_DIFFERENCE = 1e-4


def export_retriever(
    encoder: TorchEncoder, folder: str | os.PathLike[str], torch_export: bool = False
) -> dict[str, Differences]:
    """Write an export in float32, if it embeds as the encoder does.

    Args:
        encoder: On the CPU.
        folder: A new one, or an empty one.
        torch_export: Whether to write ``image.pt2`` and ``text.pt2``, too.

    Returns:
        Suffix of the graphs -> their differences from PyTorch.

    Raises:
        InputError: If the model cannot be exported, its graphs embed otherwise, or the
            folder holds something. Then nothing is written.
    """
    import_onnx()
    settings = describe(encoder)
    kinds = {'.onnx': OnnxEncoder, '.pt2': TorchProgramEncoder}
    if not torch_export:
        del kinds['.pt2']
    with new_folder(folder) as partial:
        programs = capture(encoder, (settings.image.height, settings.image.width))
        for name, program, inputs in zip(GRAPHS, programs, INPUTS, strict=True):
            write_onnx(program, inputs, partial / name)
            if torch_export:
                write_program(program, program_path(partial / name))
        tokenizer = encoder.model.data_preprocessor.tokenizer
        (partial / TOKENIZER).write_text(tokenizer.to_json(), encoding='utf-8')
        write_settings(partial, settings)
        expected = embed_random_inputs(encoder)
        found = {
            suffix: differences(expected, embed_random_inputs(kind(partial)))
            for suffix, kind in kinds.items()
        }
        for suffix, largest in found.items():
            _check(largest, f'{encoder.name}: the {suffix} files')
    return found


def _check(largest: Differences, where: str) -> None:
    if not all(value <= MAX_DIFFERENCE for value in largest):  # NaN is an error, too
        raise InputError(
            f'{where} embed otherwise than PyTorch, images by up to '
            f'{largest.images:.1e} and captions by up to {largest.captions:.1e}, and '
            f'{MAX_DIFFERENCE:.0e} is allowed. Nothing was written'
        )
