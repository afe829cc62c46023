"""Malformed requests to the server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.gallery import Gallery
from tests.fuzz.conftest import Cases
from tests.fuzz.damage import Rng, damage_bytes, damage_value, odd_texts, odd_values
from tests.fuzz.judge import Judge
from tests.fuzz.test_images import FORMATS, encoded
from tests.search.web.conftest import coloured  # noqa: F401 - the gallery that is served

pytest.importorskip('gradio')
from fastapi.testclient import TestClient

from gckd_mm.search.web.server import make_app
from gckd_mm.search.web.service import SearchService

Record = Callable[[str, object], None]
MODEL = 'gckd_mm://synthclip_tiny_web'
SEARCH = {
    'queries': ['a man in red', 'a woman'],
    'without': 'a hat',
    'like': 'red1.png',
    'top_k': 3,
    'where': ['camera!=2', 'time>=1970-01-01'],
    'min_score': 0.01,
    'rerank': 'propagation',
}
ADDRESSES = ('/api/search', '/api/search_by_image', '/api/info', '/picture', '/', '/x')
METHODS = ('GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'HEAD')
TYPES = ('application/json', 'text/plain', 'multipart/form-data; boundary=a', 'x', '')
_SLOW = 10.0


@pytest.fixture(scope='module')
def client(coloured: Path) -> Iterator[Any]:  # noqa: F811
    inferencer = PersonSearchInferencer(MODEL, device='cpu')
    with Gallery.open(coloured / 'gallery') as gallery:
        app = make_app(SearchService(gallery, inferencer))
        with TestClient(app, base_url='http://localhost') as client:
            yield client


def _answer(client: Any, *request: Any, **options: Any) -> Any:
    began = time.monotonic()
    answer = client.request(*request, **options)
    return answer, time.monotonic() - began


def _problem(found: Any) -> str | None:
    answer, seconds = found
    if answer.status_code >= 500:
        return f'status {answer.status_code}: {answer.text:.200}'
    if seconds > _SLOW:
        return f'{seconds:.0f} s'
    if 'Traceback' in answer.text:
        return 'the answer holds a traceback'
    path = answer.request.url.path
    if answer.status_code >= 400 and path.startswith('/api') and answer.text:
        body = answer.json()
        if list(body) != ['error'] or not isinstance(body['error'], str):
            return f'an error of another shape: {answer.text:.200}'
    return None


def _query_of(rng: Rng) -> dict[str, Any]:
    odd = [
        *odd_values(),
        'camera=',
        '=',
        'time=1e300',
        'a' * 3000,
        '%00',
        '%ff',
        '\x00',
    ]
    names = ('path', 'height', 'text', 'without', 'top_k', 'min_score', 'where')
    chosen = rng.choice(names, int(rng.integers(0, 4)), replace=False)
    values = (odd[int(rng.integers(len(odd)))] for _ in chosen)
    return {
        str(name): value if isinstance(value, str) else json.dumps(value)
        for name, value in zip(chosen, values, strict=True)
    }


def _encodable(query: dict[str, str]) -> dict[str, str]:
    return {k: v[:5000].encode(errors='replace').decode() for k, v in query.items()}


def test_bodies_of_a_search(client: Any, cases: Cases, record_property: Record) -> None:
    judge, odd = Judge(), odd_values()
    texts = list(odd_texts(json.dumps(SEARCH).encode()).values())
    for case, rng in cases(250, 'body'):
        if case < len(texts):
            body = texts[case]
        elif case % 4:
            body = json.dumps(damage_value(SEARCH, rng, odd)).encode()
        else:
            _, body = damage_bytes(json.dumps(SEARCH).encode(), rng)
        headers = {'content-type': TYPES[0] if case % 5 else TYPES[case // 5 % 5]}
        judge.case(
            f'{body[:300]!r} {cases.label(case)}',
            partial(
                _answer,
                client,
                'POST',
                '/api/search',
                content=body,
                headers=headers,
            ),
            _problem,
        )
    judge.finish(record_property)


def test_addresses_and_methods(
    client: Any, cases: Cases, record_property: Record
) -> None:
    judge = Judge()
    for case, rng in cases(250, 'address'):
        method = METHODS[int(rng.integers(len(METHODS)))]
        address = ADDRESSES[int(rng.integers(len(ADDRESSES)))]
        query = _encodable(_query_of(rng))
        body = encoded(FORMATS[case % len(FORMATS)], rng)
        if case % 2:
            _, body = damage_bytes(body, rng)
        if method in ('GET', 'HEAD', 'OPTIONS'):
            body = b''
        judge.case(
            f'{method} {address} {str(query)[:200]} {cases.label(case)}',
            partial(_answer, client, method, address, params=query, content=body),
            _problem,
        )
    judge.finish(record_property)


def test_requests_of_the_page(
    client: Any, cases: Cases, record_property: Record
) -> None:
    """Gradio's own routes with damaged bodies: an answer below 500 each."""
    config = client.get('/config').json()
    judge, odd = Judge(), odd_values()
    for case, rng in cases(120, 'page'):
        dependencies = config['dependencies']
        dependency = dependencies[case % len(dependencies)]
        by_id = {part['id']: part for part in config['components']}
        data = [by_id[n]['props'].get('value') for n in dependency['inputs']]
        body = {
            'data': data,
            'event_data': None,
            'fn_index': dependency['id'],
            'trigger_id': None,
            'session_hash': f'session{case}',
        }
        body = damage_value(body, rng, odd)
        judge.case(
            f'{json.dumps(body)[:300]} {cases.label(case)}',
            partial(
                _answer,
                client,
                'POST',
                '/gradio_api/queue/join',
                content=json.dumps(body).encode(),
                headers={'content-type': 'application/json'},
            ),
            _problem,
        )
    judge.finish(record_property)
