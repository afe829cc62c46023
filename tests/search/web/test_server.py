"""The server's addresses, as a program asks them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gckd_mm.errors import InputError
from gckd_mm.search.gallery.items import iso_time
from gckd_mm.search.web.server import is_loopback, make_app
from gckd_mm.search.web.service import MAX_UPLOAD_BYTES, SearchService

pytest.importorskip('gradio')
from fastapi.testclient import TestClient


@pytest.fixture(scope='module')
def client(service: SearchService) -> Any:
    with TestClient(make_app(service), base_url='http://localhost') as client:
        yield client


def test_a_search_is_that_of_the_service(client: Any, service: SearchService) -> None:
    asked = {
        'queries': ['a man in red', 'a woman'],
        'without': 'a hat',
        'top_k': 3,
        'where': ['camera!=2'],
        'min_score': 0.01,
        'rerank': 'propagation',
    }
    answer = client.post('/api/search', json=asked).json()
    expected = service.search(
        asked['queries'],
        'a hat',
        top_k=3,
        min_score=0.01,
        where=['camera!=2'],  # type: ignore[arg-type]
        rerank='propagation',
    )
    assert answer['results'] == [
        {
            'query': query,
            'matches': [
                {
                    'path': match.item.path,
                    'score': round(match.score, 6),
                    'fields': {
                        **match.item.fields,
                        'time': iso_time(float(match.item.fields['time'])),
                    },
                }
                for match in matches
            ],
            'warnings': [],
        }
        for query, matches, _ in expected
    ]
    assert answer['milliseconds'] > 0


def test_a_search_by_a_picture(client: Any, service: SearchService) -> None:
    data = service.image('blue3.png').data
    answer = client.post('/api/search_by_image?top_k=2', content=data).json()
    first = answer['results'][0]['matches'][0]
    assert (first['path'], first['score']) == ('blue3.png', pytest.approx(1, abs=1e-4))


def test_warnings_and_unknown_fields_are_told(
    service: SearchService, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def query_warnings(self: Any, queries: Any) -> list[list[str]]:
        return [[f'{query.text} is not a word'] for query in queries]

    inferencer = type(service.inferencer)
    monkeypatch.setattr(inferencer, 'query_warnings', query_warnings)
    asked = {'queries': ['asdf', 'qwer']}
    results = client.post('/api/search', json=asked).json()['results']
    assert [result['warnings'] for result in results] == [
        ['asdf is not a word'],
        ['qwer is not a word'],
    ]
    data = service.image('blue3.png').data
    answer = client.post('/api/search_by_image?text=asdf', content=data).json()
    assert answer['results'][0]['warnings'] == ['asdf is not a word']

    def search(self: Any, *arguments: Any) -> Any:
        raise InputError('camra: no field of this gallery')

    monkeypatch.setattr(type(service.gallery), 'search', search)
    refused = client.post('/api/search', json={**asked, 'where': ['camra=3']})
    assert refused.status_code == 422
    assert refused.json() == {'error': 'camra: no field of this gallery'}


@pytest.mark.parametrize(
    ('where', 'hint'),
    [
        ('camera=7', 'camera=7: no item has this value, but camera is one of 0, 1, 2'),
        ('note=x', 'note=x: no item has this value, but note is one of <script>'),
        ('camera=1', ''),
        ('camera>=7', ''),
    ],
)
def test_values_that_there_are_are_told(
    service: SearchService, client: Any, where: str, hint: str
) -> None:
    asked = {'queries': ['a man', 'a woman'], 'where': [where], 'min_score': 0.99}
    answers = [client.post('/api/search', json=asked)]
    like = {'like': 'red1.png', 'where': [where], 'min_score': 0.99}
    answers.append(client.post('/api/search', json=like))
    data = service.image('blue3.png').data
    for_image = {'where': where, 'min_score': 0.9999}
    answers.append(client.post('/api/search_by_image', params=for_image, content=data))
    for answer in answers:
        for result in answer.json()['results']:
            assert result['matches'] == []
            hints = [x for x in result['warnings'] if 'no item has' in x]
            assert [x.startswith(hint) for x in hints] == [True] * bool(hint)


def test_info(client: Any) -> None:
    known = client.get('/api/info').json()
    assert (known['items'], known['model']) == (13, 'synthclip_tiny_web')
    assert known['fields']['camera'] == ['0', '1', '2', '3']
    assert known['fields']['time'][1] == '1970-01-02T00:00:00+00:00'


def test_a_picture(client: Any, service: SearchService) -> None:
    answer = client.get('/picture', params={'path': 'red1.png'})
    assert answer.content == service.image('red1.png').data
    assert answer.headers['content-type'] == 'image/png'
    assert answer.headers['x-content-type-options'] == 'nosniff'
    small = client.get('/picture', params={'path': 'red1.png', 'height': 32})
    assert small.headers['content-type'] == 'image/jpeg'


@pytest.mark.parametrize(
    ('url', 'status'),
    [
        ('/picture?path=secret.txt', 404),
        ('/picture?path=../gallery/gallery.json', 404),
        ('/picture?path=%2e%2e%2fgallery%2fgallery.json', 404),
        ('/picture?path=/etc/passwd', 404),
        ('/picture?path=red1.png%00.txt', 404),
        ('/picture', 422),
        ('/picture?path=red1.png&height=100000', 422),
        ('/picture/../../etc/passwd', 404),
        ('/gradio_api/file=/etc/passwd', 403),
        ('/docs', 404),
    ],
)
def test_nothing_else_is_handed_out(client: Any, url: str, status: int) -> None:
    answer = client.get(url)
    assert answer.status_code == status
    assert 'root:' not in answer.text


@pytest.mark.parametrize(
    'asked',
    [
        {},
        {'queries': 'a man'},
        {'queries': ['a'] * 21},
        {'queries': ['a' * 10_000]},
        {'queries': ['a'], 'top_k': 0},
        {'queries': ['a'], 'where': ['camera']},
        {'like': 'none.png'},
    ],
)
def test_bad_questions(client: Any, asked: dict[str, Any]) -> None:
    assert client.post('/api/search', json=asked).status_code == 422


@pytest.mark.parametrize('data', [b'', b'a text', bytes(MAX_UPLOAD_BYTES + 1)])
def test_bad_uploads(client: Any, data: bytes) -> None:
    answer = client.post('/api/search_by_image', content=data)
    assert answer.status_code == 422
    assert set(answer.json()) == {'error'}


def test_requests_have_a_limit(client: Any) -> None:
    assert client.post('/api/search', content=bytes(10_200_000)).status_code == 413
    # without a length, too
    parts = (bytes(1_000_000) for _ in range(11))
    assert client.post('/api/search', content=parts).status_code == 413
    for asked in (
        {'like': 'a' * 5000},
        {'queries': ['a'], 'where': ['camera=' + '1' * 2000]},
    ):
        assert client.post('/api/search', json=asked).status_code == 422


def test_any_address_of_this_machine_answers_to_its_name(
    service: SearchService,
) -> None:
    address = 'http://127.0.0.2'
    with TestClient(make_app(service, None, '127.0.0.2'), base_url=address) as client:
        assert client.get('/api/info').status_code == 200


def test_the_page_is_there_and_asks_nobody_else(client: Any) -> None:
    page = client.get('/').text
    assert 'Person search' in page
    assert 'fonts.googleapis.com' not in page


def test_other_names_are_refused_where_there_is_no_password(client: Any) -> None:
    # a page of another site that lets its name lead to this machine
    headers = {'host': 'evil.example'}
    assert client.get('/api/info', headers=headers).status_code == 400


def test_a_password_is_asked_for_everywhere(service: SearchService) -> None:
    with TestClient(make_app(service, ('me', 'pässword'))) as client:
        for url in ('/', '/api/info', '/picture?path=red1.png', '/gradio_api/info'):
            assert client.get(url).status_code == 401
            assert client.get(url, auth=('me', 'wrong')).status_code == 401
            assert client.get(url, auth=('you', 'pässword')).status_code == 401
            right = client.get(url, auth=('me', 'pässword'))
            assert right.status_code == 200
        assert client.post('/api/search', json={'queries': ['a']}).status_code == 401
        for bad in ('Basic', 'Basic !', 'Bearer bWU6cMOkc3N3b3Jk'):
            answer = client.get('/api/info', headers={'authorization': bad})
            assert answer.status_code == 401
        known = client.get('/api/info', auth=('me', 'pässword')).text
        assert json.loads(known)['items'] == 13


@pytest.mark.parametrize(
    ('host', 'loopback'),
    [
        ('localhost', True),
        ('127.0.0.1', True),
        ('127.9.9.9', True),
        ('::1', True),
        ('0.0.0.0', False),
        ('::', False),
        ('192.168.1.2', False),
        ('example.org', False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
