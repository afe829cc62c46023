"""The check of an event, with components that the page does not have."""

from __future__ import annotations

from typing import Any

import pytest

from gckd_mm.errors import InputError

pytest.importorskip('gradio')
import gradio

from gckd_mm.search.web.json_errors import RefusedError
from gckd_mm.search.web.upload_paths import checked_event, is_session

_MINE = '/uploads/1/a.png'


def claim(path: str, session: str) -> None:
    if (path, session) != (_MINE, 'mine'):
        raise RefusedError(403, 'not uploaded')


def check(value: Any, block: Any) -> Any:
    body = {'data': [value], 'fn_index': 0, 'session_hash': 'mine'}
    return checked_event(body, {0: [block]}, claim, ['localhost:1'])['data'][0]


@pytest.mark.parametrize(
    'kind',
    [
        *(
            'Image',
            'File',
            'Audio',
            'Video',
            'Gallery',
            'ImageEditor',
            'Model3D',
            'State',
        ),
        *(
            'MultimodalTextbox',
            'Chatbot',
            'JSON',
            'Code',
            'HTML',
            'Markdown',
            'Dataframe',
        ),
        *(
            'UploadButton',
            'DownloadButton',
            'CheckboxGroup',
            'FileExplorer',
            'ImageSlider',
        ),
    ],
)
def test_a_component_that_nobody_knows_takes_uploads_alone(kind: str) -> None:
    block = getattr(gradio, kind)()
    assert check(None, block) is None
    meta = {'_type': 'gradio.FileData'}
    assert check({'path': _MINE}, block) == {'path': _MINE, 'meta': meta}
    for other in ('/etc/passwd', '', f'{_MINE}/', 'a.png'):
        file = {'path': other, 'meta': meta}
        values = (other, file, [file], {'value': file}, {'files': [file]}, [other])
        for value in values:
            with pytest.raises(RefusedError):
                check(value, block)


@pytest.mark.parametrize(
    'url',
    [
        'http://localhost:1/gradio_api/file=/uploads/1/a.png',
        'https://localhost:1/below/gradio_api/file=/uploads/1/a.png',
        '/gradio_api/file=/uploads/1/a.png',
        '/gradio_api/file=%2Fuploads%2F1%2Fa.png',
        None,
    ],
)
def test_the_address_of_an_upload(url: str | None) -> None:
    assert check({'path': _MINE, 'url': url}, gradio.Image()) is not None


@pytest.mark.parametrize(
    'url',
    [
        *('', 'http://[', '/etc/passwd', 'file:///uploads/1/a.png', 1, ['a'], _MINE),
        'http://evil/gradio_api/file=/uploads/1/a.png',
        'http://localhost:1/gradio_api/file=/uploads/1/b.png',
        'http://localhost:1/gradio_api/file=/uploads/1/a.png?a=/etc/passwd',
        'http://localhost:1@evil/gradio_api/file=/uploads/1/a.png',
        'file://localhost:1/gradio_api/file=/uploads/1/a.png',
        'http://localhost:1/gradio_api/proxy=/gradio_api/file=/etc/passwd',
    ],
)
def test_other_addresses_are_refused(url: Any) -> None:
    with pytest.raises(RefusedError, match='as the page names it'):
        check({'path': _MINE, 'url': url}, gradio.Image())


@pytest.mark.parametrize(
    ('block', 'good', 'bad'),
    [
        (gradio.Textbox(max_length=3), (None, '', 'abc'), ('abcd', 1, True, [], {})),
        (gradio.Slider(1, 5), (1, 5, 2.5), (None, 0, 6, '1', True, [1])),
        (
            gradio.Dropdown([('a', 'A'), ('b', 'B')]),
            (None, 'A', 'B'),
            ('a', 'C', 1, ['A'], {'A': 1}),
        ),
        (gradio.Dataset(samples=[['a'], ['b']]), (0, 1), (-1, 2, True, None, 'a')),
    ],
)
def test_values(block: Any, good: tuple[Any, ...], bad: tuple[Any, ...]) -> None:
    for value in good:
        assert check(value, block) == value
    for value in bad:
        with pytest.raises(InputError, match='cannot be what was sent'):
            check(value, block)


def test_names_of_sessions() -> None:
    assert all(map(is_session, ('a', 'a-B_9', 'a' * 64)))
    others = ('', 'a' * 65, 'ä', 'a/b', '..', 'a\n', None, 1, ['a'], '²')
    assert not any(map(is_session, others))
