"""Convert weights: python tools/convert_checkpoint.py --from FAMILY IN OUT [options].

The way back: python tools/convert_checkpoint.py --to hf IN OUT [options].
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gckd_mm.checkpoint import with_teacher
from gckd_mm.engine.launch import user_errors
from gckd_mm.errors import InputError
from gckd_mm.interop import (
    BACKBONES,
    FAMILIES,
    Conversion,
    convert,
    convert_backbone,
    export_hf,
)
from gckd_mm.interop.weight_files import (
    read_hf_config,
    read_weights,
    write_checkpoint,
    write_hf_folder,
)
from gckd_mm.models.hugging_face import TOKENIZER_FILES
from gckd_mm.models.tokenizers import HFTokenizer

#: where a retriever keeps its vocabulary
_TOKENIZER = 'data_preprocessor.tokenizer._extra_state'


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Convert a public CLIP into a checkpoint of a DualEncoder with '
        "CLIP towers, or such a checkpoint into a folder of transformers' CLIPModel; "
        'or a public EfficientNet-lite0 into the weights of an image backbone.'
    )
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument(
        '--from',
        dest='family',
        choices=sorted({**FAMILIES, **BACKBONES}),
        help='what IN is',
    )
    direction.add_argument('--to', choices=['hf'], help='what OUT is to be')
    parser.add_argument(
        'input', metavar='IN', help='file of torch or safetensors, or a folder (hf)'
    )
    parser.add_argument(
        'output', metavar='OUT', help='.pth or .safetensors; with --to hf, a folder'
    )
    parser.add_argument(
        '--image-size',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='resize the position grid to fit images of this size in pixels '
        '(default: leave it as it is)',
    )
    parser.add_argument(
        '--grid',
        nargs=2,
        type=int,
        metavar=('ROWS', 'COLUMNS'),
        help='position grid of IN, if it is not square',
    )
    parser.add_argument(
        '--clip-config',
        metavar='JSON',
        help="config.json of transformers' CLIPModel, for what weights do not tell: "
        "the number of heads and the activation (default: OpenAI's)",
    )
    parser.add_argument(
        '--tokenizer',
        metavar='FOLDER',
        help='folder of the tokenizer to put into OUT (default: the folder IN)',
    )
    parser.add_argument(
        '--teacher', action='store_true', help='export the teacher of an adapted model'
    )
    parser.add_argument(
        '--allow-missing', action='store_true', help='let weights be missing'
    )
    parser.add_argument(
        '--allow-unused', action='store_true', help='leave out keys of no known meaning'
    )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> Conversion:
    """Read, convert and write.

    Raises:
        InputError: If IN cannot be converted, or an option does not fit.
    """
    if options.family and options.teacher:
        raise InputError('--teacher belongs to --to hf')
    if options.to and options.tokenizer:
        raise InputError('--tokenizer belongs to --from')
    if options.family in BACKBONES:
        return run_backbone(options)
    found = read_weights(options.input)
    settings: dict[str, Any] = {
        'where': options.input,
        'given': found.config or found.meta.get('clip_config'),
        'grid': options.grid and tuple(options.grid),
        'image_size': options.image_size and tuple(options.image_size),
        'allow_unused': options.allow_unused,
        'allow_missing': options.allow_missing,
    }
    if options.clip_config is not None:
        settings['given'] = read_hf_config(options.clip_config)
    if options.to:
        weights = found.state_dict
        if options.teacher:
            weights = with_teacher({'state_dict': weights}, options.input)['state_dict']
        exported = export_hf(weights, **settings)
        write_hf_folder(options.output, exported.weights, exported.config)
        return exported
    converted = convert(found.state_dict, options.family, **settings)
    vocabulary = read_vocabulary(options, converted.config['text_config']['vocab_size'])
    meta = {
        'converted_from': options.family,
        'clip_config': converted.config,
        'ignored': converted.ignored,
        'unused': converted.unused,
        'missing': converted.missing,
    }
    write_checkpoint(options.output, {**converted.weights, **vocabulary}, meta)
    return converted


def run_backbone(options: argparse.Namespace) -> Conversion:
    """Read, convert and write the weights of an image backbone.

    Raises:
        InputError: See :func:`run`.
    """
    for name in ('image_size', 'grid', 'clip_config', 'tokenizer'):
        if getattr(options, name) is not None:
            flag = name.replace('_', '-')
            raise InputError(f'--{flag} is for a CLIP, not for {options.family}')
    converted = convert_backbone(
        read_weights(options.input).state_dict,
        options.family,
        options.input,
        allow_unused=options.allow_unused,
        allow_missing=options.allow_missing,
    )
    meta = {'converted_from': options.family, 'ignored': converted.ignored}
    write_checkpoint(options.output, converted.weights, meta)
    return converted


def read_vocabulary(options: argparse.Namespace, rows: int) -> dict[str, Tensor]:
    """Return the vocabulary as a retriever's state dict holds it, if there is one.

    Raises:
        InputError: If there is no tokenizer, or one of more than ``rows`` tokens.
    """
    folder = options.tokenizer
    if folder is None:
        if not any(Path(options.input, name).is_file() for name in TOKENIZER_FILES):
            return {}
        folder = options.input
    tokenizer = HFTokenizer(folder)
    if tokenizer.vocab_size > rows:
        raise InputError(
            f'{folder}: has {tokenizer.vocab_size} tokens, but the text encoder embeds '
            f'{rows}: it is the tokenizer of another model'
        )
    return {_TOKENIZER: tokenizer.get_extra_state()}


def report(options: argparse.Namespace, done: Conversion) -> str:
    """Say what was made, and list what was not."""
    count = sum(value.numel() for value in done.weights.values())
    lines = [
        f'{options.output}: {len(done.weights)} weights, {count / 1e6:.1f} million '
        f'numbers, from {options.input}'
    ]
    for name, keys in (
        ('ignored, having no place there', done.ignored),
        ('left out, of no known meaning', done.unused),
        ('missing', done.missing),
    ):
        if keys:
            parts = Counter(key.split('.')[0] for key in keys)
            lines.append(f'{name}: {len(keys)} keys')
            lines += [f'  {part}: {n}' for part, n in parts.items()]
    return '\n'.join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert."""
    with user_errors():
        options = parse_arguments(arguments)
        print(report(options, run(options)))


if __name__ == '__main__':
    main()
