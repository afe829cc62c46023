from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gckd_mm.errors import InputError
from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.gallery import Gallery, Item
from gckd_mm.search.gallery.files import find_images
from gckd_mm.search.gallery.indexing import update
from gckd_mm.search.gallery.items import Stamp
from gckd_mm.search.web.service import (
    MAX_UPLOAD_BYTES,
    SearchService,
    read_upload,
    shown_fields,
)
from tests.search.web.conftest import COLOURS, crop


def paths(found: Any) -> list[list[str]]:
    return [[match.item.path for match in matches] for _, matches, _ in found]


def test_each_text_is_a_search(service: SearchService) -> None:
    texts = ['a man in red', '  ', 'a woman in blue']
    found = service.search(texts, top_k=3)
    assert [query for query, *_ in found] == ['a man in red', 'a woman in blue']
    expected = service.inferencer.search(service.gallery, [texts[0], texts[2]], 3)
    assert [matches for _, matches, _ in found] == expected


def test_pictures_alone_and_with_words(service: SearchService) -> None:
    green = np.asarray(crop(COLOURS['green'], 2))
    (alone,) = service.search(image=green, top_k=4)
    assert alone.query == 'like your picture'
    assert alone.matches[0].item.path == 'green2.png'
    (both,) = service.search(['a man'], 'a hat', green)
    assert both.query == 'a man, like your picture, without a hat'
    (like,) = service.search(like='green2.png', top_k=3)
    assert (like.query, paths([like])) == (
        'like green2.png',
        paths([alone])[:0] or [[m.item.path for m in alone.matches[1:]]],
    )


def test_scores_and_conditions_leave_out(service: SearchService) -> None:
    (everything,) = service.search(['a man'], top_k=20)
    threshold = everything.matches[4].score
    (best,) = service.search(['a man'], top_k=20, min_score=threshold)
    assert best.matches == everything.matches[:5]
    (some,) = service.search(['a man'], where=['camera=1', ' ', 'time<1970-01-03'])
    assert sorted(paths([some])[0]) == ['blue1.png', 'green1.png', 'red1.png']


def test_the_first_matches_are_ordered_anew(service: SearchService) -> None:
    (plain,) = service.search(['a man in red'], top_k=13)
    (anew,) = service.search(['a man in red'], top_k=13, rerank='k_reciprocal')
    assert anew.matches != plain.matches
    assert sorted(anew.matches) == sorted(plain.matches)
    (expected,) = service.inferencer.search(
        service.gallery, ['a man in red'], 13, rerank='k_reciprocal'
    )
    assert anew.matches == expected


