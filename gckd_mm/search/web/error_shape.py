"""Errors that Gradio and Starlette answer by themselves, in the one shape."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from gckd_mm.search.web.json_errors import error_response
from gckd_mm.search.web.middleware import RequestMiddleware

#: about the body that is replaced
_LEFT_OUT = frozenset(
    {'content-length', 'content-type', 'content-encoding', 'transfer-encoding'}
)


class ErrorShapeMiddleware(RequestMiddleware):
    """Write errors of another shape than ours anew."""

    async def checked(self, scope: Any, receive: Any, send: Any) -> Any:
        """Hold an answer back if it is an error."""
        start: Any = None
        body = bytearray()

        async def send_shaped(message: Any) -> None:
            nonlocal start
            if message['type'] == 'http.response.start' and message['status'] >= 400:
                start = message
            elif start is None:
                await send(message)
            else:
                body.extend(message.get('body', b''))
                if not message.get('more_body', False):
                    answer = _shaped(start, bytes(body))
                    await answer(scope, receive, send)

        return scope, receive, send_shaped


def _shaped(start: Any, body: bytes) -> Any:
    status = start['status']
    headers = {
        name.decode('latin-1'): value.decode('latin-1')
        for name, value in start['headers']
        if name.decode('latin-1').lower() not in _LEFT_OUT
    }
    return error_response(status, _message(status, body), headers)


def _message(status: int, body: bytes) -> str:
    """Return the message of an error that has our shape, else the name of the status.

    What others write into their errors may be anything.
    """
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if isinstance(value, dict) and isinstance(value.get('error'), str):
        return value['error']
    known = {x.value: x.phrase.lower() for x in HTTPStatus}
    return known.get(status, 'the request cannot be answered')
