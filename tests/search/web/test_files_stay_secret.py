"""No path that a client names is read, on any input of any event of the page."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from gckd_mm.search.web.service import SearchService
from gckd_mm.search.web.uploads import Uploads
from tests.search.web.live_server import live_server, reference, upload

_SECRET = b'-----BEGIN PRIVATE KEY----- 7Qk3vTz'
#: addresses of events, as several versions of Gradio have them
_EVENTS = (
    *('queue/join', 'queue/join/', 'run/predict', 'run/search', 'run/search/'),
    *('api/predict', 'api/search', 'call/search', 'call/v2/search', 'call/predict'),
    *('stream/1', 'component_server', 'component_server/', 'process_recording'),
    *('vibe-edit', 'vibe-code', 'reset', 'cancel', 'undo-vibe-edit'),
)


class Served:
    """A server, whoever asks it, and what it must not touch."""

    def __init__(self, client: httpx.Client, folder: Path, uploads: Uploads) -> None:
        self.client = client
        self.folder = folder
        self.uploads = uploads
        self.config = client.get('/config').json()
        self.mine = ''
        self._numbers = itertools.count()

    def session(self) -> str:
        return f'session{next(self._numbers)}'

    def events(self) -> list[tuple[int, list[Any]]]:
        """Return number and inputs of each event that ``/config`` tells of."""
        blocks = {block['id']: block for block in self.config['components']}
        return [
            (event['id'], [blocks[number] for number in event['inputs']])
            for event in self.config['dependencies']
        ]

    def send(self, route: str, event: int, data: list[Any], **more: Any) -> Any:
        body = {
            'data': data,
            'fn_index': event,
            'trigger_id': None,
            'event_data': None,
            'session_hash': self.session(),
            **more,
        }
        return self.client.post(f'/gradio_api/{route}', json=body)


@pytest.fixture(scope='module')
def served(
    service: SearchService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp('secret')
    (folder / 'key').write_bytes(_SECRET)
    (folder / 'link').symlink_to(folder / 'key')
    os.mkfifo(folder / 'fifo')
    uploads = Uploads(folder / 'base')
    with (
        live_server(service, uploads=uploads) as address,
        httpx.Client(base_url=address, timeout=20) as client,
    ):
        yield Served(client, folder, uploads)


@pytest.fixture(scope='module')
def paths(served: Served, coloured: Path) -> list[str]:
    """Paths of everything that is no upload to this server."""
    key = str(served.folder / 'key')
    other = Uploads(served.folder / 'other')
    elsewhere = other.add(_SECRET, '.png', None)
    mine = served.mine = upload(served.client, _SECRET)
    beside = served.uploads.folder / 'beside.png'
    beside.write_bytes(_SECRET)
    (served.uploads.folder / 'link.png').symlink_to(key)
    shared = Path(tempfile.gettempdir()) / 'gradio' / 'a' / 'b.png'
    name = os.path.basename(mine)
    return [
        key,
        str(served.folder / 'missing'),
        '/etc/passwd',
        '/proc/self/environ',
        '/dev/zero',
        '/dev/stdin',
        str(served.folder / 'fifo'),
        str(served.folder / 'link'),
        str(served.folder),
        str(served.uploads.folder),
        str(coloured / 'crops/red1.png'),
        str(coloured / 'gallery/gallery.json'),
        elsewhere,
        str(beside),
        str(served.uploads.folder / 'link.png'),
        str(shared),
        os.path.relpath(key),
        'red1.png',
        name,
        f'./{mine}',
        f'{mine}/',
        f'{mine}/.',
        f'{mine}\0',
        f'/{mine}',
        f'{served.uploads.folder}/../{served.uploads.folder.name}/{name}',
        f'{served.uploads.folder}/./{name}',
        f'{served.uploads.folder}/../../key',
        f'{mine}/../../../key',
        quote(key),
        quote(key, safe=''),
        quote(quote(mine, safe=''), safe=''),
        quote(mine, safe=''),
        f'file://{key}',
        f'file://{mine}',
        f'/gradio_api/file={key}',
        f'/file={key}',
        f'http://127.0.0.1:9/{key}',
        'http://169.254.169.254/latest/meta-data',
        'data:image/png;base64,iVBORw0KGgo=',
        '\\\\server\\share',
        'C:\\Windows\\win.ini',
        '~/.ssh/id_rsa',
        '',
        '.',
    ]


def shapes(path: str, mine: str) -> list[Any]:
    """Return what could make a server take a path for that of an upload."""
    meta = {'_type': 'gradio.FileData'}
    file = reference(path)
    return [
        file,
        {'path': path},
        {
            **file,
            'url': path,
            'orig_name': 'a.png',
            'size': 1,
            'mime_type': 'image/png',
        },
        {**file, 'is_stream': True},
        {'Path': path, 'meta': meta},
        {'path': [path], 'meta': meta},
        {'path': {'path': path}, 'meta': meta},
        {'name': path, 'is_file': True, 'data': None},
        {'path': mine, 'url': path, 'meta': meta},
        {'path': mine, 'meta': meta, 'also': file},
        {'value': file, '__type__': 'update'},
        {'image': file, 'background': file, 'layers': [file], 'composite': file},
        {'files': [file], 'text': 'a man'},
        {'video': file, 'subtitles': file},
        [file],
        [[file]],
        [[file, None], [file, 'a caption']],
        {'a': {'b': [{'c': file}]}},
    ]


def test_no_event_takes_a_path_that_was_not_uploaded(
    served: Served, paths: list[str]
) -> None:
    mine = upload(served.client, _SECRET)
    answers: dict[tuple[str, int, int], set[tuple[int, str]]] = {}
    for event, inputs in served.events():
        default = [block['props'].get('value') for block in inputs]
        for at, path in itertools.product(range(len(inputs)), paths):
            # all shapes of some, some of all: every pair takes a minute
            few = None if path in paths[:6] else 2
            sent = [('queue/join', shape) for shape in shapes(path, mine)[:few]]
            for route, shape in [*sent, ('run/predict', reference(path))]:
                data = [*default[:at], shape, *default[at + 1 :]]
                answer = served.send(route, event, data)
                assert 400 <= answer.status_code < 500, (route, event, at, shape)
                assert set(answer.json()) == {'error'}
                kind = (answer.status_code, answer.text)
                answers.setdefault((route, event, at), set()).add(kind)
    assert answers, 'the page reads no input'
    # whether something is there, and what, makes no difference
    assert all(len(different) <= 3 for different in answers.values()), answers
    assert_nothing_was_read(served)


def test_no_route_of_events_takes_one(served: Served, paths: list[str]) -> None:
    for route, path in itertools.product(_EVENTS, paths[:12]):
        for event, inputs in served.events():
            data = [reference(path) for _ in inputs] or [reference(path)]
            answer = served.send(route, event, data)
            assert 400 <= answer.status_code < 500, (route, event)
    assert_nothing_was_read(served)


@pytest.mark.parametrize(
    'more',
    [
        {'event_data': '{file}'},
        {'event_data': {'value': '{file}', 'index': 0}},
        {'batched': True, 'data': [['{file}']]},
        {'simple_format': True},
        {'event_id': '{file}'},
        {'request': '{file}'},
        {'oauth_token': 'hf_x'},
        {'session_hash': '{file}'},
        {'session_hash': '../../a'},
        {'session_hash': None},
        {'session_hash': 'a' * 65},
        {'session_hash': 'ä'},
        {'trigger_id': '{file}'},
        {'trigger_id': 1.5},
        {'trigger_id': -1},
        {'fn_index': '1'},
        {'fn_index': True},
        {'fn_index': 10**6},
        {'fn_index': -1},
        {'fn_index': None},
        {'data': '{file}'},
        {'data': {'0': '{file}'}},
        {'data': []},
        {'data': None},
        {'state': '{file}'},
    ],
)
def test_nor_any_other_part_of_a_body(served: Served, more: dict[str, Any]) -> None:
    file = json.dumps(reference(str(served.folder / 'key')))
    filled = json.loads(json.dumps(more).replace('"{file}"', file))
    event, inputs = max(served.events(), key=lambda event: len(event[1]))
    data = [block['props'].get('value') for block in inputs]
    answer = served.send('queue/join', event, **{'data': data, **filled})
    assert answer.status_code in (403, 422)
    assert set(answer.json()) == {'error'}
    assert_nothing_was_read(served)


def test_an_input_for_files_takes_no_text(served: Served, paths: list[str]) -> None:
    plain = ('textbox', 'dropdown', 'slider', 'dataset')
    found = 0
    for event, inputs in served.events():
        data = [block['props'].get('value') for block in inputs]
        for at, block in enumerate(inputs):
            if block['type'] in plain:
                continue
            found += 1
            for path in paths:
                for value in (path, [path], [[path]], 1, True):
                    sent = [*data[:at], value, *data[at + 1 :]]
                    answer = served.send('queue/join', event, sent)
                    assert answer.status_code == 403, (event, at, value)
    assert found, 'the page has no input for files'
    assert_nothing_was_read(served)


def test_a_link_to_the_page_keeps_nothing(served: Served) -> None:
    """An event with a path, its copy's path by a deep link, the copy by ``file=``."""
    session = served.session()
    key = str(served.folder / 'key')
    for event, inputs in served.events():
        if inputs:
            data = [reference(key) for _ in inputs]
            served.send('queue/join', event, data, session_hash=session)
    client = served.client
    parameters = {'session_hash': session}
    assert client.get('/gradio_api/queue/data', params=parameters).status_code == 404
    link = client.get('/gradio_api/deep_link', params=parameters)
    assert link.status_code == 404
    page = client.get('/').text
    for name in (link.text, 'a' * 64, '../../key'):
        shown = client.get('/', params={'deep_link': name}).text
        assert shown == page
        config = client.get('/config', params={'deep_link': name}).json()
        assert config == served.config
    assert client.get(f'/gradio_api/file={key}').status_code == 403
    assert_nothing_was_read(served)


