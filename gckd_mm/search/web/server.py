"""The server: images, JSON, and the page."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from gckd_mm.errors import InputError
from gckd_mm.search.apis.query import MAX_QUERY_LENGTH, Found
from gckd_mm.search.gallery.items import shown_value
from gckd_mm.search.web.service import (
    MAX_QUERIES,
    MAX_TOP_K,
    MAX_UPLOAD_BYTES,
    SearchService,
    UnavailableError,
    read_upload,
)

try:
    import gradio
    from fastapi import Body, FastAPI, Query, Request, Response
    from fastapi.concurrency import run_in_threadpool
    from pydantic import StringConstraints
    from starlette.requests import ClientDisconnect
    from starlette.routing import Mount
except ImportError as error:
    raise InputError("the web page needs: pip install 'gckd-mm[web]'") from error

from gckd_mm.search.web.browser_cookie import BrowserCookieMiddleware
from gckd_mm.search.web.error_shape import ErrorShapeMiddleware
from gckd_mm.search.web.event_requests import EventRequestMiddleware
from gckd_mm.search.web.json_body import JsonBodyMiddleware
from gckd_mm.search.web.json_errors import (
    RefusedError,
    add_error_handlers,
    error_response,
)
from gckd_mm.search.web.middleware import (
    BodyLimitMiddleware,
    HostNameMiddleware,
    PasswordMiddleware,
)
from gckd_mm.search.web.page import THEME, make_page
from gckd_mm.search.web.page_routes import PageRoutesMiddleware
from gckd_mm.search.web.result_cards import CSS
from gckd_mm.search.web.upload_routes import SAFE_HEADERS, add_upload_routes
from gckd_mm.search.web.uploads import Uploads

_LOOPBACK_NAMES = ('localhost', '127.0.0.1', '[::1]')
#: of a request; the largest is an upload, with what a form puts around it
_MAX_BODY_BYTES = MAX_UPLOAD_BYTES + 100_000
_MAX_JSON_BYTES = 2_000_000
#: between two looks for uploads that were kept long enough
_LOOK_SECONDS = 30.0
_MAX_THUMBNAIL = 1024
_MAX_PATH = 4096

_Condition = Annotated[str, StringConstraints(max_length=MAX_QUERY_LENGTH)]


def make_app(
    service: SearchService,
    login: tuple[str, str] | None = None,
    host: str = '127.0.0.1',
    uploads: Uploads | None = None,
) -> Any:
    """Make the ASGI application.

    What comes in passes, in this order: the one shape of errors, a limit to its
    size, the name of the server, the password, the list of routes, the check of what
    must be JSON, and the check of the events of the page.

    Args:
        service: What is searched.
        login: Name and password. None lets everybody in, and answers to the names of
            this machine alone, so that no other site's page can ask it by a name of its
            own.
        host: Address that it is served at. Defaults to that of this machine.
        uploads: Where images are kept that visitors upload. Defaults to a folder that
            is there while the application runs.
    """
    uploads = uploads or Uploads()
    app = FastAPI(
        title='Person search',
        docs_url=None,
        redoc_url=None,
        lifespan=lambda app: _keep_uploads(uploads),
    )
    add_error_handlers(app)
    _add_images(app, service)
    _add_json(app, service)
    add_upload_routes(app, uploads)
    with _no_folder_of_gradio():
        page = make_page(service, uploads)
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
    _use_folder(app, page, uploads)
    # the last one comes first
    app.add_middleware(EventRequestMiddleware, page=page, uploads=uploads)
    app.add_middleware(
        JsonBodyMiddleware, paths=frozenset({'/api/search'}), max_bytes=_MAX_JSON_BYTES
    )
    app.add_middleware(BrowserCookieMiddleware)
    app.add_middleware(PageRoutesMiddleware)
    if login is not None:
        user, password = login
        app.add_middleware(PasswordMiddleware, user=user, password=password)
    names = None if login is not None else [*_LOOPBACK_NAMES, host]
    app.add_middleware(HostNameMiddleware, names=names)
    app.add_middleware(BodyLimitMiddleware, max_bytes=_MAX_BODY_BYTES)
    app.add_middleware(ErrorShapeMiddleware)
    return app


@contextlib.contextmanager
def _no_folder_of_gradio() -> Iterator[None]:
    """Remove the folder for edits by a language model, which the page does not offer.

    Gradio makes it while a page is made or mounted.
    """
    before = gradio.routes.DEFAULT_TEMP_DIR
    with tempfile.TemporaryDirectory(prefix='gckd_mm-') as folder:
        gradio.routes.DEFAULT_TEMP_DIR = folder
        try:
            yield
        finally:
            gradio.routes.DEFAULT_TEMP_DIR = before


def _use_folder(app: Any, page: Any, uploads: Uploads) -> None:
    """Set where uploads lie, so that Gradio copies none of them.

    Its own setting for that is a variable of the environment of the whole process.
    """
    folder = str(uploads.folder)
    for block in (page, *page.blocks.values()):
        block.GRADIO_CACHE = folder
    mounted: Any
    (mounted,) = (route.app for route in app.routes if isinstance(route, Mount))
    mounted.uploaded_file_dir = folder


@contextlib.asynccontextmanager
async def _keep_uploads(uploads: Uploads) -> AsyncIterator[None]:
    """Have the folder for uploads while the server runs, and remove old ones."""

    async def drop_old() -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            uploads.drop_old()

    uploads.open()
    task = asyncio.create_task(drop_old())
    try:
        yield
    finally:
        task.cancel()
        uploads.close()


def is_loopback(host: str) -> bool:
    """Return whether nobody but this machine can reach an address."""
    if host == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _add_images(app: Any, service: SearchService) -> None:
    @app.get('/picture')
    def image(
        path: Annotated[str, Query(max_length=_MAX_PATH)],
        height: Annotated[int | None, Query(ge=16, le=_MAX_THUMBNAIL)] = None,
    ) -> Response:
        """Return an image of the gallery, or a small copy of it."""
        try:
            found = service.image(path, height)
        except UnavailableError:
            raise
        except InputError as error:
            return error_response(404, str(error))
        return Response(found.data, media_type=found.media_type, headers=SAFE_HEADERS)


def _add_json(app: Any, service: SearchService) -> None:
    @app.get('/api/info')
    def info() -> dict[str, Any]:
        """Return what is searched, by which model, and which fields there are."""
        known = service.info()
        keys = ('model', 'fingerprint', 'embedding_size', 'items', 'index')
        fields = {
            name: [shown_value(name, value) for value in values]
            for name, values in service.choices().items()
        }
        return {**{key: known[key] for key in keys}, 'fields': fields}

    @app.post('/api/search')
    def search(
        queries: Annotated[list[str], Body(max_length=MAX_QUERIES)] = [],  # noqa: B006
        without: Annotated[str, Body()] = '',
        like: Annotated[str, Body(max_length=_MAX_PATH)] = '',
        top_k: Annotated[int, Body(ge=1, le=MAX_TOP_K)] = 20,
        min_score: Annotated[float, Body(allow_inf_nan=False)] = -1.0,
        where: Annotated[list[_Condition], Body(max_length=20)] = [],  # noqa: B006
        rerank: Annotated[str, Body()] = '',
    ) -> dict[str, Any]:
        """Search with descriptions, or for images like one of the gallery."""
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
        min_score: Annotated[float, Query(allow_inf_nan=False)] = -1.0,
        where: Annotated[list[_Condition], Query(max_length=20)] = [],  # noqa: B006
        rerank: str = '',
    ) -> dict[str, Any]:
        """Search with the image in the request's body."""
        began = time.perf_counter()
        image = await run_in_threadpool(read_upload, await _body(request))
        texts = [text] if text else []
        found = await run_in_threadpool(
            service.search, texts, without, image, '', top_k, min_score, where, rerank
        )
        return _as_json(found, began)


async def _body(request: Any) -> bytes:
    """Read a request's body, and no more of it than an image may have."""
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_UPLOAD_BYTES:
                break
    except ClientDisconnect as error:
        raise RefusedError(400, 'the picture was cut short') from error
    return bytes(data)


def _as_json(results: list[Found], began: float) -> dict[str, Any]:
    return {
        'results': [found.as_json() for found in results],
        'milliseconds': round(1000 * (time.perf_counter() - began), 1),
    }
