"""A page of the queries that went worst, for a browser: one file, no scripts."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import PurePath

import numpy as np
from PIL import Image

from gckd_mm.datasets.transforms.load_person_image import read_image
from gckd_mm.visualization.rank_lists import RankList
from gckd_mm.visualization.searched_set import FirstRight, SearchedSet

_HEIGHT = 160  # of a thumbnail, at most
_QUALITY = 80  # of its JPEG

_STYLE = """
:root {
  color-scheme: light dark;
  --ink: #222; --faint: #666; --paper: #fff; --card: #f4f4f2;
  --right: #1e7d44; --wrong: #b8364a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #eee; --faint: #aaa; --paper: #16181a; --card: #222527;
    --right: #4cc37d; --wrong: #f0788a;
  }
}
body {
  font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 0 auto; padding: 1rem;
}
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .7rem .2rem 0; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
article {
  background: var(--card); border-radius: .5rem; padding: .8rem 1rem; margin: 1rem 0;
}
.caption { overflow-wrap: anywhere; margin: .4rem 0 .8rem; }
.found { display: flex; flex-wrap: wrap; gap: .6rem; margin: 0; padding: 0; }
figure { margin: 0; width: 5.5rem; font-size: .8rem; }
figure img {
  width: 100%; height: 9.5rem; object-fit: contain; box-sizing: border-box;
  border: 4px solid var(--faint); background: #888; display: block;
}
.right img { border-color: var(--right); }
.wrong img { border-color: var(--wrong); }
.right b { color: var(--right); }
.wrong b { color: var(--wrong); }
.sought { border-right: 2px dotted var(--faint); padding-right: .6rem; }
.faint { color: var(--faint); }
"""

# No script runs, and nothing is loaded, whatever a caption holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def worst_queries(ranks: np.ndarray, num: int) -> np.ndarray:
    """Return the rows of the largest ranks, the first of equal ones first.

    Args:
        ranks: Of each query's first right image, 0 where there is none: such a query
            is no failure of the model and never among the worst. Shape (Q,).
        num: How many.

    Returns:
        Shape (at most num,), int64, the worst first.
    """
    order = np.argsort(-ranks, kind='stable')
    return order[ranks[order] > 0][:num]


def make_rank_list_report(
    test_sets: Sequence[SearchedSet], num: int, title: str, top: int = 8
) -> str:
    """Write an HTML page of the queries of each test set that went worst.

    A query is the worse, the later its first right image comes. The page is one file:
    thumbnails are in it, and it neither runs nor loads anything.

    Args:
        test_sets: What was searched.
        num: Queries of each test set.
        title: What was tested, such as the checkpoint's name.
        top: Images of each query.
    """
    rows, articles = [], []
    for test_set in test_sets:
        ranks = test_set.first_right_ranks()
        worst = worst_queries(ranks, num)
        rows.append(_summary_row(test_set.name, ranks, len(worst)))
        for rank_list, row in zip(
            test_set.rank_lists(worst, top), worst.tolist(), strict=True
        ):
            sought = test_set.first_right(row)
            articles.append(_article(test_set.name, row, rank_list, sought))
    names = ('test set', 'R1', 'queries', 'unmatched', 'shown')
    header = ''.join(f'<th scope="col">{name}</th>' for name in names)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}: the worst queries</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>The worst queries of {escape(title)}</h1>
<div class="wide"><table>
<thead><tr>{header}</tr></thead>
<tbody>
{''.join(rows)}</tbody>
</table></div>
<p class="faint">Ranked by cosine similarity, shown under each image. The first image
of a query is its first right image, wherever it came. Unmatched queries, whose person
is on no image, are left out.</p>
{''.join(articles)}</body>
</html>
"""


def _summary_row(name: str, ranks: np.ndarray, num_shown: int) -> str:
    found = ranks[ranks > 0]
    first = f'{100 * (found == 1).mean():.2f}' if len(found) else '–'
    cells = (first, len(ranks), len(ranks) - len(found), num_shown)
    columns = ''.join(f'<td>{cell}</td>' for cell in cells)
    return f'<tr><td>{escape(name)}</td>{columns}</tr>\n'


def _article(
    test_set: str, row: int, rank_list: RankList, sought: FirstRight | None
) -> str:
    figures, rank = [], '–'
    if sought is not None:
        rank = str(sought.rank)
        kind = 'right sought'
        figures = [_figure(sought.image, sought.score, sought.id, sought.rank, kind)]
    correct = rank_list.correct or ()
    ids = rank_list.ids or [''] * len(rank_list.images)
    for place, image in enumerate(rank_list.images):
        score = rank_list.scores[place]
        kind = 'right' if correct[place] else 'wrong'
        figures.append(_figure(image, score, ids[place], place + 1, kind))
    return (
        f'<article>\n<h2>{escape(test_set)}, query {row}: first right image at rank '
        f'{rank}</h2>\n'
        f'<p class="caption">{escape(rank_list.caption)} '
        f'<span class="faint">(id&nbsp;{escape(rank_list.query_id)})</span></p>\n'
        f'<div class="found">\n{"".join(figures)}</div>\n</article>\n'
    )


def _figure(path: str, score: float, person: str, rank: int, kind: str) -> str:
    mark = '✓' if kind.startswith('right') else '✗'
    said = f'rank {rank}, id {person}, {"right" if mark == "✓" else "wrong"}'
    return (
        f'<figure class="{kind}" title="{escape(PurePath(path).name)}">'
        f'<img src="{_thumbnail(path)}" alt="{escape(said)}" loading="lazy">'
        f'<figcaption><b>{mark} {score:.3f}</b><br>rank {rank}<br>'
        f'<span class="faint">id {escape(person)}</span></figcaption></figure>\n'
    )


def _thumbnail(path: str) -> str:
    image = Image.fromarray(read_image(path))
    image.thumbnail((_HEIGHT, _HEIGHT), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, format='JPEG', quality=_QUALITY)
    return f'data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'
