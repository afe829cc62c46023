"""Requests that no client should send: never a 500, a traceback or a wait."""

from __future__ import annotations

import json
import logging
import random
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from gckd_mm.search.web.service import SearchService
from tests.search.web.live_server import live_server

_POSTS = (
    *('/api/search', '/api/search_by_image', '/gradio_api/queue/join'),
    *('/gradio_api/run/predict', '/gradio_api/upload'),
)
_GETS = (
    *('/', '/config', '/theme.css', '/manifest.json', '/favicon.ico', '/openapi.json'),
    *('/picture?path=red1.png', '/api/info', '/gradio_api/info', '/gradio_api/app_id'),
    *('/gradio_api/queue/data?session_hash=a', '/gradio_api/file=a', '/nothing'),
)
_SURROGATE = '\\ud800'
_BODIES = (
    *('', ' ', '{', '[]', 'null', '1', '"a"', '{"queries"', '{"queries":[}', 'NaN'),
    '{"queries": ["a"], "min_score": NaN}',
    '{"queries": ["a"], "min_score": Infinity}',
    '{"queries": ["a"], "min_score": -Infinity}',
    '{"queries": ["a"], "min_score": 1e999}',
    '{"queries": ["a"], "min_score": 1e308}',
    '{"queries": ["a"], "min_score": "nan"}',
    '{"queries": ["a"], "top_k": 1e400}',
    f'{{"queries": ["a"], "top_k": {"9" * 5000}}}',
    f'{{"queries": ["a"], "top_k": -{"9" * 30}}}',
    '{"queries": ["a"], "top_k": 1.5}',
    '{"queries": ["a"], "top_k": true}',
    '{"queries": ["a"], "top_k": null}',
    '{"queries": null}',
    '{"queries": [null]}',
    '{"queries": [["a"]]}',
    '{"queries": {"0": "a"}}',
    '{"queries": ["a"], "queries": ["b"]}',
    f'{{"queries": ["{_SURROGATE}"]}}',
    f'{{"queries": ["a"], "without": "{_SURROGATE}"}}',
    f'{{"queries": ["a"], "where": ["note={_SURROGATE}"]}}',
    f'{{"queries": ["a"], "rerank": "{_SURROGATE}"}}',
    f'{{"like": "{_SURROGATE}"}}',
    f'{{"{_SURROGATE}": 1}}',
    '{"like": "red1.png\\u0000"}',
    '{"queries": ["\\u0000"]}',
    '{"queries": ["a"], "rerank": "none"}',
    '{"queries": ["a"], "where": ["camera=\\u0000"]}',
    *(
        f'{{"queries": ["a"], "where": ["{condition}"]}}'
        for condition in (
            *('time>=1e308', 'time>=1e999', 'time>=nan', 'time<9999-99-99', 'time=inf'),
            *(f'time={"1" * 400}', f'floor={"1" * 1500}', f'floor=-{"9" * 20}'),
            *('floor=1e300', 'floor=-1e308', 'x=', '=', '==', "x='", 'a' * 1999 + '='),
            *('time>=0001-01-01', 'time>=9999-12-31T23:59:59+00:00', 'path=red1.png'),
            *('size>1', 'mtime_ns=1', 'camera=' + '%' * 50, "note=''; drop table x"),
        )
    ),
    '[' * 100_000,
    '{"queries": ' + '[' * 5000 + ']' * 5000 + '}',
    '{"a":' * 3000 + '1' + '}' * 3000,
    '{"queries": ["a"], "more": ' + '[' * 40 + ']' * 40 + '}',
    '\ufeff{"queries": ["a"]}',
    f'{{"queries": ["{"a" * 50_000}"]}}',
)
_RAW_BODIES = (b'\xff\xfe{}', b'{"queries": ["\xed\xa0\x80"]}', b'\x00', b'\xc3')
_TYPES = (
    *('application/json', 'text/plain', 'application/json; charset=utf-16', '', ';'),
    *('multipart/form-data', 'multipart/form-data; boundary=', 'image/png'),
    *('multipart/form-data; boundary=a', 'application/x-www-form-urlencoded'),
    *('multipart/form-data; boundary=a; charset=\x01', 'application/JSON'),
    'multipart/form-data; boundary=' + 'b' * 5000,
)
_PARTS = (
    b'--a--',
    b'--a\r\n\r\n\r\n--a--',
    b'--a\r\nContent-Disposition: form-data\r\n\r\nx\r\n--a--\r\n',
    b'--a\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--a--\r\n',
    b'--a\r\nContent-Disposition: form-data; name="x"; filename="x"\r\n\r\nx\r\n--a--',
    b'--a\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\nx',
    b'--a\r\n: \r\n\r\nx\r\n--a--\r\n',
    b'--a\r\n' + b'x' * 20_000,
    b'--a\r\nContent-Disposition: form-data; name="files"; filename="\xff\x00"\r\n\r\n1'
    b'\r\n--a\r\nContent-Disposition: form-data; name="files"; filename="b"\r\n\r\n2'
    b'\r\n--a--\r\n',
    b'garbage',
)
_QUERIES = (
    *(
        'path=%',
        'path=%zz',
        'path=%00',
        'path=%ed%a0%80',
        'path=%ff',
        'path=',
        '=',
        '&',
    ),
    *('path=a&path=b', 'path=red1.png&height=-1', 'path=red1.png&height=nan'),
    *(f'path=red1.png&height={"9" * 5000}', 'path=' + 'a' * 5000, '%00=%00', 'page=x'),
    *('deep_link=a', 'session_hash=%00', 'session_hash=a&session_hash=b', '__theme=x'),
    *('min_score=nan', 'min_score=inf', 'min_score=1e999', 'top_k=-1', 'where=%ff'),
    *(f'top_k={"9" * 5000}', 'where=time=1e999', 'text=' + 'a' * 5000, 'rerank=%00'),
    *('like=%ed%a0%80', 'like=red1.png%00', 'all_endpoints=1', 'view=api', 'text=%00'),
)


