"""Write the figures of a benchmark with what is needed to compare them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

from gckd_mm.fileio import write_atomically

_PACKAGES = ('torch', 'numpy', 'mmengine', 'gckd_mm')


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json PATH``, which asks for a report, to a benchmark's parser."""
    parser.add_argument(
        '--json',
        type=Path,
        metavar='PATH',
        help='also write the figures, with machine and versions, to this file',
    )


def write_report(path: str | os.PathLike[str], figures: dict[str, Any]) -> None:
    """Write figures, machine, versions and git commit to a JSON file, atomically.

    The report names neither the host nor any path of the machine.

    Args:
        path (str | PathLike): The file to write; missing folders are made.
        figures (dict[str, Any]): What was measured, in JSON's types.

    Raises:
        OSError: The file cannot be written; an older report is then left as it is.
        TypeError: The figures hold something that JSON does not.
        ValueError: The figures hold NaN or infinity, which JSON does not either.
    """
    report = {
        'figures': figures,
        'machine': _machine(),
        'versions': _versions(),
        'commit': commit(),
    }
    write_atomically(path, json.dumps(report, indent=2, allow_nan=False) + '\n')


def _machine() -> dict[str, Any]:
    """Return the processor's model, the usable cores and the memory in GiB."""
    return {'cpu': _cpu_model(), 'cores': _cores(), 'memory_gib': _memory_gib()}


def _cpu_model() -> str:
    """Return the processor's model as Linux names it, or as Python does elsewhere."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(':')
        if key.strip() == 'model name':
            return value.strip()
    return platform.processor() or platform.machine()


def _cores() -> int | None:
    """Return the number of cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory_gib() -> float | None:
    """Return the machine's memory in GiB, or None where the system does not say."""
    try:
        size = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    except (AttributeError, OSError, ValueError):
        return None
    return round(size / 2**30, 1)


def _versions() -> dict[str, str | None]:
    """Return the versions of Python and the packages; None for one not importable."""
    versions: dict[str, str | None] = {'python': platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = str(import_module(name).__version__)
        except (ImportError, AttributeError):
            versions[name] = None
    return versions


def commit() -> str | None:
    """Return the commit of the benchmark's own repository, or None outside git."""
    try:
        result = subprocess.run(
            ['git', 'rev-parse', 'HEAD'],
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
