"""A limit to what a request may bring."""

from __future__ import annotations

from typing import Any

from gckd_mm.search.web.json_errors import RefusedError
from gckd_mm.search.web.middleware import RequestMiddleware


class BodyLimitMiddleware(RequestMiddleware):
    """Refuse bodies of more bytes, before they are read into memory: 413."""

    def __init__(self, app: Any, max_bytes: int) -> None:
        super().__init__(app)
        self._max_bytes = max_bytes

    async def checked(self, scope: Any, receive: Any, send: Any) -> Any:
        """Count the body as it comes, too: it may have no length."""
        received = 0
        length = dict(scope['headers']).get(b'content-length', b'')
        self._check(int(length) if length.isdigit() else 0)

        async def receive_some() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get('body', b''))
            self._check(received)
            return message

        return scope, receive_some, send

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            raise RefusedError(413, 'the request is too large')
