"""The names by which the server may be asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gckd_mm.search.web.json_errors import error_response

_HOST = re.compile(r'([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?')


class HostNameMiddleware:
    """Refuse requests to names that are not the server's, or are no names.

    Args:
        app: The ASGI application behind it.
        names: Of the server, without a port; None for any.
    """

    def __init__(self, app: Any, names: Sequence[str] | None) -> None:
        self.app = app
        self._names = None if names is None else {name.lower() for name in names}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it: 400."""
        if scope['type'] != 'http' or self._is_right(scope['headers']):
            await self.app(scope, receive, send)
            return
        answer = error_response(400, 'the Host is not a name of this server')
        await answer(scope, receive, send)

    def _is_right(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        given = [value for name, value in headers if name == b'host']
        found = _HOST.fullmatch(given[0].decode('latin-1')) if len(given) == 1 else None
        if found is None:
            return False
        return self._names is None or found[1].lower() in self._names