@pytest.mark.parametrize(
    ('asked', 'message'),
    [
        ({}, 'needs a description or a picture'),
        ({'texts': ['a'] * 21}, 'at most 20 queries at once, got 21'),
        ({'texts': ['a' * 10_000]}, 'at most 2000 characters'),
        ({'texts': ['a'], 'top_k': 0}, 'top_k must be 1 to 200, got 0'),
        ({'texts': ['a'], 'top_k': 10**6}, 'top_k must be 1 to 200'),
        ({'texts': ['a'], 'where': ['camera']}, 'is no condition'),
        ({'like': '../crops/red1.png'}, 'has no picture'),
    ],
)
def test_bad_questions(
    service: SearchService, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        service.search(**asked)


def test_a_picture_is_the_file_or_a_small_copy(
    service: SearchService, coloured: Path
) -> None:
    original = service.image('red1.png')
    assert original.media_type == 'image/png'
    assert original.data == (coloured / 'crops/red1.png').read_bytes()
    small = service.image('red1.png', height=32)
    with Image.open(io.BytesIO(small.data)) as image:
        assert (image.format, image.size) == ('JPEG', (16, 32))


@pytest.mark.parametrize(
    'path',
    [
        'secret.txt',
        '../gallery/gallery.json',
        '/etc/passwd',
        '',
        'red1.png/../red2.png',
    ],
)
def test_nothing_but_pictures_of_the_gallery_is_handed_out(
    service: SearchService, path: str, coloured: Path
) -> None:
    absolute = str(coloured / 'crops/red1.png')
    for asked in (path, absolute):
        with pytest.raises(InputError, match='the gallery has no picture'):
            service.image(asked)


def test_files_that_changed_after_indexing(tmp_path: Path, coloured: Path) -> None:
    """Gone, replaced by a text, replaced by a link to a text."""
    crops = tmp_path / 'crops'
    crops.mkdir()
    (tmp_path / 'secret').write_text('a secret')
    inferencer = PersonSearchInferencer('gckd_mm://synthclip_tiny_web', device='cpu')
    for n in range(3):
        crop((n, n, n), n).save(crops / f'{n}.png')
    from gckd_mm.search.gallery.files import find_images
    from gckd_mm.search.gallery.indexing import update

    with inferencer.new_gallery(tmp_path / 'gallery', crops) as gallery:
        update(gallery, inferencer, find_images(crops))
        service = SearchService(gallery, inferencer)
        (crops / '0.png').unlink()
        (crops / '1.png').write_text('a secret')
        (crops / '2.png').unlink()
        os.symlink(tmp_path / 'secret', crops / '2.png')
        for n in range(3):
            for height in (None, 64):
                with pytest.raises(InputError, match='is there no longer, or is no pi'):
                    service.image(f'{n}.png', height)
        # searching goes on
        assert len(service.search(['a man'])[0].matches) == 3


def test_a_service_wants_the_gallerys_model(coloured: Path, tmp_path: Path) -> None:
    inferencer = PersonSearchInferencer('gckd_mm://synthclip_tiny_web', device='cpu')
    other = {'model': 'other', 'source': None}
    with (
        Gallery.create(tmp_path / 'g', other, 'f00', 128) as gallery,
        pytest.raises(InputError, match='was built by another model'),
    ):
        SearchService(gallery, inferencer)


def test_fields_are_offered(service: SearchService) -> None:
    choices = service.choices()
    assert choices['camera'] == ['0', '1', '2', '3']
    assert list(choices) == ['camera', 'note', 'time']


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_an_upload_is_turned_upright(service: SearchService) -> None:
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 2, 3))
    exif = Image.Exif()
    exif[0x0112] = 3
    upright = read_upload(encoded(image, 'PNG', exif=exif))
    np.testing.assert_array_equal(upright, np.asarray(image)[::-1, ::-1])


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (b'', 'is no picture'),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'is no picture'),
        (encoded(crop((1, 2, 3), 0), 'PNG')[:-40], 'is no picture'),
        (encoded(Image.new('1', (9000, 9000)), 'PNG'), 'is too large'),
        (bytes(MAX_UPLOAD_BYTES + 1), '10 MB at most'),
    ],
)
def test_bad_uploads(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_upload(data)


@pytest.fixture
def linked(tmp_path: Path) -> Iterator[SearchService]:
    """Crops of which some are links: out of the folder, and within it."""
    crops, away = tmp_path / 'crops', tmp_path / 'away'
    crops.mkdir()
    away.mkdir()
    for n, name in enumerate(('plain', 'other')):
        crop(COLOURS['red'], n).save(crops / f'{name}.png')
    crop(COLOURS['blue'], 2).save(away / 'far.png')
    crop(COLOURS['blue'], 3).save(away / 'secret.png')
    (crops / 'far.png').symlink_to(away / 'far.png')
    (crops / 'near.png').symlink_to(crops / 'other.png')
    inferencer = PersonSearchInferencer('gckd_mm://synthclip_tiny_web', device='cpu')
    with inferencer.new_gallery(tmp_path / 'gallery', crops) as gallery:
        update(gallery, inferencer, find_images(crops))
        yield SearchService(gallery, inferencer)


def test_links_lead_where_they_led_when_indexed(
    linked: SearchService, tmp_path: Path
) -> None:
    crops, away = tmp_path / 'crops', tmp_path / 'away'
    for name in ('plain', 'other', 'far', 'near'):
        assert linked.image(f'{name}.png').data == (crops / f'{name}.png').read_bytes()
    for name in ('plain.png', 'far.png'):
        (crops / name).unlink()
        (crops / name).symlink_to(away / 'secret.png')
        with pytest.raises(InputError, match='is there no longer, or is no picture'):
            linked.image(name)
        with pytest.raises(InputError, match='is there no longer, or is no picture'):
            linked.image(name, height=32)
    # a folder that has become a link
    crops.rename(tmp_path / 'moved')
    crops.symlink_to(away)
    (away / 'other.png').symlink_to(away / 'secret.png')
    assert linked.image('far.png').data == (away / 'far.png').read_bytes()


@pytest.mark.parametrize('kind', ['fifo', 'device', 'folder', 'loop', 'huge'])
def test_what_is_no_file_is_not_waited_for(
    linked: SearchService, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / 'crops/plain.png'
    path.unlink()
    if kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'device':
        path.symlink_to('/dev/zero')
    elif kind == 'folder':
        path.mkdir()
    elif kind == 'loop':
        path.symlink_to(path)
    else:
        with path.open('wb') as file:
            file.truncate(10**12)
    for height in (None, 32):
        with pytest.raises(InputError, match='is there no longer, or is no picture'):
            linked.image('plain.png', height)


def test_warnings_go_with_the_queries(
    service: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        PersonSearchInferencer,
        'query_warnings',
        lambda self, queries: [[f'{query.text}?', query.without] for query in queries],
    )
    for asked in (
        {'texts': ['a', ' ', 'b'], 'without': 'c'},
        {'texts': ['a'], 'like': 'red1.png', 'without': 'c'},
        {'like': 'red1.png'},
    ):
        for query, _, warnings in service.search(**asked):  # type: ignore[arg-type]
            expected = [] if query.startswith('like') else [f'{query[0]}?', 'c']
            assert warnings == expected


@pytest.mark.parametrize(
    ('seconds', 'shown'),
    [
        (0, '1970-01-01 00:00:00'),
        (1795336200, '2026-11-22 08:30:00'),
        (1e300, '1e+300'),
        (-1e15, '-1000000000000000.0'),
    ],
)
def test_moments_are_dates_where_they_can_be(seconds: float, shown: str) -> None:
    item = Item('a.png', Stamp(1, 1), {'time': seconds})
    assert shown_fields(item) == {'time': shown}