def test_files_are_handed_out_by_no_address(served: Served, paths: list[str]) -> None:
    answers = set()
    for path in paths:
        for at in ('/gradio_api/file=', '/gradio_api/file/', '/file=', '/static/'):
            for name in (path, quote(path), quote(path, safe='')):
                try:
                    answer = served.client.get(f'{at}{name}')
                except httpx.InvalidURL:
                    continue
                if answer.request.url.path == f'/gradio_api/file={served.mine}':
                    continue  # the client has shortened it
                assert answer.status_code in (403, 404, 405), (at, path)
                assert _SECRET not in answer.content
                if at == '/gradio_api/file=' and path:
                    answers.add((answer.status_code, answer.text))
        for parameter in ('like', 'path'):
            answer = served.client.get('/picture', params={parameter: path})
            assert path == 'red1.png' or answer.status_code in (404, 422), path
            assert _SECRET not in answer.content
    assert {status for status, _ in answers} <= {403, 404}
    assert_nothing_was_read(served)


def test_like_is_an_image_of_the_gallery(served: Served, paths: list[str]) -> None:
    answers = set()
    for path in paths:
        if path == 'red1.png':
            continue
        answer = served.client.post('/api/search', json={'like': path})
        assert answer.status_code == 422, path
        answers.add(answer.json()['error'].replace(repr(path), ''))
    assert len(answers) <= 2, 'none tells what is there'
    assert_nothing_was_read(served)


