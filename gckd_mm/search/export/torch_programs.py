"""Graphs as files of torch.export, beside those of ONNX."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram

from gckd_mm.search.apis.export_folder import GRAPHS
from gckd_mm.search.apis.onnx_encoder import OnnxEncoder


def write_program(program: ExportedProgram, path: Path) -> None:
    """Write a graph that ``torch.export.load`` reads."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.export.save(program, path)


class TorchProgramEncoder(OnnxEncoder):
    """An export whose ``.pt2`` files are run in place of the ``.onnx``."""

    def _load(self, device: str) -> None:
        self._programs = {}
        for name in GRAPHS:
            path = program_path(self.folder / name)
            self._programs[name] = torch.export.load(path).module()

    @torch.inference_mode()
    def _run(self, graph: str, **inputs: np.ndarray) -> np.ndarray:
        tensors = [torch.from_numpy(value) for value in inputs.values()]
        return self._programs[graph](*tensors).numpy()


def program_path(onnx_file: Path) -> Path:
    """Return where the graph of a file of ONNX is kept as one of torch.export."""
    return onnx_file.with_suffix('.pt2')
