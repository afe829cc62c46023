"""Check a dataset: python tools/check_dataset.py TYPE [DATA_ROOT] [options]."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import rich.box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

import gckd_mm
from gckd_mm.datasets import PersonTextDataset
from gckd_mm.datasets.checks import (
    Counts,
    DatasetReport,
    Finding,
    check_dataset,
    overlap_by_split,
    overlap_findings,
)
from gckd_mm.datasets.image_hashes import find_overlap
from gckd_mm.datasets.records import SPLITS
from gckd_mm.engine.launch import user_errors
from gckd_mm.fileio import write_atomically
from gckd_mm.registry import DATASETS

EXIT_CODES = """\
exit codes:
  0  fine, or warnings only
  1  problems: the annotation file is missing or malformed, images are missing or
     unreadable, an id or image is in two splits, an image is under two ids;
     with --strict also every warning: counts that differ from the published ones,
     copied images, overlap with the other dataset
  2  the command line is wrong
"""
STYLES = {'problem': 'bold red', 'warning': 'yellow', 'note': 'cyan'}


def dataset_types() -> dict[str, type[PersonTextDataset]]:
    """Return the registered person-text datasets by name."""
    return {
        name: dataset
        for name, dataset in sorted(DATASETS.module_dict.items())
        if isinstance(dataset, type) and issubclass(dataset, PersonTextDataset)
    }


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    types = dataset_types()
    parser = argparse.ArgumentParser(
        description='Check a dataset before training on it.',
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'type', metavar='TYPE', choices=types, help=f'one of {", ".join(types)}'
    )
    parser.add_argument(
        'data_root',
        metavar='DATA_ROOT',
        nargs='?',
        help="folder of the dataset; data/<the dataset's name> if left out",
    )
    parser.add_argument(
        '--ann-file', metavar='JSON', help='annotation file, relative to DATA_ROOT'
    )
    parser.add_argument(
        '--against',
        nargs=2,
        metavar=('TYPE', 'DATA_ROOT'),
        help='look for images that another dataset has as well, re-encoded or not',
    )
    parser.add_argument(
        '--skip-decoding',
        action='store_true',
        help='find missing images but no damaged ones, and with --against only '
        'copies that are the same byte for byte',
    )
    parser.add_argument(
        '--workers', type=int, help='threads; the number of processors if left out'
    )
    parser.add_argument(
        '--examples', type=int, default=5, help='lines to show of a finding (default 5)'
    )
    parser.add_argument('--json', metavar='PATH', help='write everything found')
    parser.add_argument('--strict', action='store_true', help='exit with 1 on warnings')
    options = parser.parse_args(arguments)
    if options.against and options.against[0] not in types:
        parser.error(
            f'argument --against: invalid choice: {options.against[0]!r} '
            f'(choose from {", ".join(types)})'
        )
    if options.workers is not None and options.workers < 1:
        parser.error(f'argument --workers: must be positive, got {options.workers}')
    return options


def examine(
    name: str, data_root: str | None, ann_file: str | None, options: argparse.Namespace
) -> DatasetReport:
    """Check one dataset, with a progress bar on a terminal."""
    dataset = dataset_types()[name](
        data_root=data_root, ann_file=ann_file, check_images=False, lazy_init=True
    )
    console = Console(stderr=True)
    return check_dataset(
        dataset,
        decode=not options.skip_decoding,
        hash_files=options.against is not None,
        workers=options.workers,
        track=lambda items, total: track(
            items,
            description=f'reading the images of {name}',
            total=total,
            console=console,
            disable=not console.is_terminal,
        ),
    )


def print_counts(console: Console, report: DatasetReport) -> None:
    """Print a row for each split, with the published count where it differs."""
    release = {
        'published': 'the published release',
        'older': 'an older release',
        'unknown': 'not a published release; in brackets: the published counts',
    }[report.release]
    name = f'{report.dataset}, {report.ann_file}'
    say(console, f'{name} ({release})' if report.published else name)
    table = new_table(console, 'split', numbers=Counts._fields)
    nothing = Counts(0, 0, 0)
    for split in SPLITS:
        if split not in report.counts and split not in report.published:
            continue
        found = report.counts.get(split, nothing)
        published = report.published.get(split, nothing) if report.published else found
        table.add_row(
            split,
            *(
                str(number) if number == expected else f'{number} ({expected})'
                for number, expected in zip(found, published, strict=True)
            ),
        )
    console.print(table)


def print_overlap(
    console: Console,
    overlap: dict[tuple[str, str], tuple[int, int]],
    report: DatasetReport,
    other: DatasetReport,
) -> None:
    """Print a row for each pair of splits that share images."""
    if not overlap:
        say(console, f'no image of {report.dataset} was found in {other.dataset}')
        return
    say(console, f'images of {report.dataset} that are in {other.dataset}')
    table = new_table(
        console,
        *(f'split of {dataset}' for dataset in (report.dataset, other.dataset)),
        numbers=('byte for byte', 'looks the same'),
    )
    for splits, numbers in overlap.items():
        table.add_row(*splits, *map(str, numbers))
    console.print(table)


def print_findings(
    console: Console, findings: Sequence[Finding], num_examples: int
) -> None:
    """Print each finding with its first examples."""
    for finding in findings:
        say(console, finding.message, finding.severity)
        for item in finding.items[:num_examples]:
            say(console, f'  {item}')
        left_out = len(finding.items) - num_examples
        if left_out > 0:
            say(console, f'  and {left_out} more (--json writes all)')
    if not findings:
        say(console, 'nothing to report')


def say(console: Console, line: str, severity: str | None = None) -> None:
    """Print a line as it is: unwrapped for grep, no markup, in any encoding."""
    line = line.encode(console.encoding, 'backslashreplace').decode(console.encoding)
    label = Text(f'{severity}: ', STYLES[severity]) if severity else Text()
    console.print(label + Text(line), soft_wrap=True)


def new_table(console: Console, *columns: str, numbers: Sequence[str]) -> Table:
    """Return a table of texts and numbers, in ASCII alone unless on a terminal."""
    box = rich.box.ROUNDED if console.is_terminal else rich.box.ASCII
    table = Table(*columns, box=box)
    for column in numbers:
        table.add_column(column, justify='right')
    return table


def as_json(
    report: DatasetReport,
    findings: Sequence[Finding],
    overlap: dict[tuple[str, str], tuple[int, int]] | None,
    options: argparse.Namespace,
    exit_code: int,
) -> str:
    """Write down everything found, and how it was looked for."""
    content: dict[str, Any] = {
        'dataset': report.dataset,
        'ann_file': report.ann_file,
        'release': report.release,
        'counts': {split: c._asdict() for split, c in report.counts.items()},
        'published': {split: c._asdict() for split, c in report.published.items()},
        'decoded': not options.skip_decoding,
        'findings': [finding._asdict() for finding in findings],
        'against': options.against,
        'exit_code': exit_code,
        'gckd_mm': gckd_mm.__version__,
    }
    if overlap is not None:
        content['overlap'] = [
            {'splits': splits, 'identical': identical, 'alike': alike}
            for splits, (identical, alike) in overlap.items()
        ]
    return json.dumps(content, indent=2) + '\n'


def exit_code_of(findings: Sequence[Finding], strict: bool) -> int:
    """Return 1 if a finding is a problem, or a warning under ``strict``; else 0."""
    fatal = {'problem', 'warning'} if strict else {'problem'}
    return int(any(finding.severity in fatal for finding in findings))


@user_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Check a dataset; return the exit code."""
    options = parse_arguments(arguments)
    console = Console()
    overlap = None
    report = examine(options.type, options.data_root, options.ann_file, options)
    findings = list(report.findings)
    print_counts(console, report)
    if options.against:
        name, data_root = options.against
        other = examine(name, data_root, None, options)
        matches = find_overlap(report.scan.hashes, other.scan.hashes)
        overlap = overlap_by_split(matches, report, other)
        findings += overlap_findings(matches, report, other)
        print_overlap(console, overlap, report, other)
    print_findings(console, findings, options.examples)
    exit_code = exit_code_of(findings, options.strict)
    if options.json:
        write_atomically(
            options.json, as_json(report, findings, overlap, options, exit_code)
        )
    return exit_code


if __name__ == '__main__':
    sys.exit(main())
