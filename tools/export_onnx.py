"""Export a checkpoint as ONNX: python tools/export_onnx.py CHECKPOINT OUT [options]."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import DefaultScope

from gckd_mm.checkpoint import PACKAGED
from gckd_mm.engine.launch import user_errors
from gckd_mm.errors import InputError
from gckd_mm.registry import DATASETS
from gckd_mm.search.apis.export_folder import check_new, read_settings
from gckd_mm.search.apis.onnx_encoder import OnnxEncoder
from gckd_mm.search.apis.torch_encoder import TorchEncoder
from gckd_mm.search.export.int8 import export_int8
from gckd_mm.search.export.random_inputs import BATCH_SIZES
from gckd_mm.search.export.retriever import export_retriever
from gckd_mm.search.export.scores import rank_1

DATASETS_OF_CAPTIONS = ('CUHKPEDES', 'ICFGPEDES', 'RSTPReid')


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Write the two encoders of a checkpoint as ONNX, with all that is '
        'needed to run them: image.onnx, text.onnx, tokenizer.json and export.json.'
    )
    parser.add_argument(
        'checkpoint', help=f'checkpoint file, or {PACKAGED}NAME for shipped weights'
    )
    parser.add_argument('out', help='folder to make')
    parser.add_argument('--config', help='for a checkpoint of components of others')
    parser.add_argument(
        '--torch-export',
        action='store_true',
        help='write image.pt2 and text.pt2 of torch.export, too',
    )
    parser.add_argument(
        '--int8',
        action='store_true',
        help='store matrix products and tables of embeddings in 8 bits',
    )
    parser.add_argument(
        '--dataset',
        metavar='TYPE',
        help='with --int8, measure Rank-1 before and after on a dataset: CUHKPEDES, '
        'ICFGPEDES, RSTPReid',
    )
    parser.add_argument('--data-root', help='folder of the dataset')
    parser.add_argument('--split', default='test', help='of the dataset')
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> list[str]:
    """Export; return what is to be said of it.

    Raises:
        InputError: If the checkpoint cannot be exported, or an option does not fit.
    """
    if options.int8 and options.torch_export:
        raise InputError('--torch-export writes float32: leave --int8 out')
    if options.dataset and not options.int8:
        raise InputError('--dataset belongs to --int8')
    if options.data_root and not options.dataset:
        raise InputError('--data-root belongs to --dataset')
    check_new(options.out)
    test_set = read_test_set(options) if options.dataset else None
    model, weights = options.checkpoint, None
    if options.config:
        model, weights = options.config, options.checkpoint
    encoder = TorchEncoder.read(model, weights, device='cpu')
    if not options.int8:
        return export(encoder, options.out, options.torch_export)
    with tempfile.TemporaryDirectory() as folder:
        exact = Path(folder) / 'float32'
        lines = export(encoder, exact)[:-1]
        cosine = export_int8(exact, options.out)
        lines.append(f'int8: cosine with float32 at least {cosine:.4f}')
        if test_set is None:
            lines.append(
                'int8: the loss of Rank-1 was not measured (--dataset, --data-root)'
            )
        else:
            before, after = (
                rank_1(OnnxEncoder(path), *test_set) for path in (exact, options.out)
            )
            lines.append(
                f'Rank-1 on {options.dataset} {options.split}: {before:.2f} in '
                f'float32, {after:.2f} in int8 ({after - before:+.2f})'
            )
    return [*lines, summary(options.out)]


def read_test_set(options: argparse.Namespace) -> tuple[Any, Any]:
    """Return the dataset that shows images, and the one that shows captions.

    Raises:
        InputError: If there is no such dataset, or it is not there.
    """
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        if options.dataset not in DATASETS_OF_CAPTIONS:
            raise InputError(
                f'--dataset must be one of {", ".join(DATASETS_OF_CAPTIONS)}, got '
                f'{options.dataset!r}'
            )
        settings = dict(type=options.dataset, split=options.split, pipeline=[])
        if options.data_root:
            settings['data_root'] = options.data_root
        images, captions = (
            DATASETS.build(dict(settings, view=view)) for view in ('images', 'captions')
        )
    return images, captions


def export(
    encoder: TorchEncoder, folder: str | Path, torch_export: bool = False
) -> list[str]:
    """Export in float32; return what is to be said of it."""
    found = export_retriever(encoder, folder, torch_export)
    sizes = ', '.join(map(str, BATCH_SIZES))
    lines = [
        f'{suffix}: embeddings differ from PyTorch by at most {worst.images:.1e} '
        f'(images) and {worst.captions:.1e} (captions), in batches of {sizes}'
        for suffix, worst in found.items()
    ]
    return [*lines, summary(folder)]


def summary(folder: str | Path) -> str:
    """Say what was written."""
    settings = read_settings(Path(folder))
    files = ', '.join(
        f'{path.name} {path.stat().st_size / 1e3:,.1f} kB'
        for path in sorted(Path(folder).iterdir())
    )
    return f'{folder}: {files}; fingerprint {settings.fingerprint}'


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Export."""
    for line in run(parse_arguments(arguments)):
        print(line)


if __name__ == '__main__':
    main()