def test_own_uploads_are_found(served: Served, service: SearchService) -> None:
    data = service.image('blue3.png').data
    path = upload(served.client, data)
    shown = served.client.get(f'/gradio_api/file={path}')
    assert (shown.content, shown.headers['content-type']) == (data, 'image/png')
    assert shown.headers['content-security-policy'] == "default-src 'none'"
    assert result(served, path, 'mine') == 'blue3.png'
    url = f'{served.client.base_url}/gradio_api/file={path}'
    file = {**reference(path), 'url': url, 'orig_name': 'a', 'size': len(data)}
    assert result(served, file, 'mine') == 'blue3.png'
    elsewhere = {**file, 'url': url.replace('127.0.0.1', 'evil.example')}
    assert result(served, elsewhere, 'mine') is None
    # Gradio has made no copy of it
    kept = os.listdir(served.uploads.folder)
    assert kept.count(os.path.basename(path)) == 1
    assert all(not (served.uploads.folder / name).is_dir() for name in kept)


def test_uploads_of_others_are_refused(served: Served, service: SearchService) -> None:
    data = service.image('blue3.png').data
    with httpx.Client(base_url=served.client.base_url) as other:
        other.get('/')
        path = upload(other, data)
        assert result(served, path) is None, 'sent by another browser'
        assert served.client.get(f'/gradio_api/file={path}').status_code == 403
        assert other.get(f'/gradio_api/file={path}').content == data
    path = upload(served.client, data)
    session = served.session()
    assert result(served, path, session) == 'blue3.png'
    assert result(served, path) is None, 'used in another session'
    assert result(served, path, session) == 'blue3.png'


