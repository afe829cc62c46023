"""Print a config as a run would see it: python tools/print_config.py CONFIG."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gckd_mm.engine.direction import add_direction_options, turned
from gckd_mm.engine.launch import (
    ConfigOptions,
    merge_options,
    read_config,
    user_errors,
)
from gckd_mm.errors import InputError


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the merged config, or one key of it."""
    parser = argparse.ArgumentParser(description='Print a config, all bases merged.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--key', help='print this key alone, such as model.heads')
    parser.add_argument(
        '--cfg-options', nargs='+', action=ConfigOptions, default={}, help='a.b=1 …'
    )
    add_direction_options(parser)
    options = parser.parse_args(arguments)
    cfg = turned(read_config(options.config), options.source, options.target)
    merge_options(cfg, options.cfg_options)
    if options.key is None:
        print(cfg.pretty_text)
        return
    value = cfg.get(options.key.split('.')[0])
    for part in options.key.split('.')[1:]:
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        raise InputError(f'{options.config}: no key {options.key!r}, or it is None')
    print(value)


if __name__ == '__main__':
    main()
