"""The page of the worst queries: what it shows, and that it does nothing."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gckd_mm.visualization.rank_list_report import make_rank_list_report, worst_queries
from tests.visualization.searched import searched_set

IMAGE_PIDS = [1, 2, 3, 4]
QUERY_PIDS = [1, 2, 3, 4, 9]
#: first right images at ranks 1, 4, 2, 4 and nowhere
SCORES = [
    [0.9, 0.3, 0.2, 0.1],
    [0.9, 0.1, 0.3, 0.2],
    [0.9, 0.3, 0.5, 0.1],
    [0.4, 0.3, 0.2, 0.1],
    [0.4, 0.3, 0.2, 0.1],
]
CAPTIONS = [
    'a coat',
    '<script>alert(1)</script> & "a hat" <img src=x onerror=alert(2)>',
    'a bag',
    "shoes' </article><style>* { display: none }</style>",
    'nobody',
]


class Page(HTMLParser):
    """Collect elements, their attributes and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def attributes(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return ' '.join(' '.join(self.texts).split())


def _page(folder: Path, num: int, title: str = 'run', **names: str) -> Page:
    test_set = searched_set(folder, SCORES, QUERY_PIDS, IMAGE_PIDS, CAPTIONS, **names)
    return Page(make_rank_list_report([test_set], num, title, top=3))


def test_the_worst_come_first_and_unmatched_ones_never() -> None:
    ranks = np.array([1, 4, 2, 4, 0])
    assert worst_queries(ranks, 3).tolist() == [1, 3, 2]
    assert worst_queries(ranks, 9).tolist() == [1, 3, 2, 0]


def test_every_query_has_its_crops_and_its_first_right_image(tmp_path: Path) -> None:
    page = _page(tmp_path, num=3)
    places = [page.text.index(f'mall, query {row}: first') for row in (1, 3, 2)]
    assert places == sorted(places)
    assert 'query 1: first right image at rank 4' in page.text
    kinds = [attributes['class'] for attributes in page.attributes('figure')]
    assert kinds == [
        *('right sought', 'wrong', 'wrong', 'wrong'),
        *('right sought', 'wrong', 'wrong', 'wrong'),
        *('right sought', 'wrong', 'right', 'wrong'),
    ]
    colours = [_red_of(image['src']) for image in page.attributes('img')]
    assert colours[:4] == pytest.approx([10, 0, 20, 30], abs=3)  # of images 1, 0, 2, 3
    assert page.attributes('img')[0]['alt'] == 'rank 4, id 2, right'
    assert '✗ 0.900 rank 1 id 1' in page.text


def _red_of(source: str) -> float:
    kind, _, data = source.partition(',')
    assert kind == 'data:image/jpeg;base64'
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.format == 'JPEG'
        return float(np.asarray(image)[..., 0].mean())


def test_what_is_written_in_captions_and_names_is_only_text(tmp_path: Path) -> None:
    evil = '"><b onclick=1>'
    page = _page(tmp_path, 4, title='<i>run</i> & co', name=evil, prefix=evil)
    for caption in CAPTIONS[:4]:
        assert caption in page.text
    assert 'The worst queries of <i>run</i> & co' in page.text
    assert f'{evil}, query 1: first' in page.text
    assert page.attributes('figure')[0]['title'] == f'{evil}image_1.png'
    names = {name for name, _ in page.tags}
    assert not names & {'script', 'link', 'iframe', 'object', 'a', 'i'}
    assert len(page.attributes('style')) == 1
    assert len(page.attributes('img')) == 4 * 4
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith('on')]
        assert set(attributes) & {'href', 'srcset', 'style'} == set()


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    page = _page(tmp_path, num=4)
    metas = page.attributes('meta')
    assert {
        'name': 'viewport',
        'content': 'width=device-width, initial-scale=1',
    } in metas
    (policy,) = [meta['content'] for meta in metas if 'http-equiv' in meta]
    assert policy.startswith("default-src 'none';")
    (style,) = [text for text in page.texts if ':root' in text]
    assert 'prefers-color-scheme: dark' in style
    assert 'url(' not in style
    assert '@import' not in style


def test_the_summary_counts_matched_queries_alone(tmp_path: Path) -> None:
    # Rank-1 of four, one of which is right
    assert 'mall 25.00 5 1 2' in _page(tmp_path, num=2).text


def test_a_test_set_without_any_match_has_no_rank_1(tmp_path: Path) -> None:
    test_set = searched_set(tmp_path, SCORES[:1], [9], IMAGE_PIDS)
    page = Page(make_rank_list_report([test_set], 3, 'run'))
    assert 'mall – 1 1 0' in page.text
    assert page.attributes('figure') == []