def test_an_upload_without_cookies_belongs_to_the_session_that_uses_it(
    served: Served, service: SearchService
) -> None:
    data = service.image('blue3.png').data
    base_url = served.client.base_url
    path = upload(httpx.Client(base_url=base_url), data)
    assert result(served, path, 'first') == 'blue3.png'
    assert result(served, path, 'second') is None


def test_a_password_does_not_open_files(service: SearchService, served: Served) -> None:
    uploads = Uploads(served.folder / 'base')
    with (
        live_server(service, login=('me', 'password'), uploads=uploads) as address,
        httpx.Client(base_url=address, auth=('me', 'password')) as client,
    ):
        own = Served(client, served.folder, uploads)
        for event, inputs in own.events():
            data = [reference(str(served.folder / 'key')) for _ in inputs]
            if data:
                assert own.send('queue/join', event, data).status_code in (403, 422)
        # nor does that of another server
        path = upload(served.client, _SECRET)
        assert result(own, path) is None
        assert client.get(f'/gradio_api/file={path}').status_code == 403
        # a page of another site may not read what its visitor could
        headers = {'origin': 'https://evil.example'}
        answer = client.get('/config', headers=headers)
        assert 'access-control-allow-origin' not in answer.headers
    assert_nothing_was_read(served)


def result(served: Served, file: Any, session: str = '') -> str | None:
    """Search for an upload; return the best match, None if it is refused."""
    event, inputs = max(served.events(), key=lambda event: len(event[1]))
    data = [block['props'].get('value') for block in inputs]
    (at,) = (n for n, block in enumerate(inputs) if block['type'] == 'image')
    data[at] = reference(file) if isinstance(file, str) else file
    session = session or served.session()
    answer = served.send('queue/join', event, data, session_hash=session)
    if answer.status_code == 403:
        return None
    assert answer.status_code == 200, answer.text
    parameters = {'session_hash': session}
    with served.client.stream(
        'GET', '/gradio_api/queue/data', params=parameters
    ) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix('data: ') or '{}')
            if message.get('msg') == 'process_completed':
                html = message['output']['data'][0]
                return html.split('title="')[1].split('"')[0]
    raise AssertionError('no answer')


def assert_nothing_was_read(served: Served) -> None:
    """The FIFO has no reader, no file was copied, and the server still answers."""
    with pytest.raises(OSError, match='No such device'):
        os.open(served.folder / 'fifo', os.O_WRONLY | os.O_NONBLOCK)
    allowed = {'start.lock', 'start.lock.owner'}
    for name in os.listdir(served.folder / 'base'):
        assert name in allowed or name[0].isdigit(), name
    for folder in (served.uploads.folder, Path(tempfile.gettempdir()) / 'gradio'):
        for file in folder.rglob('*') if folder.is_dir() else ():
            assert file.name != 'key', 'a copy'
    assert served.client.get('/api/info').status_code == 200
