"""A password in front of everything that is served."""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Any

from gckd_mm.search.web.json_errors import RefusedError
from gckd_mm.search.web.middleware import RequestMiddleware


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
