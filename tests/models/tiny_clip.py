"""A tiny CLIP and a tiny BERT with random weights, as folders of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip('transformers')

START, END = '<|startoftext|>', '<|endoftext|>'
MERGES = ['a n</w>', 'm an</w>', 'r e', 're d</w>', 'c o', 'co a', 'coa t</w>']

VISION = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    image_size=32,
    patch_size=8,
)
TEXT = dict(
    hidden_size=24,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=77,
)
BERT = dict(
    vocab_size=60,
    hidden_size=24,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=40,
)


def shaken(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give every weight a value that shows: at first biases are 0, gains are 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
            if 'norm' in name.lower() and name.endswith('weight'):
                weight.add_(1)
    return model.eval()


def clip_vocabulary() -> dict[str, int]:
    """The letters of all bytes, inside a word and at its end; merges; start and end."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable]
    letters += [chr(256 + number) for number in range(len(rest))]
    tokens = [*letters, *(f'{letter}</w>' for letter in letters)]
    tokens += [merge.replace(' ', '') for merge in MERGES]
    return {token: number for number, token in enumerate([*tokens, START, END])}


def write_clip_tokenizer(folder: Path) -> Path:
    """Write the two files of OpenAI's tokenizer, with few merges."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'vocab.json').write_text(json.dumps(clip_vocabulary()), encoding='utf-8')
    lines = ['#version: 0.2', *MERGES, '']
    (folder / 'merges.txt').write_text('\n'.join(lines), encoding='utf-8')
    return folder


def clip_model(seed: int = 0, **vision: int) -> torch.nn.Module:
    vocabulary = clip_vocabulary()
    config = transformers.CLIPConfig(
        vision_config={**VISION, **vision},
        text_config=dict(
            TEXT,
            vocab_size=len(vocabulary),
            bos_token_id=vocabulary[START],
            eos_token_id=vocabulary[END],
        ),
        projection_dim=16,
    )
    return shaken(transformers.CLIPModel(config), seed)


def write_clip(folder: Path, **vision: int) -> Path:
    clip_model(**vision).save_pretrained(folder)
    return write_clip_tokenizer(folder)


def bert_model(seed: int = 0) -> torch.nn.Module:
    return shaken(transformers.BertModel(transformers.BertConfig(**BERT)), seed)


def write_bert(folder: Path) -> Path:
    """Write a BERT and its vocabulary of as many words as it has rows."""
    bert_model().save_pretrained(folder)
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'man', 'red', 'coat']
    words += [f'word{number}' for number in range(BERT['vocab_size'] - len(words))]
    (folder / 'vocab.txt').write_text('\n'.join(words), encoding='utf-8')
    config = {'tokenizer_class': 'BertTokenizer', 'do_lower_case': True}
    (folder / 'tokenizer_config.json').write_text(json.dumps(config))
    return folder


def features(output: torch.Tensor | object) -> torch.Tensor:
    """What ``get_image_features`` means: a tensor, or since 5.0 an output with one."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def towers(folder: Path, sizes: bool = False) -> dict[str, Any]:
    """The parts of a dual encoder of this CLIP, as a user would write them.

    Args:
        folder: Of the CLIP.
        sizes: Whether to state them, so that the folder is read before training alone.
    """
    clip, image, text, tokens = str(folder), {}, {}, {}
    if sizes:
        tokens = dict(vocab_size=len(clip_vocabulary()))
        image = dict(config=VISION)
        text = dict(config=dict(TEXT, **tokens))
    neck = dict(type='TokenProjection', out_channels=16, pretrained=clip)
    return dict(
        data_preprocessor=dict(
            type='PersonTextPreprocessor',
            tokenizer=dict(type='HFTokenizer', pretrained=clip, **tokens),
        ),
        image_backbone=dict(
            type='CLIPImageBackbone', pretrained=clip, image_size=(64, 32), **image
        ),
        image_neck=dict(neck, in_channels=VISION['hidden_size']),
        text_backbone=dict(type='CLIPTextBackbone', pretrained=clip, **text),
        text_neck=dict(neck, in_channels=TEXT['hidden_size'], pooling='eos'),
        heads=dict(sdm=dict(type='SDMHead')),
    )
