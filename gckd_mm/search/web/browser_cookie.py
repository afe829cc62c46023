"""The cookie by which the server tells whose upload is whose."""

from __future__ import annotations

import re
import secrets
from typing import Any

from starlette.requests import cookie_parser

_NAME = 'gckd_browser'
_VALUE = re.compile(r'[0-9a-f]{32}')
#: requests with which the use of the page begins
_FIRST = ('/', '/config')


class BrowserCookieMiddleware:
    """Give each browser a random name, which it sends with all it asks for.

    Args:
        app: The ASGI application behind it.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, and a new cookie back where there is none."""
        if (
            scope['type'] != 'http'
            or scope['path'] not in _FIRST
            or cookie_of(scope) is not None
        ):
            await self.app(scope, receive, send)
            return
        cookie = f'{_NAME}={secrets.token_hex(16)}; Path=/; HttpOnly; SameSite=Strict'

        async def send_with_cookie(message: Any) -> None:
            if message['type'] == 'http.response.start':
                headers = [
                    *message.get('headers', []),
                    (b'set-cookie', cookie.encode()),
                ]
                message = {**message, 'headers': headers}
            await send(message)

        await self.app(scope, receive, send_with_cookie)


def cookie_of(scope: Any) -> str | None:
    """Return the browser's name, None where a request has none."""
    for name, value in scope['headers']:
        if name == b'cookie':
            given = cookie_parser(value.decode('latin-1')).get(_NAME, '')
            if _VALUE.fullmatch(given):
                return given
    return None
