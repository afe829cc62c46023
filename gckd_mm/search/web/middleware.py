"""What every request passes first: its size, the name of the server, the password."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Sequence
from typing import Any

from gckd_mm.search.web.json_errors import RefusedError, error_response

_HOST = re.compile(r'([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?')


class RequestMiddleware:
    """Pass requests on as :meth:`checked` returns them, or answer with its refusal.

    There are no websockets: each is closed.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it."""
        if scope['type'] == 'websocket':
            await send({'type': 'websocket.close', 'code': 1008})
            return
        passed: Any = scope, receive, send
        if scope['type'] == 'http':
            try:
                passed = await self.checked(scope, receive, send)
            except RefusedError as error:
                passed = None
                answer = error_response(error.status, str(error), error.headers)
                await answer(scope, receive, send)
        if passed is not None:
            await self.app(*passed)

    async def checked(self, scope: Any, receive: Any, send: Any) -> Any:
        """Return what to go on with, None for an end, or raise RefusedError."""
        raise NotImplementedError


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


class HostNameMiddleware(RequestMiddleware):
    """Refuse requests to other names than the server's, without a port: 400."""

    def __init__(self, app: Any, names: Sequence[str] | None) -> None:
        super().__init__(app)
        self._names = None if names is None else {name.lower() for name in names}

    async def checked(self, scope: Any, receive: Any, send: Any) -> Any:
        """Look at the header Host."""
        if not self._is_right(scope['headers']):
            raise RefusedError(400, 'the Host is not a name of this server')
        return scope, receive, send

    def _is_right(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        given = [value for name, value in headers if name == b'host']
        found = _HOST.fullmatch(given[0].decode('latin-1')) if len(given) == 1 else None
        if found is None:
            return False
        return self._names is None or found[1].lower() in self._names


class PasswordMiddleware(RequestMiddleware):
    """Ask for a name and a password, as HTTP Basic (RFC 7617): 401.

    Only what stands behind TLS keeps them secret on the way.
    """

    def __init__(self, app: Any, user: str, password: str) -> None:
        super().__init__(app)
        self._expected = f'{user}:{password}'.encode()

    async def checked(self, scope: Any, receive: Any, send: Any) -> Any:
        """Look at the header Authorization."""
        if not self._is_right(dict(scope['headers'])):
            headers = {
                'WWW-Authenticate': 'Basic realm="person search", charset="UTF-8"'
            }
            raise RefusedError(401, 'name and password, please', headers)
        return scope, receive, send

    def _is_right(self, headers: dict[bytes, bytes]) -> bool:
        kind, _, given = headers.get(b'authorization', b'').partition(b' ')
        try:
            decoded = base64.b64decode(given, validate=True)
        except binascii.Error:
            return False
        return kind.lower() == b'basic' and hmac.compare_digest(decoded, self._expected)
