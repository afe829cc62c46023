"""Search pictures of people from the shell: ``gckd-search``."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import warnings
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import cv2
from PIL import Image

from gckd_mm.errors import InputError
from gckd_mm.search.apis import PersonSearchInferencer, Query
from gckd_mm.search.apis.search_reranking import RERANK_METHODS
from gckd_mm.search.cli.any_order_parser import AnyOrderParser
from gckd_mm.search.cli.index import add_index_command
from gckd_mm.search.cli.printing import (
    plain_warnings,
    print_pairs,
    print_table,
    progress_bar,
)
from gckd_mm.search.cli.serve import add_serve_command
from gckd_mm.search.gallery import Gallery, Match, parse_condition
from gckd_mm.search.gallery.damage import Checked, DamagedGalleryWarning
from gckd_mm.search.gallery.items import shortened, shown_value
from gckd_mm.visualization import RankList, render_rank_lists

EXIT_CODES = """exit codes:
  0  done; something was found
  1  nothing was found
  2  what was given is wrong; the message says what to do
  3  indexed, but some files could not be read; they are listed
  130  interrupted; what was indexed is kept
"""
FOUND, NOTHING, WRONG, INTERRUPTED = 0, 1, 2, 130


class Result(NamedTuple):
    """What a query found.

    Attributes:
        query: What was asked, for people.
        matches: Best first.
        warnings: What to know before trusting them, as sentences.
    """

    query: str
    matches: list[Match]
    warnings: list[str]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='gckd-search',
        description='Find people in pictures by what they wear.',
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        dest='command', required=True, metavar='COMMAND', parser_class=AnyOrderParser
    )
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
        help='camera=3, "time>=2026-11-22", …: repeat it for several, all of which '
        'must hold',
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
    if not all(text.strip() for text in options.text):
        number = [bool(text.strip()) for text in options.text].index(False) + 1
        raise InputError(
            f'description {number} is empty: a query needs a description or a picture'
        )
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
        warned = inferencer.query_warnings(queries)
        if where and not any(found):
            hints = gallery.hints(where)
            warned = [[*of_query, *hints] for of_query in warned]
        results = [
            Result(_name(query), matches, of_query)
            for query, matches, of_query in zip(queries, found, warned, strict=True)
        ]
        _warn(results)
        _show(options, gallery, results)
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
        # 0.1 stored nothing to compare with: that it can be read says little
        what = 'verified' if known.get('checksums', 'yes') == 'yes' else 'not verified'
        known |= {f'{what} {x.name}': x.found for x in checked if not x.problem}
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


def _warn(results: Sequence[Result]) -> None:
    """Print warnings to stderr, each once."""
    for warning in dict.fromkeys(x for result in results for x in result.warnings):
        about = [result.query for result in results if warning in result.warnings]
        where = f'{shortened(about[0])}: ' if len(about) < len(results) else ''
        print(f'warning: {where}{warning}', file=sys.stderr)


def _show(
    options: argparse.Namespace, gallery: Gallery, results: Sequence[Result]
) -> None:
    if options.json:
        shown = [
            {
                'query': result.query,
                'matches': [_as_json(gallery, match) for match in result.matches],
                'warnings': result.warnings,
            }
            for result in results
        ]
        print(json.dumps({'gallery': options.gallery, 'results': shown}, indent=2))
        return
    several = len(results) > 1 and not sys.stdout.isatty()
    for name, matches, _ in results:
        fields = sorted({field for match in matches for field in match.item.fields})
        rows = [_row(match, fields) for match in matches]
        if several:  # lines of a pipe have no title above them
            rows = [[name, *row] for row in rows]
        print_table(name, ['score', *fields, 'picture'], rows)
    if options.open:
        _open_picture(gallery, results)


def _row(match: Match, fields: Sequence[str]) -> list[str]:
    known = match.item.fields
    values = [
        str(shown_value(field, known[field])) if field in known else ''
        for field in fields
    ]
    return [f'{match.score:.3f}', *values, match.item.path]


def _as_json(gallery: Gallery, match: Match) -> dict[str, Any]:
    fields = match.item.fields
    return {
        'path': match.item.path,
        'file': gallery.file_of(match.item),
        'score': round(match.score, 6),
        'fields': {name: shown_value(name, value) for name, value in fields.items()},
    }


def _open_picture(gallery: Gallery, results: Sequence[Result]) -> None:
    lists = []
    for name, matches, _ in results:
        there = [m for m in matches if os.path.isfile(gallery.file_of(m.item))]
        files = [gallery.file_of(match.item) for match in there]
        lists.append(RankList(name, files, [match.score for match in there]))
    handle, path = tempfile.mkstemp(prefix='gckd-search-', suffix='.png')
    os.close(handle)
    render_rank_lists(lists).save(path)
    print(path, file=sys.stderr)
    if webbrowser.open(Path(path).as_uri()) is False:
        print('no program was found that shows it', file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: see ``EXIT_CODES``.
    """
    _print_whatever_comes()
    _quiet_decoders()
    options = make_parser().parse_args(arguments)
    try:
        with plain_warnings(DamagedGalleryWarning):
            code = options.run(options)
        sys.stdout.flush()  # a full disk shows here, and not while Python ends
        return code
    except InputError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        _discard_output()
        return FOUND
    except MemoryError:
        return _failed('the memory is full: a smaller --batch-size takes less')
    except OSError as error:
        _discard_output()
        where = f'{error.filename}: ' if error.filename else ''
        return _failed(f'{where}{error.strerror or error}')


def _print_whatever_comes() -> None:
    """Write as escapes what the encoding of the terminal or pipe lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')


def _quiet_decoders() -> None:
    """Keep OpenCV and Pillow from printing what our errors say, file by file."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    warnings.simplefilter('ignore', Image.DecompressionBombWarning)


def _failed(message: str) -> int:
    """Print what is wrong, on one line."""
    line = ' '.join(message.split())
    print(f'error: {line}', file=sys.stderr)
    return WRONG


def _discard_output() -> None:
    """Write no more to stdout, where what is left would fail again."""
    with suppress(OSError):  # it may have no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == '__main__':
    sys.exit(main())
