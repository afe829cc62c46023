"""Publish weights: python tools/publish_model.py CHECKPOINT RESULTS NAME [options]."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DefaultScope

import gckd_mm
from gckd_mm.checkpoint import (
    PACKAGED,
    PACKAGED_FOLDER,
    built_from,
    config_of,
    encoders_alone,
    load_weights,
    read_checkpoint,
    weights_of_encoders,
)
from gckd_mm.engine.launch import user_errors
from gckd_mm.errors import InputError
from gckd_mm.fileio import write_atomically
from gckd_mm.registry import MODELS
from gckd_mm.synthpedes.version import VERSION

_META = ('cfg', 'seed', 'iter', 'selection')
_RESULTS = (
    *('checkpoint', 'config', 'seed', 'iteration', 'selection'),
    *('torch', 'metrics'),
)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Put the weights of a checkpoint, without its optimiser, and what '
        'is known of them into two files: NAME.pth and NAME.json.'
    )
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('results', help='what tools/test.py --out wrote for it')
    parser.add_argument('name', help='name of the model')
    parser.add_argument('--command', default='', help='how the weights are made')
    parser.add_argument(
        '--folder',
        type=Path,
        default=PACKAGED_FOLDER,
        help=f'where to write (default: into the package, as {PACKAGED}NAME)',
    )
    parser.add_argument(
        '--encoders-only',
        action='store_true',
        help='leave out what only trains: the result is a DualEncoder to search with',
    )
    return parser.parse_args(arguments)


def bare(checkpoint: dict[str, Any], where: str, encoders_only: bool) -> dict[str, Any]:
    """Return a checkpoint that holds weights, the config and nothing more.

    Raises:
        InputError: If it has no weights, or its config cannot be read.
    """
    if 'state_dict' not in checkpoint:
        raise InputError(f'{where}: holds no state_dict')
    cfg = config_of(checkpoint, where)
    missing = [key for key in _META if key not in checkpoint['meta']]
    if missing:
        raise InputError(f'{where}: its meta holds no {", ".join(missing)}')
    meta = {key: checkpoint['meta'][key] for key in _META}
    with built_from(checkpoint, where), DefaultScope.overwrite_default_scope('gckd_mm'):
        load_weights(MODELS.build(cfg.model), checkpoint, where)
    state_dict = checkpoint['state_dict']
    if encoders_only:
        cfg.model = encoders_alone(cfg.model.to_dict())
        meta['cfg'] = cfg.pretty_text
        state_dict = weights_of_encoders(state_dict)
    return {'state_dict': state_dict, 'meta': meta}


def read_results(path: str) -> dict[str, Any]:
    """Read what ``tools/test.py --out`` wrote.

    Raises:
        InputError: If the file is something else.
    """
    try:
        results = json.loads(Path(path).read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path}: not a JSON file in UTF-8 ({error})') from error
    if not isinstance(results, dict) or not isinstance(results.get('checkpoint'), str):
        raise InputError(f'{path}: not what tools/test.py --out writes')
    missing = [name for name in _RESULTS if name not in results]
    if missing:
        raise InputError(f'{path}: holds no {", ".join(missing)}: see tools/test.py')
    return results


def describe(
    options: argparse.Namespace, checkpoint: dict[str, Any], data: bytes
) -> dict[str, Any]:
    """Return what is known of the weights.

    Raises:
        InputError: If the results are of another checkpoint, or none of a test.
    """
    results = read_results(options.results)
    if Path(results['checkpoint']).name != Path(options.checkpoint).name:
        raise InputError(
            f'{options.results}: are the results of {results["checkpoint"]}, not of '
            f'{options.checkpoint}'
        )
    return {
        'name': options.name,
        'command': options.command,
        'config': results['config'],
        'seed': results['seed'],
        'iteration': results['iteration'],
        'selection': results['selection'],
        'parameters': sum(
            value.numel()
            for key, value in checkpoint['state_dict'].items()
            if not key.endswith('_extra_state')
        ),
        'bytes': len(data),
        'sha256': hashlib.sha256(data).hexdigest(),
        'synthpedes': VERSION,
        'gckd_mm': gckd_mm.__version__,
        'torch': results['torch'],
        'metrics': results['metrics'],
    }


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Publish."""
    options = parse_arguments(arguments)
    if not Path(options.results).is_file():
        raise InputError(f'{options.results} does not exist: see tools/test.py')
    checkpoint = read_checkpoint(options.checkpoint)
    checkpoint = bare(checkpoint, options.checkpoint, options.encoders_only)
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    data = buffer.getvalue()
    description = describe(options, checkpoint, data)
    path = options.folder / f'{options.name}.pth'
    write_atomically(path, data)
    text = json.dumps(description, indent=2) + '\n'
    write_atomically(path.with_suffix('.json'), text)
    print(f'{path}: {len(data) / 1e6:.2f} MB; {path.with_suffix(".json")}')


if __name__ == '__main__':
    main()
