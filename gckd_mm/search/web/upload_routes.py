"""Taking images that visitors upload, and showing them to those who sent them."""

from __future__ import annotations

import logging
import mimetypes
import os
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from gckd_mm.errors import InputError
from gckd_mm.search.gallery.files import SUFFIXES
from gckd_mm.search.web.browser_cookie import cookie_of
from gckd_mm.search.web.event_requests import log_refusal
from gckd_mm.search.web.json_errors import RefusedError
from gckd_mm.search.web.service import MAX_UPLOAD_BYTES
from gckd_mm.search.web.uploads import Uploads

#: of an answer that is a file: it stays here, and nothing in it runs
SAFE_HEADERS = {
    'X-Content-Type-Options': 'nosniff',
    'Content-Security-Policy': "default-src 'none'",
    'Cache-Control': 'private, max-age=3600',
}
#: more than a body may have, so that a form stays in memory: nothing touches a disk
_IN_MEMORY = 2 * MAX_UPLOAD_BYTES
_LOG = logging.getLogger(__name__)


def add_upload_routes(app: FastAPI, uploads: Uploads) -> None:
    """Serve uploads in the place of Gradio, at the addresses that its page asks for.

    Gradio would name a file by what is in it, and hand it out to anybody.
    """

    @app.post('/gradio_api/upload', include_in_schema=False)
    async def upload(request: Request) -> list[str]:
        """Keep an image; return its path."""
        data, name = await _sent_file(request)
        suffix = os.path.splitext(name)[1].lower()
        if suffix not in SUFFIXES:
            suffix = ''
        try:
            path = uploads.add(data, suffix, cookie_of(request.scope))
        except RefusedError as error:
            log_refusal(request.scope, str(error))
            raise
        except OSError as error:
            _LOG.error('an upload cannot be kept: %s', error)
            raise RefusedError(507, 'the image could not be kept') from error
        return [path]

    @app.get('/gradio_api/upload_progress', include_in_schema=False)
    def upload_progress() -> Response:
        """Say that an upload is done: the page asks, and shows it without, too."""
        return Response('data: {"msg": "done"}\n\n', media_type='text/event-stream')

    @app.get('/gradio_api/file={path:path}', include_in_schema=False)
    def file(path: str, request: Request) -> Response:
        """Return an upload to the browser that sent it."""
        try:
            uploads.claim(path, cookie_of(request.scope))
        except RefusedError as error:
            log_refusal(request.scope, str(error))
            raise
        try:
            data = uploads.read(path)
        except InputError as error:
            raise RefusedError(404, str(error)) from error
        kind = mimetypes.types_map.get(os.path.splitext(path)[1])
        return Response(
            data, media_type=kind or 'application/octet-stream', headers=SAFE_HEADERS
        )


async def _sent_file(request: Any) -> tuple[bytes, str]:
    """Return what is in the one file of a form, and the name that it was given."""
    parser = MultiPartParser(request.headers, request.stream(), max_files=1)
    parser.spool_max_size = _IN_MEMORY
    try:
        form = await parser.parse()
    except ClientDisconnect as error:
        raise RefusedError(400, 'the upload was cut short') from error
    except (MultiPartException, ValueError, KeyError) as error:
        raise RefusedError(400, 'an upload is one file of a form') from error
    try:
        sent = form.get('files')
        if not isinstance(sent, UploadFile):
            raise RefusedError(400, "an upload is a file named 'files' of a form")
        if (sent.size or 0) > MAX_UPLOAD_BYTES:
            raise RefusedError(413, f'an image may have {MAX_UPLOAD_BYTES} bytes')
        return await sent.read(), sent.filename or ''
    finally:
        await form.close()
