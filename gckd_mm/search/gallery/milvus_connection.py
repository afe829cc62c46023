"""Connections to Milvus: to a server, or to Milvus Lite in this process."""

from __future__ import annotations

import logging
import logging.config
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit

from gckd_mm.errors import InputError
from gckd_mm.search.gallery.damage import UnreadableGalleryError

#: The client pings every ten seconds, of which a server in this process, that has been
#: busy, hangs up ("too_many_pings"): a server takes one in five minutes.
_LITE_CHANNEL = {'grpc.keepalive_time_ms': 300_000}
_CONNECT_SECONDS = 5
_SCHEMES = ('http', 'https', 'tcp')
_INSTALL = 'https://milvus.io/docs/install_standalone-docker.md'
#: connections of this process to the files of Milvus Lite, and what guards each file
_users: Counter[str] = Counter()
_file_locks: dict[str, threading.RLock] = defaultdict(threading.RLock)
_lock = threading.Lock()


def pymilvus() -> Any:
    """Import the client of Milvus, or raise InputError if it is not installed."""
    try:
        with _logging_as_it_is():
            import pymilvus
    except ImportError as error:
        raise InputError(
            "a gallery in Milvus needs pymilvus: pip install 'gckd-mm[milvus]'"
        ) from error
    # It logs what it raises, with tracebacks; our errors say it to people.
    logging.getLogger('pymilvus').setLevel(logging.CRITICAL)
    return pymilvus


@contextmanager
def _logging_as_it_is() -> Iterator[None]:
    """Keep the import of pymilvus from configuring the process's logging.

    ``dictConfig`` closes the handlers of everybody, such as the log file of a run.
    """
    configure = logging.config.dictConfig
    logging.config.dictConfig = lambda config: None
    try:
        yield
    finally:
        logging.config.dictConfig = configure


def is_file(uri: str) -> bool:
    """Return whether a URI is a file of Milvus Lite, and not an address."""
    return '://' not in uri


class MilvusConnection:
    """A client whose errors say what to do.

    Connections of one process to one file share an instance of Milvus Lite, which the
    last of them ends. Milvus Lite is called by one thread at a time: a search beside a
    write can miss what is being moved to the disk.

    Args:
        uri: Such as ``http://localhost:19530``, or a file that ends in ``.db``.
        token: Of the server: a key, or ``user:password``.

    Attributes:
        client: The ``MilvusClient``; call its methods by :meth:`run`.
    """

    def __init__(self, uri: str, token: str | None = None) -> None:
        self.uri = uri
        self.client: Any
        self._file: str | None = None
        self._guard: AbstractContextManager[Any] = nullcontext()
        pymilvus()
        if is_file(uri):
            self._file = os.path.realpath(uri)
            self._guard = _file_locks[self._file]
            with _lock:
                self.client = _lite_client(self._file)
                _users[self._file] += 1
        else:
            _check_address(uri)
            self.client = self.run(_client, uri, token or '')

    def run(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a method of the client, or of what the client returned."""
        import grpc

        try:
            with self._guard:
                return function(*args, **options)
        except (pymilvus().MilvusException, grpc.RpcError) as error:
            raise UnreadableGalleryError(self._reason(error)) from error

    def close(self) -> None:
        """Disconnect."""
        self.client.close()
        if self._file is not None:
            with _lock:
                _users[self._file] -= 1
                if not _users[self._file]:
                    from milvus_lite.server_manager import server_manager_instance

                    server_manager_instance.release_server(self._file)
            self._file = None

    def _reason(self, error: Any) -> str:
        import grpc

        # what failed to connect says why in its cause alone
        for reason in (error.__cause__, error):
            if isinstance(reason, grpc.RpcError):
                code, details = reason.code(), reason.details()
                break
        else:
            code, details = error.code, error.message
        if code == grpc.StatusCode.UNAUTHENTICATED:
            return f'{self.uri}: refuses the token: it is a key, or user:password'
        if code in (
            pymilvus().client.types.Status.CONNECT_FAILED,
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        ):
            return (
                f'{self.uri}: no Milvus answers ({details}): check the address, or '
                f'start one with Docker: {_INSTALL}'
            )
        return f'{self.uri}: Milvus says: {details}'


def _client(uri: str, token: str = '', **options: Any) -> Any:
    return pymilvus().MilvusClient(
        uri, token=token, timeout=_CONNECT_SECONDS, dedicated=True, **options
    )


def _check_address(uri: str) -> None:
    try:
        address = urlsplit(uri)
        good = address.scheme in _SCHEMES and address.hostname
        address.port  # noqa: B018 - raises if it is none
    except ValueError:
        good = None
    if not good:
        raise InputError(
            f'{uri}: is no address of Milvus: such as http://localhost:19530, or a '
            f'file that ends in .db'
        )
    if address.username or address.password:
        raise InputError(
            f'{address.scheme}://{address.hostname}: a gallery remembers its address: '
            f"leave user and password out of it, and give the token 'user:password'"
        )


def _lite_client(file: str) -> Any:
    if not file.endswith('.db') or not os.path.isdir(os.path.dirname(file)):
        raise InputError(
            f'{file}: a file of Milvus Lite ends in .db and lies in a folder that is '
            f'there; a server has an address such as http://localhost:19530'
        )
    try:
        import milvus_lite.server_manager  # noqa: F401 - what MilvusClient imports
        from milvus_lite.exceptions import DataDirLockedError
    except ImportError as error:
        raise InputError(
            f"{file}: needs Milvus Lite: pip install 'gckd-mm[milvus]'"
        ) from error
    with _logged_errors('milvus_lite.server_manager') as reasons:
        try:
            return _client(file, grpc_options=_LITE_CHANNEL)
        except pymilvus().MilvusException as error:
            if any(isinstance(reason, DataDirLockedError) for reason in reasons):
                raise InputError(
                    f'{file}: is in use by another process, and Milvus Lite serves '
                    f'one: end it, or start a server for several ({_INSTALL})'
                ) from error
            details = next(iter(reasons), error)
            raise InputError(f'{file}: cannot be opened ({details})') from error


@contextmanager
def _logged_errors(name: str) -> Iterator[list[BaseException]]:
    """Collect the exceptions that a logger gets, and keep them off the screen."""
    errors: list[BaseException] = []

    class Collects(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1]:
                errors.append(record.exc_info[1])

    logger, handler = logging.getLogger(name), Collects()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield errors
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
