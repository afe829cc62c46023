"""A trained retriever, read from its checkpoint, as an encoder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from gckd_mm.checkpoint import (
    PACKAGED,
    built_from,
    config_of,
    encoders_alone,
    ended_in_source_stage,
    load_weights,
    read_checkpoint,
    refuse_foreign,
    weights_of_encoders,
)
from gckd_mm.checkpoint.structure import check_tensors
from gckd_mm.engine.launch import read_config
from gckd_mm.errors import InputError
from gckd_mm.model_wrapper import without_wrapper
from gckd_mm.models.tokenizers.base_tokenizer import BaseTokenizer
from gckd_mm.models.tokenizers.caption_reading import CaptionReading
from gckd_mm.registry import MODELS, TRANSFORMS, short_type, type_name

#: images that the matching head compares at a time
_PAIRS = 64


class TorchEncoder:
    """The encoders of a retriever, in PyTorch: see :class:`Encoder`.

    On a GPU they run under autocast, and on a CPU in float32.

    Attributes:
        model: The retriever.
        transforms: Of the gallery's images, built.

    Args:
        model: A retriever that embeds, weights loaded.
        settings: The config that it was built from; goes into the fingerprint.
        pipeline: Transforms of the gallery's images, from path to tensor.
        device: Where it is to run.
        source: See :class:`Encoder`, as for ``name``.
        name: For people.
        matching: An ``ImageTextMatchingHead`` that was trained with the retriever.
            Defaults to none.
        scope: Default scope of the config.
    """

    def __init__(
        self,
        model: Any,
        settings: dict[str, Any],
        pipeline: Sequence[dict],
        device: torch.device,
        source: tuple[str, str | None] | None,
        name: str,
        matching: Any = None,
        scope: str | None = 'gckd_mm',
    ) -> None:
        self.model = model.to(device).eval()
        self._matching = None if matching is None else matching.to(device).eval()
        self.device = device
        self.source = source
        self.name = name
        with DefaultScope.overwrite_default_scope('gckd_mm'):
            self.transforms = [TRANSFORMS.build(dict(step)) for step in pipeline]
        self._from_path = Compose(self.transforms)
        loads = [type_name(step['type']).startswith('Load') for step in pipeline]
        if not loads or not loads[0] or sum(loads) != 1:
            raise InputError(
                'the pipeline of the gallery must begin with the one transform that '
                f'loads an image, got {[step["type"] for step in pipeline]}'
            )
        self._from_array = Compose(self.transforms[1:])
        described = _with_short_types([settings, pipeline], scope)
        self.fingerprint = _fingerprint(model, described)
        self.embedding_size = self.embed_captions(['']).shape[1]

    @classmethod
    def read(
        cls,
        model: str | os.PathLike[str] | Config,
        weights: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
    ) -> TorchEncoder:
        """Read a checkpoint, with the config that it carries or with another.

        Args:
            model: A checkpoint, or ``gckd_mm://<name>``; or else a config.
            weights: The checkpoint, where ``model`` is a config.
            device: Defaults to the GPU if there is one.
        """
        is_config = isinstance(model, Config) or os.fspath(model).endswith('.py')
        if is_config == (weights is None):
            raise InputError(
                'name a checkpoint alone, or a config (.py) and its weights, got '
                f'{model if not isinstance(model, Config) else "a config"} and '
                f'{weights}'
            )
        where = os.fspath(weights if weights is not None else model)
        checkpoint = read_checkpoint(where)
        if isinstance(model, Config):
            cfg = model
        elif is_config:
            cfg = read_config(model)
        else:
            cfg = config_of(checkpoint, where)
        device = torch.device(
            device or ('cuda' if torch.cuda.is_available() else 'cpu')
        )
        refuse_foreign(checkpoint, where)
        model_settings = model_of(cfg, where)
        settings = encoders_alone(model_settings)
        # A config file is the user's own; the one in a checkpoint is anybody's.
        with nullcontext() if is_config else built_from(checkpoint, where):
            retriever = _build(settings)
            matching = _build(model_settings.get('matching'))
            state_dict = without_wrapper(checkpoint.get('state_dict', checkpoint))
            check_tensors(state_dict, where)
            own = state_dict
            if type_name(settings['type']) == 'DualEncoder':
                own = weights_of_encoders(state_dict)
            load_weights(retriever, {'state_dict': own}, where)
            if not _load_matching(matching, state_dict, checkpoint, where):
                matching = None
            source: tuple[str, str | None] | None = _absolute(where), None
            if isinstance(model, Config):  # which could not be read again
                source = None
            elif is_config:
                source = _absolute(model), _absolute(where)
            return cls(
                retriever,
                settings,
                gallery_pipeline(cfg),
                device,
                source,
                Path(where).stem,
                matching,
                cfg.get('default_scope'),
            )

    def prepare(self, image: str | np.ndarray) -> Tensor:
        """Read and resize one image: shape (3, H, W), uint8."""
        if isinstance(image, str):
            packed = self._from_path({'img_path': image})
        else:
            shape = image.shape[:2]
            packed = self._from_array(
                {'img': image, 'img_shape': shape, 'ori_shape': shape}
            )
        return packed['inputs']['images']

    def embed_images(self, prepared: Sequence[Tensor]) -> np.ndarray:
        """Embed N images: shape (N, D), float32."""
        return self._embed('images', prepared)

    def embed_captions(self, captions: Sequence[str]) -> np.ndarray:
        """Embed N captions: shape (N, D), float32."""
        return self._embed('captions', captions)

    def read_captions(self, captions: Sequence[str]) -> list[CaptionReading]:
        """Return which words of each caption are known, and where it is cut.

        With a tokenizer that is not one of ours all words count as known.
        """
        tokenizer = self.model.data_preprocessor.tokenizer
        if not isinstance(tokenizer, BaseTokenizer):
            return [CaptionReading(len(caption.split()), []) for caption in captions]
        return [tokenizer.read(caption) for caption in captions]

    @property
    def has_matching(self) -> bool:
        """Whether the model was trained with a matching head."""
        return self._matching is not None

    @torch.inference_mode()
    def match(self, caption: str, prepared: Sequence[Tensor]) -> np.ndarray:
        """Compare a caption with N images by the matching head; logits, shape (N,)."""
        head = self._matching
        if head is None:
            raise InputError(
                f'{self.name}: has no matching head that was trained, to re-rank with: '
                "adapt it with type='GCKDWithMatching' and matching=dict(type='"
                "ImageTextMatchingHead', …)"
            )
        logits = [np.empty(0, np.float32)]
        with self._autocast():
            words = self._inputs('captions', [caption])
            mask = words['attention_mask']
            tokens = head.tokens_of_captions(self.model.embed_captions(words)[1])
            for start in range(0, len(prepared), _PAIRS):
                images = self._inputs('images', prepared[start : start + _PAIRS])
                seen = head.tokens_of_images(self.model.embed_images(images)[1])
                pairs = (
                    part.expand(len(seen), *part.shape[1:]) for part in (tokens, mask)
                )
                logits.append(head.score(seen, *pairs).float().cpu().numpy())
        return np.concatenate(logits)

    @torch.inference_mode()
    def _embed(self, modality: str, inputs: Sequence[Any]) -> np.ndarray:
        with self._autocast():
            batch = {modality: self._inputs(modality, inputs)}
            feats = self.model.extract_feat(batch)[modality]
        return feats.float().cpu().numpy()

    def _inputs(self, modality: str, inputs: Sequence[Any]) -> Any:
        batch = {'inputs': {modality: list(inputs)}}
        return self.model.data_preprocessor(batch)['inputs'][modality]

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast('cuda') if self.device.type == 'cuda' else nullcontext()


def _absolute(path: str | os.PathLike[str]) -> str:
    path = os.fspath(path)
    return path if path.startswith(PACKAGED) else os.path.abspath(path)


def gallery_pipeline(cfg: Config) -> list[dict]:
    """Return the transforms of the images that a config tests on."""
    test_sets = cfg.get('test_dataloader') or {}
    found = [
        test_set['gallery']['dataset']['pipeline']
        for test_set in test_sets.values()
        if isinstance(test_set, dict) and 'gallery' in test_set
    ]
    if not found:
        raise InputError(
            'the config has no test_dataloader that says how the images of a gallery '
            'are read: test_dataloader = dict(name=dict(gallery=…, query=…))'
        )
    if any(pipeline != found[0] for pipeline in found):
        raise InputError(
            f'the test sets {", ".join(test_sets)} of the config read their images '
            f'differently: leave one in its test_dataloader'
        )
    return [dict(step) for step in found[0]]


def model_of(cfg: Config, where: str) -> dict[str, Any]:
    """Return the config of the retriever."""
    model = cfg.get('model')
    if not isinstance(model, dict) or not type_name(model.get('type')):
        raise InputError(f"{where}: the config has no model = dict(type='…', …)")
    return cfg.model.to_dict()


def _build(settings: Any) -> Any:
    if settings is None:
        return None
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        return MODELS.build(settings)


def _load_matching(
    head: nn.Module | None,
    state_dict: dict[str, Any],
    checkpoint: dict[str, Any],
    where: str,
) -> bool:
    """Load the matching head that the retriever was trained with, if it was."""
    prefix = 'matching.'
    own = {
        name.removeprefix(prefix): value
        for name, value in state_dict.items()
        if name.startswith(prefix)
    }
    # published without it, or not trained yet
    if head is None or not own or ended_in_source_stage(checkpoint):
        return False
    load_weights(head, {'state_dict': own}, where)
    return True


def _with_short_types(value: Any, scope: str | None, key: str = '') -> Any:
    """Write types as text, so that the fingerprint of a class is that of its name."""
    if isinstance(value, dict):
        return {k: _with_short_types(part, scope, k) for k, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_with_short_types(part, scope) for part in value)
    return short_type(value, scope) if key == 'type' else value


def _fingerprint(model: Any, described: list[Any]) -> str:
    text = json.dumps(described, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode())
    tensors = {**model.state_dict(), **dict(model.data_preprocessor.named_buffers())}
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f'{name} {tuple(value.shape)} {value.dtype}'.encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