@pytest.fixture(scope='module')
def address(service: SearchService) -> Iterator[str]:
    with live_server(service) as address:
        yield address


@pytest.fixture(scope='module')
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=30) as client:
        yield client


@pytest.fixture(autouse=True)
def _no_traceback(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> Iterator[None]:
    server = logging.getLogger('uvicorn.error')  # does not propagate
    server.addHandler(caplog.handler)
    yield
    server.removeHandler(caplog.handler)
    errors = [x for x in caplog.records if x.levelno >= logging.ERROR]
    assert not errors, errors[0].getMessage() + str(errors[0].exc_info)
    assert 'Traceback' not in ''.join(capsys.readouterr())


def check(answer: httpx.Response, *asked: Any) -> None:
    """Any answer but 500, and every refusal in the one shape."""
    assert answer.status_code < 500, asked
    if answer.status_code >= 400 and answer.request.method != 'HEAD':
        assert set(answer.json()) == {'error'}, asked
        assert isinstance(answer.json()['error'], str)


@pytest.mark.parametrize('path', _POSTS)
def test_bodies(client: httpx.Client, path: str) -> None:
    json_type = {'content-type': 'application/json'}
    for body in (*(text.encode() for text in _BODIES), *_RAW_BODIES):
        answer = client.post(path, content=body, headers=json_type)
        check(answer, path, body[:80])
        if path != '/api/search':
            assert answer.status_code >= 400, body[:80]


@pytest.mark.parametrize('path', _POSTS)
def test_types_of_bodies(client: httpx.Client, path: str) -> None:
    for kind in _TYPES:
        for body in (b'{}', b'{"queries": ["a"]}', *_PARTS):
            headers = {'content-type': kind.encode()}
            check(client.post(path, content=body, headers=headers), kind, body[:80])
    check(client.post(path, content=b'{"queries": ["a"]}'), 'no type')


def test_events(client: httpx.Client) -> None:
    """Values that the components of the page would fail at."""
    config = client.get('/config').json()
    blocks = {block['id']: block for block in config['components']}
    values = (
        *(None, True, -1, 1.5, 1e300, 10**15, 'a', '', [], {}, [1], 'a' * 100_000),
        *('\0', '🧥' * 100, {'__type__': 'update'}, [None], '<b>', 'time=1e300'),
    )
    for event in config['dependencies']:
        plain = [blocks[number]['props'].get('value') for number in event['inputs']]
        for at in range(len(plain)):
            for value in values:
                for route in ('queue/join', 'run/predict'):
                    body = {
                        'data': [*plain[:at], value, *plain[at + 1 :]],
                        'fn_index': event['id'],
                        'session_hash': 'abc',
                    }
                    answer = client.post(f'/gradio_api/{route}', json=body)
                    check(answer, at, value)
    with client.stream(
        'GET', '/gradio_api/queue/data', params={'session_hash': 'abc'}
    ) as stream:
        messages = [
            json.loads(line[6:]) for line in stream.iter_lines() if line[:5] == 'data:'
        ]
    finished = [x for x in messages if x['msg'] == 'process_completed']
    assert finished
    assert all(message['success'] for message in finished)


@pytest.mark.parametrize('query', _QUERIES)
def test_queries(client: httpx.Client, address: str, query: str) -> None:
    image = b'\x89PNG\r\n\x1a\n'
    for path in ('/', '/picture', '/config', '/theme.css', '/gradio_api/queue/data'):
        check(client.get(f'{path}?{query}'), path)
    for path in _POSTS:
        check(client.post(f'{path}?{query}', content=image), path)


def test_images_that_are_cut_short(
    client: httpx.Client, service: SearchService
) -> None:
    data = service.image('red1.png').data
    for size in range(0, len(data), 97):
        answer = client.post('/api/search_by_image', content=data[:size])
        check(answer, size)
        assert answer.status_code == 422


@pytest.mark.parametrize('path', [*_GETS, *_POSTS])
def test_methods(client: httpx.Client, path: str) -> None:
    right = 'POST' if path in _POSTS else 'GET'
    methods = ('GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'HEAD', 'TRACE', 'X')
    for method in methods:
        answer = client.request(method, path)
        check(answer, method)
        if method not in (right, 'HEAD') and path != '/nothing':
            assert answer.status_code == 405, method
            assert right in answer.headers['allow']


def test_paths(client: httpx.Client, address: str) -> None:
    parts = (
        *(
            '',
            '.',
            '..',
            '...',
            '%2e%2e',
            '%00',
            '%ff',
            '%',
            '%zz',
            '%2f',
            '\\',
            ';',
            '*',
        ),
        *('a' * 300, 'a' * 10_000, 'js', 'img', quote('ü'), '%0d%0a', '?', '//', '|'),
    )
    roots = ('', '/assets', '/static', '/static/js', '/gradio_api', '/gradio_api/file=')
    for root in roots:
        for part in parts:
            text = raw(
                address, f'GET {root}/{part} HTTP/1.1\r\nHost: localhost\r\n\r\n'
            )
            assert int(text.split()[1]) in (200, 400, 403, 404, 414), (root, part)
    answer = client.get('/assets/..%2f..%2fpackage.json')
    assert answer.status_code == 404


def test_headers(address: str) -> None:
    lines = (
        *('Host: [', 'Host: a b', 'Host: \xff', 'Host: localhost:99999999', 'Host:'),
        *(
            'Origin: http://[',
            'Origin: null',
            'X-Forwarded-Host: [',
            'Cookie: ' + ';' * 99,
        ),
        *('X-Forwarded-Host: a\x01', 'X-Forwarded-Proto: \xff', 'X-Gradio-Server: ['),
        *(
            'X-Gradio-Server: http://evil',
            'Cookie: gckd_browser=\xff',
            'Range: bytes=9-1',
        ),
        *('Authorization: Basic \xff', 'Accept-Encoding: \xff', 'Content-Length: -1'),
        *('Content-Length: 1e3', 'Transfer-Encoding: chunked', 'Expect: 100-continue'),
        *('If-None-Match: \xff', 'User-Agent: ' + 'a' * 20_000, 'X: ' + 'a' * 100_000),
        *(
            'Upgrade: websocket\r\nConnection: upgrade',
            'Connection: \xff',
            'Accept: \xff',
        ),
    )
    for line in lines:
        for path in ('/', '/config', '/api/info', '/gradio_api/info', '/assets/a.js'):
            host = '' if line.startswith('Host') else 'Host: localhost\r\n'
            text = raw(
                address,
                f'GET {path} HTTP/1.1\r\n{host}{line}\r\nConnection: close\r\n\r\n',
            )
            # a body that is announced and never comes: no answer, either
            assert not text or int(text.split()[1]) < 500, (line, text[:200])


def test_clients_that_go_away(client: httpx.Client, address: str) -> None:
    for path in (*_POSTS, '/gradio_api/queue/data?session_hash=a'):
        for kind in ('application/json', 'multipart/form-data; boundary=a'):
            raw(
                address,
                f'POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n'
                'Content-Length: 1000\r\n\r\n{"queries": [',
                wait=False,
            )
    check(client.get('/api/info'))


def test_bytes_at_random(address: str, client: httpx.Client) -> None:
    random_ = random.Random(0)
    asked = json.dumps(
        {'queries': ['a man'], 'where': ['camera=1'], 'top_k': 3, 'like': 'red1.png'}
    ).encode()
    for _ in range(300):
        body = bytearray(asked)
        for _ in range(random_.randint(1, 4)):
            at = random_.randrange(len(body))
            body[at : at + random_.randint(0, 2)] = random_.randbytes(
                random_.randint(0, 3)
            )
        headers = {'content-type': 'application/json'}
        check(client.post('/api/search', content=bytes(body), headers=headers), body)


def raw(address: str, text: str, wait: bool = True) -> str:
    """Send bytes as they are; return the beginning of the answer."""
    host, _, port = address.removeprefix('http://').partition(':')
    with socket.create_connection((host, int(port)), timeout=1) as connection:
        try:
            connection.sendall(text.encode('latin-1'))
            return connection.recv(4096).decode('latin-1') if wait else ''
        except (TimeoutError, ConnectionError):
            return ''
