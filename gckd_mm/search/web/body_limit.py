"""A limit to what a request may bring."""

from __future__ import annotations

from typing import Any

from gckd_mm.search.web.json_errors import RefusedError, error_response

_TOO_LARGE = 'the request is too large'


class BodyLimitMiddleware:
    """Refuse bodies that are too large, before they are read into memory.

    Args:
        app: The ASGI application behind it.
        max_bytes: Of a body.
    """

    def __init__(self, app: Any, max_bytes: int) -> None:
        self.app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it: 413."""
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        length = dict(scope['headers']).get(b'content-length', b'')
        if length.isdigit() and int(length) > self._max_bytes:
            await error_response(413, _TOO_LARGE)(scope, receive, send)
            return
        received = 0

        async def receive_some() -> Any:
            # a body without a length is counted as it comes
            nonlocal received
            message = await receive()
            received += len(message.get('body', b''))
            if received > self._max_bytes:
                raise RefusedError(413, _TOO_LARGE)
            return message

        await self.app(scope, receive_some, send)
