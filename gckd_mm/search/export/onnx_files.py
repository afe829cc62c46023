"""Graphs as files of ONNX, in float32 and in int8."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from gckd_mm.errors import InputError

OUTPUT = 'feats'
AXES = ('batch', 'length')
_OPSET = 18
#: bytes of weights that one file can hold; protobuf ends at 2 GiB
_MAX_BYTES = 2_000_000_000
#: what int8 is good for. A convolution with inputs that are quantised on the fly was
#: five times slower than in float32 and, in EfficientNet-lite0, left a mean cosine of
#: 0.81 between the embeddings; matrix products and tables left 0.9999.
_QUANTISED = ('Gather', 'Gemm', 'MatMul')


def import_onnx() -> Any:
    """Import what writes ONNX, or raise InputError if something is not installed."""
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"an export needs {error.name}: pip install 'gckd-mm[onnx]'"
        ) from error
    return onnx


def write_onnx(program: ExportedProgram, inputs: Sequence[str], path: Path) -> None:
    """Write a graph of one output; above 2 GB, the weights go to a file beside it."""
    onnx = import_onnx()
    weights = program.state_dict.values()
    size = sum(value.numel() * value.element_size() for value in weights)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            program,
            (),
            path,
            dynamo=True,
            opset_version=_OPSET,
            input_names=list(inputs),
            output_names=[OUTPUT],
            external_data=size > _MAX_BYTES,
            verbose=False,
        )
    model = onnx.load(path, load_external_data=False)
    _tidy(model.graph)
    onnx.save(model, path)


def quantise(source: Path, path: Path) -> None:
    """Write a graph with weights in 8 bits, whose inputs are quantised as they come."""
    onnx = import_onnx()
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    model = onnx.load(source)
    # torch's exporter has optimised it, which quantize_dynamic would ask for
    add_pre_process_metadata(model)
    quantize_dynamic(
        model,
        path,
        op_types_to_quantize=_QUANTISED,
        per_channel=True,
        # signed ones overflow on CPUs without VNNI
        weight_type=QuantType.QUInt8,
    )


def _tidy(graph: Any) -> None:
    """Name the open axes, and drop what describes the way that the graph was made."""
    for value in (*graph.input, *graph.output):
        for axis, size in zip(AXES, value.type.tensor_type.shape.dim, strict=False):
            if size.HasField('dim_param'):
                size.dim_param = axis
    # Shapes of what is in between, wrong where the exporter's optimiser has merged
    # nodes: quantising stumbles over them, and onnxruntime finds its own.
    del graph.value_info[:]
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
