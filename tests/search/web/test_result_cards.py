from __future__ import annotations

from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gckd_mm.search.apis.query import Found
from gckd_mm.search.gallery import Item, Match
from gckd_mm.search.gallery.items import Stamp
from gckd_mm.search.web.result_cards import problem, result_cards

NASTY = '<script>alert("1")</script>&\'"'


class Reader(HTMLParser):
    """Collects tags, attributes and text, as a browser would."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ''
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def found(path: str, query: str = 'a man', **fields: Any) -> Found:
    return Found(query, [Match(Item(path, Stamp(1, 1), fields), 0.456)])


def test_a_card_shows_score_name_and_fields() -> None:
    reader = Reader(result_cards([found('a/b.jpg', camera='3', time=86400.0)]))
    for text in ('a man', '0.46', 'b.jpg', 'camera: 3', 'time: 1970-01-02 00:00:00'):
        assert text in reader.text
    sources = [value for name, value in reader.attributes if name == 'src']
    assert sources == ['picture?path=a%2Fb.jpg&height=256']


def test_everything_is_shown_as_text() -> None:
    results = [found(f'{NASTY}/{NASTY}.jpg', NASTY, note=NASTY)]
    plain = Reader(result_cards([found('a/b.jpg', 'c', note='d')]))
    reader = Reader(result_cards(results))
    assert reader.tags == plain.tags
    assert [name for name, _ in reader.attributes] == [x for x, _ in plain.attributes]
    assert reader.text.count(NASTY) == 2
    assert NASTY.rpartition('/')[2] + '.jpg' in reader.text
    (link, *_) = (value for name, value in reader.attributes if name == 'href')
    assert parse_qs(urlsplit(str(link)).query)['path'] == [f'{NASTY}/{NASTY}.jpg']
    assert Reader(problem(NASTY)).text == NASTY


def test_nothing_found_is_said() -> None:
    assert 'Nothing was found' in Reader(result_cards([Found('a man', [])])).text


def test_warnings_stand_above_the_cards() -> None:
    second_query = found('b.jpg', 'a woman')._replace(warnings=[NASTY, 'more'])
    html = result_cards([found('a.jpg'), second_query])
    first, second = html.split('<h3')[1:]
    assert 'class="warning"' not in first
    assert second.count('class="warning"') == 2
    assert second.index('more') < second.index('class="matches"')
    reader = Reader(html)
    assert 'script' not in reader.tags
    assert NASTY in reader.text
