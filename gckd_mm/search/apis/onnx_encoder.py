"""An exported retriever, run by onnxruntime, as an encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from tokenizers import Tokenizer

from gckd_mm.datasets.transforms.load_person_image import read_image
from gckd_mm.errors import InputError
from gckd_mm.models.tokenizers.base_tokenizer import BaseTokenizer
from gckd_mm.models.tokenizers.caption_reading import CaptionReading
from gckd_mm.search.apis.encoder import Encoder
from gckd_mm.search.apis.export_folder import (
    IMAGE_GRAPH,
    TEXT_GRAPH,
    TOKENIZER,
    TextInput,
    read_settings,
)

_CPU, _CUDA = 'CPUExecutionProvider', 'CUDAExecutionProvider'


class OnnxEncoder(Encoder):
    """The encoders that ``tools/export_onnx.py`` wrote: see :class:`Encoder`.

    No model of PyTorch is built. An export in float32 has the fingerprint of its
    checkpoint: a gallery that one of them has built can be searched with the other.

    Args:
        folder: Of the export.
        device: ``'cpu'`` or ``'cuda'``, or a certain GPU such as ``'cuda:1'``. Defaults
            to the CPU.

    Raises:
        InputError: If the folder is no export or is damaged, onnxruntime is not
            installed, or it cannot use the device.
    """

    def __init__(self, folder: str | os.PathLike[str], device: Any = None) -> None:
        self.folder = Path(folder)
        self.settings = read_settings(self.folder)
        self.name = self.settings.name
        self.source: tuple[str, str | None] | None = os.path.abspath(folder), None
        self.fingerprint = self.settings.fingerprint
        self.embedding_size = self.settings.embedding_size
        self._tokenizer = _FileTokenizer(self.folder / TOKENIZER, self.settings.text)
        self._load(str(device or 'cpu'))

    def prepare(self, image: str | np.ndarray) -> np.ndarray:
        """Read and resize one image: shape (3, H, W), uint8."""
        if isinstance(image, str):
            image = read_image(image)
        height, width, interpolation, backend = self.settings.image
        resized = mmcv.imresize(
            image, (width, height), interpolation=interpolation, backend=backend
        )
        return np.ascontiguousarray(resized.transpose(2, 0, 1))

    def embed_images(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Embed N images: shape (N, D), float32."""
        return self._run(IMAGE_GRAPH, images=np.stack(prepared))

    def embed_captions(self, captions: Sequence[str]) -> np.ndarray:
        """Embed N captions: shape (N, D), float32."""
        tokens = self._tokenizer(captions)
        return self._run(TEXT_GRAPH, **{k: v.numpy() for k, v in tokens.items()})

    def read_captions(self, captions: Sequence[str]) -> list[CaptionReading]:
        """Return which words of each caption are known, and where it is cut."""
        return [self._tokenizer.read(caption) for caption in captions]

    def match(self, caption: str, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Refuse: an export holds the two encoders and no matching head."""
        raise InputError(
            f'{self.folder}: an exported model has no matching head to re-rank with: '
            f'name its checkpoint'
        )

    def _load(self, device: str) -> None:
        library = onnxruntime()
        providers = _providers(device, library.get_available_providers())
        options = library.SessionOptions()
        options.log_severity_level = 3  # errors; they are raised, too
        # OMP_NUM_THREADS, which torchrun sets, means nothing to onnxruntime
        options.intra_op_num_threads = torch.get_num_threads()
        self._sessions = {}
        for name in (IMAGE_GRAPH, TEXT_GRAPH):
            path = self.folder / name
            try:
                self._sessions[name] = library.InferenceSession(
                    path, options, providers=providers
                )
            # onnxruntime has a dozen classes, with no base of their own
            except Exception as error:
                raise InputError(
                    f'{path}: onnxruntime {library.__version__} cannot load it '
                    f'({error})'
                ) from error

    def _run(self, graph: str, **inputs: np.ndarray) -> np.ndarray:
        (feats,) = self._sessions[graph].run(None, inputs)
        return feats


class _FileTokenizer(BaseTokenizer):
    """A tokenizer that another has written."""

    def __init__(self, file: Path, settings: TextInput) -> None:
        super().__init__(settings.vocab_size, settings.max_length)
        self._given_padding = settings.padding_id
        self._load(file.read_bytes(), str(file))

    def _padding_of(self, tokenizer: Tokenizer, where: str) -> int:
        return self._given_padding


def onnxruntime() -> Any:
    """Import onnxruntime, or raise InputError if it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "an exported model needs onnxruntime: pip install 'gckd-mm[onnx]'"
        ) from error
    return onnxruntime


def _providers(device: str, available: Sequence[str]) -> list[Any]:
    kind, _, number = device.partition(':')
    if kind == 'cpu':
        return [_CPU]
    if kind != 'cuda' or not (number or '0').isdecimal():
        raise InputError(
            f"an exported model runs on 'cpu', 'cuda' or 'cuda:<n>', got {device!r}"
        )
    if _CUDA not in available:
        raise InputError(
            f'this onnxruntime knows no {_CUDA}: pip install onnxruntime-gpu in place '
            f"of onnxruntime, or name device='cpu'"
        )
    return [(_CUDA, {'device_id': int(number or 0)}), _CPU]
