"""A limit to what a request may bring."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException


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
            await _refuse(send)
            return
        received = 0

        async def receive_some() -> Any:
            # a body without a length is counted as it comes
            nonlocal received
            message = await receive()
            received += len(message.get('body', b''))
            if received > self._max_bytes:
                raise HTTPException(413, 'the request is too large')
            return message

        await self.app(scope, receive_some, send)


async def _refuse(send: Any) -> None:
    headers = [(b'content-type', b'text/plain; charset=utf-8')]
    await send({'type': 'http.response.start', 'status': 413, 'headers': headers})
    await send({'type': 'http.response.body', 'body': b'the request is too large'})
