"""The names by which the server may be asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gckd_mm.search.web.json_errors import RefusedError
from gckd_mm.search.web.middleware import RequestMiddleware

_HOST = re.compile(r'([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?')


class HostNameMiddleware(RequestMiddleware):
    """Refuse requests to names that are not the server's, or are no names: 400.

    Args:
        app: The ASGI application behind it.
        names: Of the server, without a port; None for any.
    """

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
