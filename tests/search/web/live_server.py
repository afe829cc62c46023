"""A server on a free port of this machine, as ``gckd-search serve`` runs one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from gckd_mm.search.cli.serve import _listening
from gckd_mm.search.web.server import make_app
from gckd_mm.search.web.service import SearchService


@contextmanager
def live_server(service: SearchService, **settings: Any) -> Iterator[str]:
    """Serve in a thread; yield the address.

    Args:
        service: What is searched.
        settings: For :func:`make_app`.
    """
    import uvicorn

    with _listening('127.0.0.1', 0) as listener:
        config = uvicorn.Config(
            make_app(service, **settings),
            log_level='warning',
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), 'the server did not start'
            time.sleep(0.01)
        try:
            yield f'http://127.0.0.1:{listener.getsockname()[1]}'
        finally:
            server.should_exit = True
            thread.join(20)


def upload(client: httpx.Client, data: bytes, name: str = 'someone.png') -> str:
    """Upload a file as the page does; return its path."""
    answer = client.post('/gradio_api/upload', files={'files': (name, data)})
    assert answer.status_code == 200, answer.text
    (path,) = answer.json()
    return path


def reference(path: str) -> dict[str, Any]:
    """Return how the page names an upload."""
    return {'path': path, 'meta': {'_type': 'gradio.FileData'}}
