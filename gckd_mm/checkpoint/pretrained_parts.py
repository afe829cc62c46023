"""Build a model of a checkpoint without what its config would read from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from gckd_mm.checkpoint.config_limits import UnfitError, check_kind
from gckd_mm.config_parts import kind_of, rewritten

#: keys of a model's parts that name what lies elsewhere: the checkpoint brings it
_ELSEWHERE = ('init_cfg', 'pretrained', 'file')
_ATTENTION = ('sdpa', 'eager')
_TOKENIZER_STATE = 'data_preprocessor.tokenizer._extra_state'
#: stands for the folder of a tokenizer that is not read
_IN_CHECKPOINT = '/the vocabulary lies in the checkpoint'
#: tower of transformers' CLIP -> its part of the config.json
_CLIP_PARTS = {'CLIPImageBackbone': 'vision_config', 'CLIPTextBackbone': 'text_config'}


def without_pretrained(model: Any) -> Any:
    """Leave out what a model would read from elsewhere, at any depth."""
    return rewritten(model, _from_checkpoint)


def _from_checkpoint(part: dict) -> dict:
    kept = {name: value for name, value in part.items() if name not in _ELSEWHERE}
    if kind_of(part) == 'HFTokenizer':
        kept['pretrained'] = _IN_CHECKPOINT
    # Other names are of kernels that transformers would fetch from the hub.
    if kept.get('attn_implementation', 'sdpa') not in (*_ATTENTION, None):
        kept['attn_implementation'] = 'sdpa'
    return kept


def with_sizes(
    model: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """State the sizes that a model would read where its pretrained weights lie."""
    sized = dict(model)
    for name in ('image_backbone', 'text_backbone'):
        part = sized.get(name)
        if not isinstance(part, dict):
            continue
        if part.get('pretrained') is not None and part.get('config') is None:
            config = _sizes_in(part['pretrained'], kind_of(part), name)
            part = {**part, 'config': config}
        if isinstance(part.get('config'), dict):
            part = {**part, 'config': _plain_sizes(part['config'])}
        sized[name] = part
    preprocessor: Any = sized.get('data_preprocessor')
    tokenizer: Any = None
    if isinstance(preprocessor, dict):
        tokenizer = preprocessor.get('tokenizer')
    if kind_of(tokenizer) == 'HFTokenizer' and not isinstance(
        tokenizer.get('vocab_size'), int
    ):
        rows = _rows_of_vocabulary(tensors.get(_TOKENIZER_STATE))
        tokenizer = {**tokenizer, 'vocab_size': rows}
        sized['data_preprocessor'] = {**preprocessor, 'tokenizer': tokenizer}
    return sized


def _plain_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of transformers' config what is no size: hooks to code and kernels."""
    return {
        name: value
        for name, value in config.items()
        if isinstance(value, bool | int | float | str)
        and not name.startswith('_')
        and not name.startswith(('attn_impl', 'auto', 'quant', 'kernel', 'use_kernel'))
    }


def _sizes_in(folder: Any, kind: str, name: str) -> dict[str, Any]:
    """Return the sizes in the config.json of a folder on this machine."""
    file = Path(str(folder)).expanduser() / 'config.json'
    if not file.is_file():
        raise UnfitError(
            f'model.{name} takes its sizes from {folder}, which is no folder here, and '
            f'no hub is asked'
        )
    try:
        found = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise UnfitError(f'{file} cannot be read: {error}') from error
    if isinstance(found, dict) and _CLIP_PARTS.get(kind) in found:
        found = found[_CLIP_PARTS[kind]]
    check_kind(found, dict, str(file))
    ignored = {'transformers_version', 'dtype', 'torch_dtype'}
    if kind in _CLIP_PARTS:
        ignored.add('model_type')
    return {key: value for key, value in found.items() if key not in ignored}


def _rows_of_vocabulary(state: Tensor | None) -> int:
    if state is None or state.dtype != torch.uint8 or not state.numel():
        raise UnfitError(
            'its tokenizer is of another place, and the checkpoint holds no vocabulary'
        )
    try:
        vocabulary = Tokenizer.from_buffer(state.numpy().tobytes()).get_vocab()
    # `tokenizers` raises plain Exceptions.
    except Exception as error:
        raise UnfitError(f'the vocabulary is damaged: {error}') from error
    return max(vocabulary.values(), default=-1) + 1
