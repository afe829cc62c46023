"""The two encoders of a retriever as graphs of torch.export."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from gckd_mm.errors import InputError
from gckd_mm.models.retrievers.towers import TwoTowers
from gckd_mm.search.apis.torch_encoder import TorchEncoder

#: sizes of the example; 0 and 1 would be taken for constants
_BATCH, _LENGTH = 3, 5
#: letters of another package's message that are passed on
_REASON = 300


#: names of the inputs of the two graphs
INPUTS = (('images',), ('input_ids', 'attention_mask'))


class Graphs(NamedTuple):
    """Both encoders, each with the number of inputs left open.

    Attributes:
        image: ``images``, shape (N, 3, H, W), uint8 RGB -> shape (N, D), float32.
        text: ``input_ids``, shape (N, L), int64, and ``attention_mask``, shape (N, L),
            bool, False on padding -> shape (N, D), float32.
    """

    image: ExportedProgram
    text: ExportedProgram


class _ImageEncoder(TwoTowers, nn.Module):
    """From pixels to embeddings: normalising is part of it, and cannot be forgotten."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.image_backbone = model.image_backbone
        self.image_neck = model.image_neck
        self.register_buffer('mean', model.data_preprocessor.mean)
        self.register_buffer('std', model.data_preprocessor.std)

    def forward(self, images: Tensor) -> Tensor:
        return self.embed_images((images.float() - self.mean) / self.std)[0]


class _TextEncoder(TwoTowers, nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text_backbone = model.text_backbone
        self.text_neck = model.text_neck

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.embed_captions(
            {'input_ids': input_ids, 'attention_mask': attention_mask}
        )[0]


def capture(encoder: TorchEncoder, image_size: tuple[int, int]) -> Graphs:
    """Capture both encoders.

    Args:
        encoder: On the CPU.
        image_size: Height and width in pixels.

    Raises:
        InputError: If torch.export cannot follow one of them.
    """
    model = encoder.model
    images = torch.zeros((_BATCH, 3, *image_size), dtype=torch.uint8)
    max_length = model.data_preprocessor.tokenizer.max_length
    ids = torch.zeros((_BATCH, min(_LENGTH, max_length)), dtype=torch.int64)
    mask = torch.ones(ids.shape, dtype=torch.bool)
    batch, length = Dim('batch'), Dim('length', max=max_length)
    text_shape = {0: batch, 1: length}
    return Graphs(
        _captured('image', _ImageEncoder(model), (images,), {'images': {0: batch}}),
        _captured(
            'text',
            _TextEncoder(model),
            (ids, mask),
            {'input_ids': text_shape, 'attention_mask': text_shape},
        ),
    )


def _captured(
    name: str, module: nn.Module, example: tuple[Tensor, ...], shapes: dict[str, Any]
) -> ExportedProgram:
    module.eval()
    reason: Exception | None = None
    # The faster way takes `len(tensor)` for a constant; the strict one reads Python's
    # bytecode, and knows it.
    for strict in (False, True):
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter('ignore')
                program = torch.export.export(
                    module, example, dynamic_shapes=shapes, strict=strict
                )
        # torch.export has dozens of errors, and those of the model come through it
        except Exception as error:
            reason = error
        else:
            return _without_traces(program)
    text = ' '.join(str(reason).split())[:_REASON]
    raise InputError(
        f'the {name} encoder cannot be exported, because torch.export cannot follow it '
        f'({type(reason).__name__}: {text})'
    ) from reason


def _without_traces(program: ExportedProgram) -> ExportedProgram:
    """Forget where the source files lie on this machine: an export is handed on."""
    for node in program.graph.nodes:
        node.meta.pop('stack_trace', None)
    return program
