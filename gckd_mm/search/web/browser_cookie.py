"""The cookie by which the server knows whose upload is whose."""

from __future__ import annotations

import re
import secrets
from typing import Any

from starlette.requests import cookie_parser

from gckd_mm.search.web.middleware import RequestMiddleware

_NAME = 'gckd_browser'
_VALUE = re.compile(r'[0-9a-f]{32}')
#: requests with which the use of the page begins
_FIRST = ('/', '/config')


class BrowserCookieMiddleware(RequestMiddleware):
    """Give each browser a random name, which it sends with all it asks for."""

    async def checked(self, scope: Any, receive: Any, send: Any) -> Any:
        """Send a cookie back where there is none."""
        if scope['path'] not in _FIRST or cookie_of(scope) is not None:
            return scope, receive, send
        cookie = f'{_NAME}={secrets.token_hex(16)}; Path=/; HttpOnly; SameSite=Strict'

        async def send_with_cookie(message: Any) -> None:
            if message['type'] == 'http.response.start':
                headers = message.get('headers', [])
                headers = [*headers, (b'set-cookie', cookie.encode())]
                message = {**message, 'headers': headers}
            await send(message)

        return scope, receive, send_with_cookie


def cookie_of(scope: Any) -> str | None:
    """Return the browser's name, None where a request has none."""
    for name, value in scope['headers']:
        if name == b'cookie':
            given = cookie_parser(value.decode('latin-1')).get(_NAME, '')
            if _VALUE.fullmatch(given):
                return given
    return None
