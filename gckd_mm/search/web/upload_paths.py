"""What an event of the page may carry: no path but those of uploads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import gradio

from gckd_mm.errors import InputError
from gckd_mm.search.web.json_errors import RefusedError

#: of Gradio's own form of a body; it knows others, which the page never sends
_KEYS = frozenset({'data', 'event_data', 'fn_index', 'trigger_id', 'session_hash'})
_REFERENCE_KEYS = frozenset(
    {'path', 'url', 'orig_name', 'size', 'mime_type', 'is_stream', 'meta'}
)
_META = {'_type': 'gradio.FileData'}
_FILE_ROUTE = '/gradio_api/file='
_MAX_SESSION = 64
_MAX_TRIGGER = 1_000_000


def checked_event(
    body: Any,
    inputs_of: Mapping[int, Sequence[Any]],
    claim: Callable[[str, str], None],
    hosts: Sequence[str],
) -> dict[str, Any]:
    """Check what the page sends when something happens on it.

    An input that is known to be text, a number or a choice may be that and nothing
    else; any other one may be an upload or nothing. So a component that is added to the
    page cannot open a way to other files.

    Args:
        body: Of the request.
        inputs_of: Number of an event -> the components that it reads.
        claim: Raises an error unless a path was uploaded by the session named second.
        hosts: Names by which the page may call this server.

    Returns:
        The body in its shortest form: an upload is no more than its path.
    """
    if not isinstance(body, dict) or not body.keys() <= _KEYS:
        raise InputError(f'an event has no more than {", ".join(sorted(_KEYS))}')
    session = body.get('session_hash')
    if not isinstance(session, str) or not is_session(session):
        raise InputError('session_hash must be letters, digits, - and _, at most 64')
    event, trigger = body.get('fn_index'), body.get('trigger_id')
    if type(event) is not int or event not in inputs_of:
        raise InputError('fn_index must be that of an event of the page')
    if trigger is not None and not (
        type(trigger) is int and 0 <= trigger <= _MAX_TRIGGER
    ):
        raise InputError('trigger_id must be the number of a component')
    if body.get('event_data') is not None:
        raise InputError('event_data must be null: the page sends none')
    data, inputs = body.get('data'), inputs_of[event]
    if not isinstance(data, list) or len(data) != len(inputs):
        raise InputError(f'data must be a list of {len(inputs)} values')
    return {
        'data': [
            _checked(value, block, lambda path: claim(path, session), hosts)
            for value, block in zip(data, inputs, strict=True)
        ],
        'event_data': None,
        'fn_index': event,
        'trigger_id': trigger,
        'session_hash': session,
    }


def is_session(name: Any) -> bool:
    """Return whether a value can be the name of a session of the page."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= _MAX_SESSION
        and name.isascii()
        and name.replace('-', '').replace('_', '').isalnum()
    )


def _checked(
    value: Any, block: Any, claim: Callable[[str], None], hosts: Sequence[str]
) -> Any:
    if isinstance(block, gradio.Textbox):
        is_right = value is None or _is_text(value, block.max_length)
    elif isinstance(block, gradio.Slider):
        is_right = _is_number(value) and block.minimum <= value <= block.maximum
    elif isinstance(block, gradio.Dropdown):
        is_right = value is None or value in [choice for _, choice in block.choices]
    elif isinstance(block, gradio.Dataset):
        is_right = type(value) is int and 0 <= value < len(block.samples or [])
    else:
        return _checked_reference(value, claim, hosts)
    if not is_right:
        # a dictionary or list, too: here they could only be references to files
        name = getattr(block, 'label', None) or type(block).__name__
        raise InputError(f'{name!r} cannot be what was sent')
    return value


def _checked_reference(
    value: Any, claim: Callable[[str], None], hosts: Sequence[str]
) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get('path'), str):
        raise RefusedError(403, 'an image must be one that was uploaded here')
    path = value['path']
    claim(path)
    if (
        not value.keys() <= _REFERENCE_KEYS
        or value.get('is_stream')
        or value.get('meta', _META) != _META
        or not _is_address_of(path, value.get('url'), hosts)
    ):
        raise RefusedError(403, 'an upload must be named as the page names it')
    return {'path': path, 'meta': _META}


def _is_address_of(path: str, url: Any, hosts: Sequence[str]) -> bool:
    """Return whether an address is that by which this server hands a file out."""
    if url is None:
        return True
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return (
        parts.scheme in ('http', 'https', '')
        and parts.netloc in ('', *hosts)
        and not parts.query
        and not parts.fragment
        and unquote(parts.path).endswith(f'{_FILE_ROUTE}{path}')
    )


def _is_text(value: Any, max_length: int | None) -> bool:
    return isinstance(value, str) and (max_length is None or len(value) <= max_length)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
