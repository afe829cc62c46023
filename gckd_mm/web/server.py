"""The server: pictures, JSON, and the page."""

from __future__ import annotations

import ipaddress
import time
from typing import Annotated, Any

from gckd_mm.apis.person_search_inferencer import MAX_QUERY_LENGTH
from gckd_mm.errors import InputError
from gckd_mm.web.service import (
    MAX_QUERIES,
    MAX_TOP_K,
    MAX_UPLOAD_BYTES,
    Found,
    SearchService,
    read_upload,
)

try:
    import gradio
    from fastapi import Body, FastAPI, Query, Request, Response
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import JSONResponse
    from pydantic import StringConstraints
    from starlette.middleware.trustedhost import TrustedHostMiddleware
except ImportError as error:
    raise InputError("the web page needs: pip install 'gckd-mm[web]'") from error

from gckd_mm.web.body_limit import BodyLimitMiddleware
from gckd_mm.web.page import THEME, make_page
from gckd_mm.web.password import PasswordMiddleware
from gckd_mm.web.result_cards import CSS

_LOOPBACK_NAMES = ('localhost', '127.0.0.1', '[::1]')
#: of a request; the largest is an upload, with what a form puts around it
_MAX_BODY_BYTES = MAX_UPLOAD_BYTES + 100_000
_SAFE = {
    'X-Content-Type-Options': 'nosniff',
    'Content-Security-Policy': "default-src 'none'",
    'Cache-Control': 'private, max-age=3600',
}
_MAX_THUMBNAIL = 1024
_MAX_PATH = 4096

_Condition = Annotated[str, StringConstraints(max_length=MAX_QUERY_LENGTH)]


def make_app(
    service: SearchService,
    login: tuple[str, str] | None = None,
    host: str = '127.0.0.1',
) -> Any:
    """Make the ASGI application.

    Args:
        service: What is searched.
        login: Name and password. None lets everybody in, and answers to the names of
            this machine alone, so that no other site's page can ask it by a name of its
            own.
        host: Address that it is served at. Defaults to that of this machine.
    """
    app = FastAPI(title='Person search', docs_url=None, redoc_url=None)
    app.add_exception_handler(InputError, _refuse)
    _add_pictures(app, service)
    _add_json(app, service)
    page = make_page(service)
    app = gradio.mount_gradio_app(
        app,
        page,
        path='/',
        show_error=False,
        max_file_size=MAX_UPLOAD_BYTES,
        theme=THEME,
        css=CSS,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
    )
    if login is None:
        app.add_middleware(
            TrustedHostMiddleware, allowed_hosts=[*_LOOPBACK_NAMES, host]
        )
    else:
        user, password = login
        app.add_middleware(PasswordMiddleware, user=user, password=password)
    app.add_middleware(BodyLimitMiddleware, max_bytes=_MAX_BODY_BYTES)
    return app


def is_loopback(host: str) -> bool:
    """Return whether nobody but this machine can reach an address."""
    if host == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse(request: Any, error: Exception) -> Any:
    return JSONResponse({'error': str(error)}, status_code=422)


def _add_pictures(app: Any, service: SearchService) -> None:
    @app.get('/picture')
    def picture(
        path: Annotated[str, Query(max_length=_MAX_PATH)],
        height: Annotated[int | None, Query(ge=16, le=_MAX_THUMBNAIL)] = None,
    ) -> Response:
        """Return a picture of the gallery, or a small copy of it."""
        try:
            found = service.picture(path, height)
        except InputError as error:
            return JSONResponse({'error': str(error)}, status_code=404)
        return Response(found.data, media_type=found.media_type, headers=_SAFE)


def _add_json(app: Any, service: SearchService) -> None:
    @app.get('/api/info')
    def info() -> dict[str, Any]:
        """Tell what is searched, by which model, and which fields there are."""
        known = service.gallery.info()
        keys = ('model', 'fingerprint', 'embedding_size', 'items', 'index')
        return {**{key: known[key] for key in keys}, 'fields': service.choices()}

    @app.post('/api/search')
    def search(
        queries: Annotated[list[str], Body(max_length=MAX_QUERIES)] = [],  # noqa: B006
        without: Annotated[str, Body()] = '',
        like: Annotated[str, Body(max_length=_MAX_PATH)] = '',
        top_k: Annotated[int, Body(ge=1, le=MAX_TOP_K)] = 20,
        min_score: Annotated[float, Body()] = -1.0,
        where: Annotated[list[_Condition], Body(max_length=20)] = [],  # noqa: B006
        rerank: Annotated[str, Body()] = '',
    ) -> dict[str, Any]:
        """Search with descriptions, or for pictures like one of the gallery."""
        began = time.perf_counter()
        found = service.search(
            queries, without, None, like, top_k, min_score, where, rerank
        )
        return _as_json(found, began)

    @app.post('/api/search_by_image')
    async def search_by_image(
        request: Request,
        text: str = '',
        without: str = '',
        top_k: Annotated[int, Query(ge=1, le=MAX_TOP_K)] = 20,
        min_score: float = -1.0,
        where: Annotated[list[_Condition], Query(max_length=20)] = [],  # noqa: B006
        rerank: str = '',
    ) -> dict[str, Any]:
        """Search with the picture in the request's body."""
        began = time.perf_counter()
        image = await run_in_threadpool(read_upload, await _body(request))
        texts = [text] if text else []
        found = await run_in_threadpool(
            service.search,
            texts,
            without,
            image,
            '',
            top_k,
            min_score,
            where,
            rerank,
        )
        return _as_json(found, began)


async def _body(request: Any) -> bytes:
    """Read a request's body, and no more of it than a picture may have."""
    data = b''
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_UPLOAD_BYTES:
            break
    return data


def _as_json(results: list[Found], began: float) -> dict[str, Any]:
    return {
        'results': [
            {
                'query': query,
                'matches': [
                    {
                        'path': match.item.path,
                        'score': round(match.score, 6),
                        'fields': dict(match.item.fields),
                    }
                    for match in matches
                ],
            }
            for query, matches in results
        ],
        'milliseconds': round(1000 * (time.perf_counter() - began), 1),
    }
