"""Search results as HTML: cards in a grid."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from gckd_mm.search.apis.query import Found
from gckd_mm.search.gallery import Match
from gckd_mm.search.web.service import shown_fields

THUMBNAIL_HEIGHT = 256
CSS = """
.matches { display: grid; gap: .75rem; padding: 0; margin: .5rem 0 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); list-style: none; }
.matches figure { margin: 0; }
.matches img { width: 100%; aspect-ratio: 1 / 2; object-fit: contain; display: block;
  border-radius: .4rem; background: var(--background-fill-secondary); }
.matches a:focus-visible { outline: 3px solid var(--color-accent); }
.matches figcaption { font-size: .8rem; overflow-wrap: anywhere; line-height: 1.35; }
.matches figcaption a { margin: 0; padding: 0; }
.matches .score { font-weight: 600; }
.matches .rank { float: right; color: var(--body-text-color-subdued); }
.searched { font-size: 1rem; margin: 0; }
.warning { padding: .25rem .75rem; margin: .5rem 0; border-left: 4px solid #d68910; }
.problem { padding: .75rem; border-left: 4px solid #c0392b; }
"""


def result_cards(results: Sequence[Found]) -> str:
    """Return the HTML of what was found; whatever is in it is shown as text."""
    return ''.join(map(_result, results))


def problem(message: str) -> str:
    """Return the HTML of a message that something is wrong."""
    return f'<p class="problem" role="alert">{escape(message)}</p>'


def _result(found: Found) -> str:
    heading = f'<h3 class="searched">{escape(found.query)}</h3>' + ''.join(
        f'<p class="warning" role="status">{escape(warning)}</p>'
        for warning in found.warnings
    )
    if not found.matches:
        return f'{heading}<p>Nothing was found.</p>'
    cards = ''.join(
        _card(rank, match) for rank, match in enumerate(found.matches, start=1)
    )
    return f'{heading}<ol class="matches">{cards}</ol>'


def _card(rank: int, match: Match) -> str:
    path = match.item.path
    at, name = quote(path, safe=''), escape(path.rpartition('/')[2])
    fields = ''.join(
        f'<br>{escape(field)}: {escape(value)}'
        for field, value in shown_fields(match.item).items()
    )
    label = f'match {rank}, {name}, similarity {match.score:.2f}'
    return (
        f'<li><figure><a href="picture?path={at}" target="_blank" rel="noopener" '
        f'title="{escape(path)}"><img loading="lazy" alt="{label}" '
        f'src="picture?path={at}&amp;height={THUMBNAIL_HEIGHT}"></a>'
        f'<figcaption><span class="score">{match.score:.2f}</span> '
        f'<span class="rank">{rank}</span><br>{name}{fields}<br>'
        f'<a href="?like={at}">more like this</a></figcaption></figure></li>'
    )
