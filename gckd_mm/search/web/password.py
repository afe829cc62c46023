"""A password in front of everything that is served."""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Any

from gckd_mm.search.web.json_errors import error_response


class PasswordMiddleware:
    """Ask for a name and a password, as HTTP Basic (RFC 7617).

    Only what stands behind TLS keeps them secret on the way.

    Args:
        app: The ASGI application behind it.
        user: The name.
        password: The password.
    """

    def __init__(self, app: Any, user: str, password: str) -> None:
        self.app = app
        self._expected = f'{user}:{password}'.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it."""
        if scope['type'] == 'lifespan' or self._is_right(dict(scope['headers'])):
            await self.app(scope, receive, send)
            return
        if scope['type'] == 'websocket':
            await send({'type': 'websocket.close', 'code': 1008})
            return
        headers = {'WWW-Authenticate': 'Basic realm="person search", charset="UTF-8"'}
        answer = error_response(401, 'name and password, please', headers)
        await answer(scope, receive, send)

    def _is_right(self, headers: dict[bytes, bytes]) -> bool:
        kind, _, given = headers.get(b'authorization', b'').partition(b' ')
        try:
            decoded = base64.b64decode(given, validate=True)
        except binascii.Error:
            return False
        return kind.lower() == b'basic' and hmac.compare_digest(decoded, self._expected)
