"""``gckd-search serve``: the web page of a gallery."""

from __future__ import annotations

import argparse
import socket
import sys
import threading
import webbrowser

from gckd_mm.errors import InputError
from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.gallery import Gallery

_SHORTEST_PASSWORD = 8
#: for answers that have begun, such as those to a page that listens
_SECONDS_TO_STOP = 3


def run(options: argparse.Namespace) -> int:
    """Serve until it is interrupted."""
    from gckd_mm.search.web.server import is_loopback, make_app
    from gckd_mm.search.web.service import SearchService

    import uvicorn  # isort: skip - comes with what the line above has asked for

    login = _login(options)
    if login is None and not is_loopback(options.host):
        raise InputError(
            f'--host {options.host} lets other machines in: name a --password-file'
        )
    gallery, inferencer = _open(options)
    with gallery, _listening(options.host, options.port) as listener:
        service = SearchService(gallery, inferencer)
        seconds = service.warm_up()
        host = f'[{options.host}]' if ':' in options.host else options.host
        address = f'http://{host}:{listener.getsockname()[1]}/'
        print(
            f'{len(gallery)} pictures at {address} (a search takes '
            f'{1000 * seconds:.0f} ms); Ctrl+C ends it',
            file=sys.stderr,
            flush=True,
        )
        if options.open:
            threading.Timer(1.0, webbrowser.open, [address]).start()
        app = make_app(service, login, host)
        config = uvicorn.Config(
            app,
            log_level='warning',
            timeout_graceful_shutdown=_SECONDS_TO_STOP,
            ws='none',
        )
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _listening(host: str, port: int) -> socket.socket:
    """Listen before anything is said of it."""
    if not 0 <= port < 65536:
        raise InputError(f'--port must be 0 to 65535, got {port}')
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
        # asyncio sets this only where the protocol is named; without, an answer waits
        # 40 ms for the client's receipt of its headers
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError) as error:
        raise InputError(
            f'--host {host} --port {port}: cannot be listened at ({error}); name '
            f'another --port, or 0 for any that is free'
        ) from error


def _login(options: argparse.Namespace) -> tuple[str, str] | None:
    if options.password_file is None:
        return None
    try:
        lines = options.password_file.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f'{options.password_file}: cannot be read ({error})'
        ) from error
    password = lines[0].strip() if lines else ''
    if len(password) < _SHORTEST_PASSWORD:
        raise InputError(
            f'{options.password_file}: its first line must be a password of at least '
            f'{_SHORTEST_PASSWORD} characters'
        )
    return options.user, password


def _open(options: argparse.Namespace) -> tuple[Gallery, PersonSearchInferencer]:
    if options.demo == bool(options.gallery):
        raise InputError('name a gallery, or --demo')
    if options.demo:
        from gckd_mm.search.web.demo import MODEL, demo_folder, demo_gallery

        inferencer = PersonSearchInferencer(MODEL, None, options.device)
        folder = options.demo_folder or demo_folder()
        print(
            f'rendering and indexing people in {folder} …', file=sys.stderr, flush=True
        )
        return demo_gallery(inferencer, folder), inferencer
    gallery = Gallery.open(options.gallery)
    gallery.check(fully=True)
    inferencer = PersonSearchInferencer.of_gallery(
        gallery, options.device, model=options.checkpoint
    )
    return gallery, inferencer
