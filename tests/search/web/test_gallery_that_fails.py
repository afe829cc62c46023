"""A gallery that is damaged, or goes away, while it is served."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gckd_mm.search.gallery import Gallery
from gckd_mm.search.web.service import SearchService, UnavailableError
from tests.search.web.live_server import live_server, reference, upload

pytest.importorskip('gradio')


@pytest.fixture
def folder(coloured: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(coloured / 'gallery', tmp_path / 'a place of ours'))


@pytest.fixture
def failing(folder: Path, service: SearchService) -> Iterator[SearchService]:
    with Gallery.open(folder) as gallery:
        yield SearchService(gallery, service.inferencer)


def cut_vectors(folder: Path) -> None:
    os.truncate(folder / 'vectors-0.f32', 100)


def change_vectors(folder: Path) -> None:
    with (folder / 'vectors-0.f32').open('r+b') as file:
        file.write(b'\0' * 64)


def remove_vectors(folder: Path) -> None:
    (folder / 'vectors-0.f32').unlink()


def replace_vectors(folder: Path) -> None:
    remove_vectors(folder)
    os.mkfifo(folder / 'vectors-0.f32')


def change_items(folder: Path) -> None:
    with sqlite3.connect(folder / 'items.sqlite') as sql:
        sql.execute('UPDATE items SET size = size + 1')


def remove_state(folder: Path) -> None:
    with sqlite3.connect(folder / 'items.sqlite') as sql:
        sql.execute('DROP TABLE items')


def overwrite_items(folder: Path) -> None:
    size = (folder / 'items.sqlite').stat().st_size
    with (folder / 'items.sqlite').open('r+b') as file:
        file.write(b'\xa5' * size)


@pytest.mark.parametrize(
    'damage',
    [
        *(cut_vectors, change_vectors, remove_vectors, replace_vectors),
        *(change_items, remove_state, overwrite_items),
    ],
)
def test_it_is_the_fault_of_the_server(
    failing: SearchService,
    folder: Path,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        live_server(failing) as address,
        httpx.Client(base_url=address, timeout=20) as client,
    ):
        config = client.get('/config').json()
        image = upload(client, failing.image('red1.png').data)
        damage(folder)
        asked = {'queries': ['a man']}
        answers = [
            client.post('/api/search', json=asked),
            client.post('/api/search', json={**asked, 'where': ['camera=1']}),
            client.post('/api/search', json={**asked, 'rerank': 'k_reciprocal'}),
            client.post('/api/search', json={'like': 'red1.png'}),
        ]
        if damage in (change_items, remove_state, overwrite_items):
            answers.append(client.get('/picture?path=red1.png'))
        if damage in (remove_state, overwrite_items):
            answers.append(client.get('/api/info'))
        for answer in answers:
            assert answer.status_code == 503, (answer.request.url, answer.text)
            assert set(answer.json()) == {'error'}
            assert 'the log of the server says' in answer.json()['error']
        shown = on_the_page(client, config, image)
    assert 'the log of the server says' in shown
    reported = [x.getMessage() for x in caplog.records if x.levelno >= logging.ERROR]
    assert len(reported) == len(answers) + 1, 'one line for each'
    assert all(str(folder) in line and '\n' not in line for line in reported)
    for text in (shown, *(answer.text for answer in answers)):
        assert folder.name not in text
        assert str(folder.parent) not in text


def on_the_page(client: httpx.Client, config: Any, image: str) -> str:
    """Search on the page; return all that it is sent."""
    blocks = {block['id']: block for block in config['components']}
    event = next(x for x in config['dependencies'] if len(x['inputs']) > 5)
    values = [blocks[number]['props'].get('value') for number in event['inputs']]
    for at, number in enumerate(event['inputs']):
        if blocks[number]['type'] == 'image':
            values[at] = reference(image)
    body = {'data': values, 'fn_index': event['id'], 'session_hash': 'abc'}
    assert client.post('/gradio_api/queue/join', json=body).status_code == 200
    return client.get('/gradio_api/queue/data?session_hash=abc').text


def test_the_page_hints_at_values(service: SearchService) -> None:
    with live_server(service) as address, httpx.Client(base_url=address) as client:
        config = client.get('/config').json()
        blocks = {block['id']: block for block in config['components']}
        event = next(x for x in config['dependencies'] if len(x['inputs']) > 5)
        values = [blocks[n]['props'].get('value') for n in event['inputs']]
        labels = [blocks[n]['props'].get('label') for n in event['inputs']]
        values[0] = 'a man'
        values[labels.index('Conditions')] = "note='it''s, x', camera=7"
        body = {'data': values, 'fn_index': event['id'], 'session_hash': 'abc'}
        client.post('/gradio_api/queue/join', json=body)
        shown = client.get('/gradio_api/queue/data?session_hash=abc', timeout=30).text
    shown = json.dumps(shown)
    assert 'camera=7: no item has this value, but camera is one of 0, 1, 2' in shown
    assert 's, x: no item has this value, but note is one of' in shown


def test_a_service_that_nobody_serves(failing: SearchService, folder: Path) -> None:
    cut_vectors(folder)
    with pytest.raises(UnavailableError, match='the log of the server'):
        failing.search(['a man'])
