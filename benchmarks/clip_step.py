"""What a step of CLIP costs here, against captions of 77 tokens and plain attention."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor

from gckd_mm.registry import MODELS
from gckd_mm.synthpedes.domain import SynthDomain

CONFIG = Path(__file__).parents[1] / 'configs/baselines/source_only_cuhk2rstp.py'
CONTEXT = 77
TOWERS = ('image_backbone', 'image_neck', 'text_backbone', 'text_neck')
#: at most this share of the time of 77 tokens and plain attention
MAX_TEXT_RATIO, MAX_STEP_RATIO = 0.75, 0.95


def clip_config() -> Config:
    """Return the config of source-only training on CLIP ViT-B/16, weights random."""
    cfg = Config.fromfile(CONFIG)
    for name in TOWERS:
        cfg.model[name].pop('pretrained')
    # There is nothing to learn: weights that move far would diverge.
    cfg.optim_wrapper.optimizer.lr = 1e-9
    return cfg


def caption_lengths(count: int) -> list[int]:
    """Return how many tokens the first captions of a synthetic domain have.

    Words and punctuation marks count one each, and start and end one each: 29 tokens
    on average.
    """
    domain, lengths = SynthDomain('street', 0), []
    for shot in domain.shots()[::4]:  # one picture of each person
        for caption in domain.write_captions(shot):
            marks = sum(caption.count(mark) for mark in '.,')
            lengths.append(min(CONTEXT, len(caption.split()) + marks + 2))
        if len(lengths) >= count:
            break
    return lengths[:count]


def captions_of(lengths: list[int], width: int, vocab_size: int) -> dict[str, Tensor]:
    """Return random token ids of these lengths, padded to ``width``."""
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids = torch.randint(1, vocab_size, mask.shape) * mask
    return {'input_ids': ids, 'attention_mask': mask}


def measure_clip(cfg: Config, batch_size: int, repeats: int) -> dict[str, Any]:
    """Time steps and text towers in turn: ours, and what public codes do.

    Args:
        cfg: Of a :class:`DualEncoder` on CLIP.
        batch_size: Pairs.
        repeats: Steps that count, after one that does not.

    Returns:
        ``step_ms`` and ``text_ms``, each ``{'ours': […], 'padded, eager': […]}``, and
        the ratios of their medians.
    """
    models, optims = {}, {}
    for name, attention in (('ours', 'sdpa'), ('padded, eager', 'eager')):
        for tower in ('image_backbone', 'text_backbone'):
            cfg.model[tower].attn_implementation = attention
        models[name] = model = MODELS.build(cfg.model)
        optims[name] = Runner.build_optim_wrapper(
            argparse.Namespace(model=model), cfg.optim_wrapper
        )
    lengths = caption_lengths((1 + repeats) * batch_size)
    vocab_size = cfg.model.text_backbone.config.vocab_size
    text: dict[str, list[float]] = {name: [] for name in models}
    step: dict[str, list[float]] = {name: [] for name in models}
    for number in range(1 + repeats):
        batch = lengths[number * batch_size :][:batch_size]
        images = torch.randn(batch_size, 3, *cfg.model.image_backbone.image_size)
        samples = [BaseDataElement(pid=n) for n in range(batch_size)]
        for name, model in models.items():
            width = max(batch) if name == 'ours' else CONTEXT
            captions = captions_of(batch, width, vocab_size)
            inputs = {'images': images, 'captions': captions}
            text[name].append(_milliseconds(_embed, model, captions))
            optims[name].zero_grad()
            step[name].append(
                _milliseconds(_train, model, optims[name], inputs, samples)
            )
    counted = {'text_ms': text, 'step_ms': step}
    for times in (text, step):
        for values in times.values():
            del values[0]
    ratios = {
        f'{key}_ratio': statistics.median(times['ours'])
        / statistics.median(times['padded, eager'])
        for key, times in (('text', text), ('step', step))
    }
    return {'batch_size': batch_size, **counted, **ratios}


def _embed(model: Any, captions: dict[str, Tensor]) -> None:
    model.embed_captions(captions)[0].sum().backward()


def _train(model: Any, optim: Any, inputs: dict[str, Any], samples: list) -> None:
    # mmengine's train_step, without the preparation of the batch
    optim.update_params(model.parse_losses(model.loss(inputs, samples))[0])


def _milliseconds(function: Callable[..., None], *args: Any) -> float:
    began = time.perf_counter()
    function(*args)
    return 1000 * (time.perf_counter() - began)
