"""The one shape of what the server refuses: ``{"error": "..."}``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gckd_mm.errors import InputError
from gckd_mm.search.web.service import UnavailableError

#: of one message; a request can be wrong in many ways
_MAX_PROBLEMS = 5


class RefusedError(InputError):
    """A request that is refused with an HTTP status, and headers, of its own."""

    def __init__(
        self, status: int, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def error_response(
    status: int, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an answer that says what is wrong; other than ASCII is escaped."""
    content = json.dumps({'error': message})
    return Response(content, status, headers, media_type='application/json')


def add_error_handlers(app: FastAPI) -> None:
    """Give every error of an application the one shape."""
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(UnavailableError, _saying(503))
    app.add_exception_handler(InputError, _saying(422))
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    # Starlette logs it
    failed = error_response(500, 'the server failed; its log says why')
    app.add_exception_handler(Exception, lambda request, error: failed)


def _refused(request: Any, error: Any) -> Response:
    return error_response(error.status, str(error), error.headers)


def _saying(status: int) -> Callable[[Any, Any], Response]:
    return lambda request, error: error_response(status, str(error))


def _validation_error(request: Any, error: Any) -> Response:
    problems = [
        f'{".".join(map(str, problem["loc"][1:])) or "body"}: {problem["msg"]}'
        for problem in error.errors()[:_MAX_PROBLEMS]
    ]
    return error_response(422, '; '.join(problems))


def _http_error(request: Any, error: Any) -> Response:
    return error_response(error.status_code, str(error.detail), error.headers)
