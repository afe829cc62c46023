"""What the checks of requests have in common."""

from __future__ import annotations

from typing import Any

from gckd_mm.search.web.json_errors import RefusedError, error_response


class RequestMiddleware:
    """Pass requests on as :meth:`checked` returns them, or answer with its refusal.

    There are no websockets: each is closed.

    Args:
        app: The ASGI application behind it.
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
        """Return scope, ``receive`` and ``send`` to go on with; None for an end.

        Raises:
            RefusedError: If the request is refused.
        """
        raise NotImplementedError
