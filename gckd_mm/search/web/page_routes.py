"""The list of what may be asked of the server; everything else is refused."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from gckd_mm.search.web.json_errors import RefusedError
from gckd_mm.search.web.middleware import RequestMiddleware


class Route(NamedTuple):
    """A regular expression of a path; its parameters are passed on, all with None."""

    path: str
    methods: tuple[str, ...] = ('GET',)
    parameters: tuple[str, ...] | None = ()


#: ours, which check their parameters themselves
OWN_ROUTES = (
    Route('/picture', parameters=None),
    Route('/api/info', parameters=None),
    Route('/openapi.json', parameters=None),
    Route('/api/search', ('POST',), None),
    Route('/api/search_by_image', ('POST',), None),
    Route('/gradio_api/upload', ('POST',)),
    Route('/gradio_api/upload_progress'),
    Route('(?s:/gradio_api/file=.*)'),
)
_FILE = r'(/[A-Za-z0-9_@-][A-Za-z0-9_.@-]{0,127}){1,6}\.[a-z0-9]{2,5}'
#: Gradio's, as far as the page in a browser asks for them
GRADIO_ROUTES = (
    Route('/', ('GET', 'HEAD'), ('like', '__theme')),
    Route('/config'),
    Route('/theme.css', parameters=('v',)),
    Route('/manifest.json'),
    Route('/favicon.ico'),
    Route(f'/(assets|static){_FILE}'),
    Route('/gradio_api/info'),
    Route('/gradio_api/app_id'),
    Route('/gradio_api/queue/join', ('POST',), ('like', '__theme')),
    Route('/gradio_api/queue/data', parameters=('session_hash',)),
    Route('/gradio_api/run/predict', ('POST',), ('like', '__theme')),
)
#: by the first, Gradio lets pages of other sites read its answers; the second it takes
#: for its own address
_LEFT_OUT = frozenset({b'origin', b'x-gradio-server'})
_FORWARDED = {
    b'x-forwarded-host': re.compile(rb'[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?'),
    b'x-forwarded-proto': re.compile(rb'https?'),
}


class PageRoutesMiddleware(RequestMiddleware):
    """Let nothing through but what is on the list: others get 404 or 405.

    Gradio has some sixty routes, and each version has others. The page needs these.
    """

    async def checked(self, scope: Any, receive: Any, send: Any) -> Any:
        """Take what is not needed out of requests to Gradio."""
        for route in (*OWN_ROUTES, *GRADIO_ROUTES):
            if re.fullmatch(route.path, scope['path']) is None:
                continue
            if scope['method'] not in route.methods:
                allowed = {'Allow': ', '.join(route.methods)}
                raise RefusedError(405, 'wrong method for this path', allowed)
            if route in GRADIO_ROUTES:
                scope = _plain(scope, route)
            return scope, receive, send
        raise RefusedError(404, 'there is nothing here')


def _plain(scope: Any, route: Route) -> Any:
    """Return a request without what Gradio could be led astray by."""
    given = parse_qsl(scope['query_string'].decode('latin-1'), max_num_fields=None)
    kept = [pair for pair in given if pair[0] in (route.parameters or ())]
    headers = [
        (name, value)
        for name, value in scope['headers']
        if name not in _LEFT_OUT
        and (name not in _FORWARDED or _FORWARDED[name].fullmatch(value))
    ]
    return {
        **scope,
        'path': scope['path'],
        'raw_path': scope['path'].encode(),
        'query_string': urlencode(kept).encode(),
        'headers': headers,
    }
