"""The check of the page's events, before Gradio reads anything of them."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import parse_qs

from gckd_mm.errors import InputError
from gckd_mm.search.web.browser_cookie import cookie_of
from gckd_mm.search.web.json_body import DISCONNECTED, read_json, with_body
from gckd_mm.search.web.json_errors import RefusedError
from gckd_mm.search.web.middleware import RequestMiddleware
from gckd_mm.search.web.upload_paths import checked_event, is_session
from gckd_mm.search.web.uploads import Uploads

#: the events of the page wait in a queue, those of examples alone do not
_QUEUED, _DIRECT = '/gradio_api/queue/join', '/gradio_api/run/predict'
_ANSWERS = '/gradio_api/queue/data'
_MAX_BYTES = 1_000_000
_LOG = logging.getLogger(__name__)


class EventRequestMiddleware(RequestMiddleware):
    """Refuse events that name files which were not uploaded to this server."""

    def __init__(self, app: Any, page: Any, uploads: Uploads) -> None:
        super().__init__(app)
        self._page = page
        self._uploads = uploads

    async def checked(self, scope: Any, receive: Any, send: Any) -> Any:
        """Refuse with 403, 404, 413, 415 or 422, and log it."""
        try:
            if scope['path'] == _ANSWERS:
                self._check_session(scope['query_string'])
            if scope['path'] not in (_QUEUED, _DIRECT):
                return scope, receive, send
            body = await read_json(scope, receive, _MAX_BYTES)
            if body is DISCONNECTED:
                return None
            event = self._event_of(body, scope)
        except RefusedError as error:
            log_refusal(scope, str(error))
            raise
        return *with_body(scope, receive, event), send

    def _event_of(self, body: Any, scope: Any) -> dict[str, Any]:
        is_direct = scope['path'] == _DIRECT
        inputs_of = {
            number: event.inputs
            for number, event in self._page.fns.items()
            if (event.queue is False) == is_direct
        }
        owner = cookie_of(scope)
        claim = lambda path, session: self._uploads.claim(path, owner, session)  # noqa: E731
        try:
            return checked_event(body, inputs_of, claim, _hosts(scope))
        except RefusedError:
            raise
        except InputError as error:
            raise RefusedError(422, str(error)) from error

    def _check_session(self, query: bytes) -> None:
        # of an unknown one Gradio fails after the answer has begun, with a traceback
        (session, *others) = parse_qs(query.decode('latin-1')).get('session_hash', [''])
        known = self._page._queue.pending_messages_per_session
        if others or not is_session(session) or session not in known:
            raise RefusedError(404, 'there is no such session')


def log_refusal(scope: Any, why: str) -> None:
    """Write one line about a request that was refused."""
    client = (scope.get('client') or ('somebody',))[0]
    path = ascii(scope['path'])[:200]
    _LOG.warning('refused %s %s from %s: %s', scope['method'], path, client, why)


def _hosts(scope: Any) -> list[str]:
    names = (b'host', b'x-forwarded-host')
    return [
        value.decode('latin-1') for name, value in scope['headers'] if name in names
    ]
