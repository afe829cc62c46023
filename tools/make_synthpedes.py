"""Draw a SynthPedes world: python tools/make_synthpedes.py [DOMAIN ...] [options]."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import track

from gckd_mm.datasets.transforms.load_person_image import read_image
from gckd_mm.engine.launch import user_errors, whole_number
from gckd_mm.errors import InputError
from gckd_mm.fileio import write_atomically
from gckd_mm.synthpedes.contact_sheet import ContactRow, render_contact_sheet
from gckd_mm.synthpedes.domain import (
    DOMAIN_NAMES,
    Shot,
    Sizes,
    SynthDomain,
    default_sizes,
)
from gckd_mm.synthpedes.version import VERSION
from gckd_mm.synthpedes.writer import (
    IMAGE_FOLDER,
    file_name,
    is_complete,
    write_domain,
)

DEFAULT_DOMAINS = ('street', 'mall', 'campus')
DEFAULT_OUT = 'data/synthpedes'
NUM_CROPS = 10
NEXT = 'python tools/train.py configs/baselines/source_only_street2mall.py'
EPILOG = """\
domains:
  street  written as CUHK-PEDES is
  mall    written as RSTPReid is
  campus  written as ICFG-PEDES is, with no val split
  web     outside of all worlds, noisy, for pre-training; drawn only if named

The files go to OUT/world<seed>/<domain>/, those of web to OUT/web/. A drawing that was
stopped is continued by the same command; one that is complete is left as it is.
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=f'Draw a world of SynthPedes {VERSION}.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'domains',
        metavar='DOMAIN',
        nargs='*',
        help=f'any of {", ".join(DOMAIN_NAMES)}; {" ".join(DEFAULT_DOMAINS)} if left '
        f'out',
    )
    parser.add_argument(
        '--world', type=whole_number(0), default=0, help='seed of the world (default 0)'
    )
    parser.add_argument(
        '--out',
        metavar='FOLDER',
        type=Path,
        default=DEFAULT_OUT,
        help=f'where to draw (default {DEFAULT_OUT})',
    )
    for split in ('train', 'val', 'test'):
        parser.add_argument(
            f'--{split}',
            type=int,
            metavar='N',
            help=f'ids of the {split} split, in the domains that have one '
            f'(default {_defaults(split)})',
        )
    parser.add_argument(
        '--images',
        type=int,
        metavar='N',
        help=f'pictures of each id (default {_defaults("images")})',
    )
    parser.add_argument(
        '--processes',
        type=int,
        metavar='N',
        help='how many draw; the number of processors if left out',
    )
    parser.add_argument(
        '--redraw',
        action='store_true',
        help='delete what was drawn there, by any version, and draw it again',
    )
    parser.add_argument(
        '--contact-sheet',
        metavar='PICTURE',
        type=Path,
        help='also write crops and captions of each domain into one picture',
    )
    options = parser.parse_args(arguments)
    options.domains = list(dict.fromkeys(options.domains)) or list(DEFAULT_DOMAINS)
    for name in options.domains:
        if name not in DOMAIN_NAMES:
            parser.error(
                f'argument DOMAIN: invalid choice: {name!r} (choose from '
                f'{", ".join(DOMAIN_NAMES)})'
            )
    if options.processes is not None and options.processes < 1:
        parser.error(f'argument --processes: must be positive, got {options.processes}')
    sheet = options.contact_sheet
    if sheet is not None and sheet.suffix.lower() not in _picture_suffixes():
        parser.error(
            f'argument --contact-sheet: must end in {" or ".join(_picture_suffixes())},'
            f' got {str(sheet)!r}'
        )
    return options


def _defaults(key: str) -> str:
    common = getattr(Sizes(), key)
    others = {
        name: getattr(default_sizes(name), key)
        for name in DOMAIN_NAMES
        if getattr(default_sizes(name), key) not in (common, 0)
    }
    return '; '.join([str(common), *(f'{name} {n}' for name, n in others.items())])


def _picture_suffixes() -> tuple[str, ...]:
    return '.png', '.jpg'


def make_domain(name: str, options: argparse.Namespace) -> SynthDomain:
    """Return a domain of the size that the command line asks for.

    Raises:
        InputError: If there is no such size.
    """
    sizes = default_sizes(name)
    # A split that is empty by default is one that the domain does not have.
    asked = {
        key: getattr(options, key)
        for key, default in sizes._asdict().items()
        if default and getattr(options, key) is not None
    }
    world = 0 if name == 'web' else options.world
    return SynthDomain(name, world, sizes._replace(**asked))


