"""Search pictures of people from the shell: ``gckd-search``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gckd_mm.apis import PersonSearchInferencer, Query
from gckd_mm.apis.search_reranking import RERANK_METHODS
from gckd_mm.cli.index import add_index_command
from gckd_mm.cli.printing import plain_warnings, print_pairs, print_table, progress_bar
from gckd_mm.cli.serve import add_serve_command
from gckd_mm.errors import InputError
from gckd_mm.gallery import Gallery, Match, parse_condition
from gckd_mm.gallery.damage import Checked, DamagedGalleryWarning
from gckd_mm.visualization import RankList, draw_rank_lists

EXIT_CODES = """exit codes:
  0  done; something was found
  1  nothing was found
  2  what was given is wrong; the message says what to do
  3  indexed, but some files could not be read; they are listed
  130  interrupted; what was indexed is kept
"""
FOUND, NOTHING, WRONG, INTERRUPTED = 0, 1, 2, 130


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='gckd-search',
        description='Find people in pictures by what they wear.',
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    add_index_command(commands)
    _add_query_command(commands)
    _add_info_command(commands)
    add_serve_command(commands)
    return parser


def _add_query_command(commands: Any) -> None:
    parser = commands.add_parser('query', help='find people in a gallery')
    parser.add_argument('gallery', help='folder of the gallery')
    parser.add_argument('text', nargs='*', help='descriptions: a search each')
    parser.add_argument('--image', help='a picture of someone who looks alike')
    parser.add_argument(
        '--without', default='', metavar='TEXT', help='what is unwanted: "a backpack"'
    )
    parser.add_argument('--top-k', type=int, default=10, metavar='K')
    parser.add_argument(
        '--where',
        action='append',
        default=[],
        metavar='CONDITION',
        help='camera=3, "time>=2026-11-22", …: repeat it for several',
    )
    parser.add_argument(
        '--exact', action='store_true', help='compare with every picture'
    )
    parser.add_argument(
        '--rerank',
        choices=RERANK_METHODS,
        help='order the first matches anew: by what they have in common, or by the '
        'matching head of the model',
    )
    parser.add_argument('--checkpoint', help="the gallery's model, if it was moved")
    parser.add_argument('--device', help='such as cuda:0 (default: the GPU, if any)')
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument('--json', action='store_true', help='print JSON')
    shown.add_argument(
        '--open', action='store_true', help='show the pictures that were found'
    )
    parser.set_defaults(run=query)


def _add_info_command(commands: Any) -> None:
    parser = commands.add_parser('info', help='tell what a gallery is')
    parser.add_argument('gallery', help='folder of the gallery')
    parser.add_argument(
        '--recall',
        type=int,
        metavar='N',
        help='also measure how many of the true nearest 10 a search finds, with N '
        'pictures of the gallery as queries',
    )
    parser.add_argument(
        '--verify',
        action='store_true',
        help='also compare all that is stored with its checksums',
    )
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=info)


def query(options: argparse.Namespace) -> int:
    """Search, and print what is found."""
    where = [parse_condition(text) for text in options.where]
    if not options.text and options.image is None:
        raise InputError('name a description or --image, or both')
    texts = options.text or ['']
    queries = [Query(text, options.without, options.image) for text in texts]
    with Gallery.open(options.gallery) as gallery:
        if options.checkpoint:
            inferencer = PersonSearchInferencer(
                options.checkpoint, device=options.device, show_progress=False
            )
        else:
            inferencer = PersonSearchInferencer.of_gallery(
                gallery, options.device, show_progress=False
            )
        found = inferencer.search(
            gallery, queries, options.top_k, where, options.exact, options.rerank
        )
        names = [_name(query) for query in queries]
        _show(options, gallery, names, found)
    return FOUND if any(found) else NOTHING


def info(options: argparse.Namespace) -> int:
    """Print what a gallery is."""
    # --verify tells of all that is damaged, not of what is found first
    with Gallery.open(options.gallery, check=not options.verify) as gallery:
        checked = _verified(gallery) if options.verify else []
        problems = [file.problem for file in checked if file.problem]
        known: dict[str, Any] = {}
        if not problems:
            known = gallery.info()
            if options.recall is not None:
                known['recall_at_10'] = gallery.measure_recall_on_own(options.recall)
        known |= {f'verified {x.name}': x.found for x in checked if not x.problem}
    if problems and options.json:
        known['damaged'] = problems
    if options.json:
        print(json.dumps(known, indent=2))
    else:
        print_pairs(known)
    if problems:
        raise InputError('\n'.join(problems))
    return FOUND


def _verified(gallery: Gallery) -> list[Checked]:
    with progress_bar('verifying') as progress:
        return gallery.verify(progress)


def _name(query: Query) -> str:
    parts = [query.text, f'like {query.image}' if query.image else '']
    without = f'without {query.without}' if query.without else ''
    return ', '.join(part for part in [*parts, without] if part)


def _show(
    options: argparse.Namespace,
    gallery: Gallery,
    names: list[str],
    found: list[list[Match]],
) -> None:
    if options.json:
        results = [
            {'query': name, 'matches': [_as_json(gallery, m) for m in matches]}
            for name, matches in zip(names, found, strict=True)
        ]
        print(json.dumps({'gallery': options.gallery, 'results': results}, indent=2))
        return
    several = len(names) > 1 and not sys.stdout.isatty()
    for name, matches in zip(names, found, strict=True):
        fields = sorted({field for match in matches for field in match.item.fields})
        rows = [_row(match, fields) for match in matches]
        if several:  # lines of a pipe have no title above them
            rows = [[name, *row] for row in rows]
        print_table(name, ['score', *fields, 'picture'], rows)
    if options.open:
        _open_picture(gallery, names, found)


def _row(match: Match, fields: Sequence[str]) -> list[str]:
    values = [str(match.item.fields.get(field, '')) for field in fields]
    return [f'{match.score:.3f}', *values, match.item.path]


def _as_json(gallery: Gallery, match: Match) -> dict[str, Any]:
    return {
        'path': match.item.path,
        'file': gallery.file_of(match.item),
        'score': round(match.score, 6),
        'fields': dict(match.item.fields),
    }


def _open_picture(gallery: Gallery, names: list[str], found: list[list[Match]]) -> None:
    lists = []
    for name, matches in zip(names, found, strict=True):
        there = [m for m in matches if os.path.isfile(gallery.file_of(m.item))]
        files = [gallery.file_of(match.item) for match in there]
        lists.append(RankList(name, files, [match.score for match in there]))
    handle, path = tempfile.mkstemp(prefix='gckd-search-', suffix='.png')
    os.close(handle)
    draw_rank_lists(lists).save(path)
    print(path, file=sys.stderr)
    webbrowser.open(Path(path).as_uri())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: see ``EXIT_CODES``.
    """
    options = make_parser().parse_args(arguments)
    try:
        with plain_warnings(DamagedGalleryWarning):
            return options.run(options)
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FOUND


if __name__ == '__main__':
    sys.exit(main())
