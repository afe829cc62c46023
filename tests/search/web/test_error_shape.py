"""Errors that others than we write: of Starlette, of Gradio, of whatever is behind."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gckd_mm.search.web.service import SearchService

pytest.importorskip('gradio')
from fastapi.testclient import TestClient
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from gckd_mm.search.web.error_shape import ErrorShapeMiddleware
from gckd_mm.search.web.server import make_app


def client_of(answer: Response) -> TestClient:
    return TestClient(ErrorShapeMiddleware(answer))


@pytest.mark.parametrize(
    ('content', 'status', 'message'),
    [
        ('/srv/secret is gone', 404, 'not found'),
        ('{"detail": "/srv/secret is gone"}', 416, 'requested range not satisfiable'),
        ('{"error": ["a"]}', 400, 'bad request'),
        ('["error"]', 500, 'internal server error'),
        ('', 499, 'the request cannot be answered'),
        ('{"error": "as we write it"}', 422, 'as we write it'),
    ],
)
def test_errors_of_another_shape(content: str, status: int, message: str) -> None:
    headers = {'allow': 'GET'}
    answer = client_of(PlainTextResponse(content, status, headers)).get('/')
    assert (answer.status_code, answer.json()) == (status, {'error': message})
    assert answer.headers['content-type'] == 'application/json'
    assert answer.headers['allow'] == 'GET'
    assert int(answer.headers['content-length']) == len(answer.content)
    (streamed,) = (client_of(StreamingResponse(iter(content), status)).get('/'),)
    assert streamed.json() == {'error': message}


def test_what_is_no_error_passes() -> None:
    answer = client_of(StreamingResponse(iter('abc'), 206)).get('/')
    assert (answer.status_code, answer.text) == (206, 'abc')


@pytest.mark.parametrize(
    'ranges',
    [
        *('bytes=5-1', 'bytes=99999999-', 'bytes=-', 'bytes=a-b', 'lines=1-2', '=', ''),
        *('bytes=0-1,5-1', 'bytes=1-0,', 'bytes=' + '0-1,' * 200, 'bytes=--1'),
        'bytes=' + '9' * 5000 + '-',
    ],
)
def test_ranges(service: SearchService, ranges: str) -> None:
    with TestClient(make_app(service), base_url='http://localhost') as client:
        (script,) = set(re.findall(r'assets/index-[\w-]+\.js', client.get('/').text))
        for path in (f'/{script}', '/theme.css', '/favicon.ico', '/manifest.json'):
            answer: Any = client.get(path, headers={'range': ranges})
            assert answer.status_code in (200, 206, 400, 416), path
            if answer.status_code >= 400:
                assert set(answer.json()) == {'error'}, path
