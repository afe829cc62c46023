"""Bodies of requests as JSON that has one meaning only."""

from __future__ import annotations

import json
import math
from typing import Any

from gckd_mm.errors import InputError
from gckd_mm.search.web.json_errors import RefusedError
from gckd_mm.search.web.middleware import RequestMiddleware

#: of a whole number: those of 64 bits
_MAX_DIGITS = 19
_MAX_DEPTH = 32


class JsonBodyMiddleware(RequestMiddleware):
    """Check bodies that must be JSON before anything else reads them.

    What is behind it gets the body written anew, so that no two parsers can differ on
    what was sent. Requests of other paths are passed on.
    """

    def __init__(self, app: Any, paths: frozenset[str], max_bytes: int) -> None:
        super().__init__(app)
        self._paths = paths
        self._max_bytes = max_bytes

    async def checked(self, scope: Any, receive: Any, send: Any) -> Any:
        """Refuse with 413, 415 or 422."""
        if scope['method'] != 'POST' or scope['path'] not in self._paths:
            return scope, receive, send
        value = await read_json(scope, receive, self._max_bytes)
        if value is DISCONNECTED:
            return None
        return *with_body(scope, receive, value), send


#: in place of a body whose sender has gone
DISCONNECTED = object()


async def read_json(scope: Any, receive: Any, max_bytes: int) -> Any:
    """Return the value of a request's body, ``DISCONNECTED`` if its sender has gone."""
    body = bytearray()
    while True:
        message = await receive()
        if message['type'] == 'http.disconnect':
            return DISCONNECTED
        body += message.get('body', b'')
        if len(body) > max_bytes:
            raise RefusedError(413, f'the body may have {max_bytes} bytes at most')
        if not message.get('more_body', False):
            break
    kind = dict(scope['headers']).get(b'content-type', b'')
    if kind.partition(b';')[0].strip().lower() != b'application/json':
        raise RefusedError(415, 'the Content-Type must be application/json')
    try:
        return parse_json(bytes(body))
    except InputError as error:
        raise RefusedError(422, str(error)) from error


def with_body(scope: Any, receive: Any, value: Any) -> tuple[Any, Any]:
    """Return the scope and ``receive`` of a request with a JSON value as its body."""
    body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    headers = [
        header
        for header in scope['headers']
        if header[0] not in (b'content-length', b'content-type', b'transfer-encoding')
    ]
    headers += [
        (b'content-length', str(len(body)).encode()),
        (b'content-type', b'application/json'),
    ]
    messages = [{'type': 'http.request', 'body': body, 'more_body': False}]

    async def receive_body() -> Any:
        return messages.pop() if messages else await receive()

    return {**scope, 'headers': headers}, receive_body


def parse_json(data: bytes) -> Any:
    """Read JSON strictly: every number is finite, every text can be written as UTF-8.

    Raises:
        InputError: If it is not JSON, is nested deeper than 32, names a key twice, or
            has a number that is not finite or of more than 19 digits, or half of a
            surrogate pair.
    """
    try:
        value = json.loads(
            data.decode('utf-8'),
            parse_constant=_no_number,
            parse_int=_integer,
            parse_float=_real,
            object_pairs_hook=_object,
        )
    except InputError:
        raise
    except RecursionError as error:
        raise InputError('the JSON is nested too deeply') from error
    except UnicodeDecodeError as error:
        raise InputError('the body is not UTF-8') from error
    except ValueError as error:
        raise InputError(f'the body is not JSON: {error}') from error
    _check(value, 0)
    return value


def _check(value: Any, depth: int) -> None:
    """Refuse deep nesting and texts that are not Unicode."""
    if depth >= _MAX_DEPTH and isinstance(value, list | dict):
        raise InputError('the JSON is nested too deeply')
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, list):
        for part in value:
            _check(part, depth + 1)
    elif isinstance(value, dict):
        for key, part in value.items():
            _check_text(key)
            _check(part, depth + 1)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError('a text has half of a surrogate pair') from error


def _no_number(name: str) -> Any:
    raise InputError(f'{name} is not a number of JSON')


def _integer(digits: str) -> int:
    if len(digits.lstrip('-')) > _MAX_DIGITS:
        raise InputError(f'a number has more than {_MAX_DIGITS} digits')
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise InputError(f'{digits[:20]} is too large a number')
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InputError('an object of the JSON names a key twice')
    return value
