"""``gckd-search query``: find people in a gallery."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from gckd_mm.errors import InputError
from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.apis.query import Found, Query
from gckd_mm.search.cli.printing import print_table
from gckd_mm.search.gallery import Gallery, Match, parse_condition
from gckd_mm.search.gallery.items import shortened, shown_value
from gckd_mm.visualization import RankList, render_rank_lists

FOUND, NOTHING_FOUND = 0, 1


def run(options: argparse.Namespace) -> int:
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
        inferencer = PersonSearchInferencer.of_gallery(
            gallery, options.device, show_progress=False, model=options.checkpoint
        )
        found = inferencer.search(
            gallery, queries, options.top_k, where, options.exact, options.rerank
        )
        hints = gallery.hints(where) if where and not any(found) else []
        warned = inferencer.query_warnings(queries)
        results = [
            Found(str(query), matches, [*of_query, *hints])
            for query, matches, of_query in zip(queries, found, warned, strict=True)
        ]
        _warn(results)
        _show(options, gallery, results)
    return FOUND if any(found) else NOTHING_FOUND


def _warn(results: Sequence[Found]) -> None:
    """Print warnings to stderr, each once."""
    for warning in dict.fromkeys(x for result in results for x in result.warnings):
        about = [result.query for result in results if warning in result.warnings]
        where = f'{shortened(about[0])}: ' if len(about) < len(results) else ''
        print(f'warning: {where}{warning}', file=sys.stderr)


def _show(
    options: argparse.Namespace, gallery: Gallery, results: Sequence[Found]
) -> None:
    if options.json:
        shown = [result.as_json() for result in results]
        for result, written in zip(results, shown, strict=True):
            for match, of_match in zip(result.matches, written['matches'], strict=True):
                of_match['file'] = gallery.file_of(match.item)
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
        _open_figure(gallery, results)


def _row(match: Match, fields: Sequence[str]) -> list[str]:
    known = match.item.fields
    values = [
        str(shown_value(field, known[field])) if field in known else ''
        for field in fields
    ]
    return [f'{match.score:.3f}', *values, match.item.path]


def _open_figure(gallery: Gallery, results: Sequence[Found]) -> None:
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