def folder_of(domain: SynthDomain, options: argparse.Namespace) -> Path:
    """Return where a domain is drawn."""
    if domain.name == 'web':
        return options.out / domain.name
    return options.out / f'world{domain.world}' / domain.name


def draw(
    domain: SynthDomain, folder: Path, options: argparse.Namespace, console: Console
) -> None:
    """Draw one domain, with a progress bar on a terminal, and say what was done."""
    if not options.redraw and is_complete(domain, folder):
        say(console, f'{folder}: {summary(domain)}, complete already')
        return
    bars = Console(stderr=True)

    def show_progress(items: Iterable[Any], total: int) -> Iterable[Any]:
        return track(
            items,
            description=f'drawing {domain.name}',
            total=total,
            console=bars,
            disable=not bars.is_terminal,
        )

    start = time.monotonic()
    write_domain(domain, folder, options.processes, options.redraw, show_progress)
    seconds = time.monotonic() - start
    say(console, f'{folder}: {summary(domain)}, drawn in {seconds:.0f} s')


def summary(domain: SynthDomain) -> str:
    """Describe a domain in a few words."""
    sizes = domain.sizes._asdict()
    per_id = sizes.pop('images')
    ids = ', '.join(f'{split} {count}' for split, count in sizes.items() if count)
    return f'ids: {ids}; pictures of each: {per_id}; read by {domain.dataset_type}'


def contact_row(domain: SynthDomain, folder: Path) -> ContactRow:
    """Read the first people of a domain, two pictures each where there are two."""
    people: dict[int, list[Shot]] = {}
    for shot in domain.shots():
        people.setdefault(shot.pid, []).append(shot)
    per_id = min(2, domain.sizes.images)
    people = dict(list(people.items())[: NUM_CROPS // per_id])
    shots = [shot for of_one in people.values() for shot in of_one[:per_id]]
    crops = [
        read_image(str(folder / IMAGE_FOLDER / file_name(domain, shot)))
        for shot in shots
    ]
    described = [index for index, shot in enumerate(shots) if shot.number == 0][:2]
    captions = [(index, domain.write_captions(shots[index])[0]) for index in described]
    return ContactRow(domain.name, crops, captions)


def write_contact_sheet(path: Path, rows: Sequence[ContactRow]) -> None:
    """Write the contact sheet.

    Raises:
        InputError: If it cannot be written.
    """
    data = io.BytesIO()
    Image.init()
    render_contact_sheet(rows).save(data, Image.EXTENSION[path.suffix.lower()])
    try:
        write_atomically(path, data.getvalue())
    except OSError as error:
        raise InputError(
            f'--contact-sheet {path}: cannot be written ({error.strerror})'
        ) from error


def say_what_next(
    console: Console, domains: Sequence[SynthDomain], options: argparse.Namespace
) -> None:
    """Print the commands that go on from here."""
    first = domains[0]
    say(
        console,
        f'check it: python tools/check_dataset.py {first.dataset_type} '
        f'{folder_of(first, options)}',
    )
    if {'street', 'mall'} <= {domain.name for domain in domains}:
        say(console, f'next: {NEXT}')
        if options.world or options.out != Path(DEFAULT_OUT):
            say(
                console,
                f'its config reads {DEFAULT_OUT}/world0: set each data_root in it to '
                f'train on {options.out}/world{options.world}',
            )


def say(console: Console, line: str) -> None:
    """Print a line as it is: unwrapped for grep, no markup."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)


@user_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the domains; return the exit code."""
    options = parse_arguments(arguments)
    console = Console()
    domains = [make_domain(name, options) for name in options.domains]
    try:
        for domain in domains:
            draw(domain, folder_of(domain, options), options, console)
    except KeyboardInterrupt:
        again = 'without --redraw ' if options.redraw else ''
        print(
            f'\nstopped: the same command {again}continues the drawing',
            file=sys.stderr,
        )
        return 130
    if options.contact_sheet is not None:
        rows = [contact_row(domain, folder_of(domain, options)) for domain in domains]
        write_contact_sheet(options.contact_sheet, rows)
        say(console, f'{options.contact_sheet}: a contact sheet')
    say_what_next(console, domains, options)
    return 0


if __name__ == '__main__':
    sys.exit(main())
