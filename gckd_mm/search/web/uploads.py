"""The images that visitors of the page upload: where they lie, whose they are."""

from __future__ import annotations

import atexit
import getpass
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from gckd_mm.errors import InputError
from gckd_mm.process_lock import is_locked, process_lock
from gckd_mm.regular_files import read_regular
from gckd_mm.search.web.json_errors import RefusedError
from gckd_mm.search.web.service import MAX_UPLOAD_BYTES

KEPT_SECONDS = 600.0
#: of one visitor
_MAX_KEPT, _MAX_KEPT_BYTES = 100, 100_000_000
#: of all visitors
_MAX_ALL, _MAX_ALL_BYTES = 5_000, 2_000_000_000
#: uploads that are gone, but whose paths may still be sent
_MAX_REMEMBERED = 10_000
_NAME = re.compile(r'([0-9]+-[0-9a-f]{16})(\.lock|\.lock\.owner)?')
_SECONDS_TO_START = 30.0


@dataclass
class _Upload:
    """One file, at a moment of :func:`time.monotonic`, of the owner of a cookie."""

    owner: str | None
    size: int
    at: float
    session: str | None = None
    is_kept: bool = True


class Uploads:
    """The uploads of one server process, in a folder of its own.

    The folder is readable by its owner alone, and lies in one that is ours, too. A lock
    shows other servers that its process lives. It goes when the server stops; that of a
    server that was killed goes when the next one starts. Files have random names, and a
    path counts only if it is, letter by letter, one that :meth:`add` has given: nothing
    is looked up on the disk for it.

    A visitor who uploads too much loses his own oldest images. Images of others are
    never removed for it: where there is no room left, the new image is refused.

    Args:
        base: Folder of the folders of all servers. Defaults to one of the user's in the
            folder for temporary files.
        kept_seconds: How long a file is kept. Defaults to ten minutes.
    """

    def __init__(
        self, base: Path | None = None, kept_seconds: float = KEPT_SECONDS
    ) -> None:
        user = os.getuid() if hasattr(os, 'getuid') else getpass.getuser()
        self._base = base or Path(tempfile.gettempdir()) / f'gckd_mm-{user}'
        #: of this server; it is there while this is open
        self.folder = self._base / f'{os.getpid()}-{secrets.token_hex(8)}'
        self._kept_seconds = kept_seconds
        self._known: dict[str, _Upload] = {}
        self._is_open = False
        self._process = 0
        self._held = ExitStack()
        self._changing = Lock()

    def open(self) -> None:
        """Make the folder, and remove those of servers that have died."""
        if self._is_open:
            return
        try:
            _make_private(self._base)
            with process_lock(
                self._base / 'start.lock', str(self._base), _SECONDS_TO_START
            ):
                _remove_dead(self._base)
                lock = self._base / f'{self.folder.name}.lock'
                self._held.callback(_remove_lock, lock)
                self._held.enter_context(process_lock(lock, self.folder.name))
                self.folder.mkdir(mode=0o700)
                self._held.callback(shutil.rmtree, self.folder, ignore_errors=True)
        except OSError as error:
            self._held.close()
            raise InputError(
                f'{self._base}: the folder for uploads cannot be made ({error}); set '
                'TMPDIR to a folder that can be written'
            ) from error
        self._is_open = True
        self._process = os.getpid()
        atexit.register(self._close_at_exit)

    def close(self) -> None:
        """Remove the folder and what is in it."""
        self._is_open = False
        self._known.clear()
        self._held.close()
        atexit.unregister(self._close_at_exit)

    def _close_at_exit(self) -> None:
        if os.getpid() == self._process:  # and not a fork that ends
            self.close()

    def add(self, data: bytes, suffix: str, owner: str | None) -> str:
        """Keep a file if there is room; return the path to ask for it."""
        self.open()
        self.drop_old()
        path = str(self.folder / f'{secrets.token_hex(16)}{suffix}')
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, 'O_BINARY', 0)
        with self._changing:
            self._make_room(owner, len(data))
            with open(os.open(path, flags, 0o600), 'wb') as file:
                file.write(data)
            self._known[path] = _Upload(owner, len(data), time.monotonic())
        return path

    def claim(self, path: str, owner: str | None, session: str | None = None) -> None:
        """Check that a path was uploaded to this server, by whoever names it.

        An upload belongs to the first session of the page that uses it. Refusals are
        always in the same words.
        """
        upload = self._known.get(path)
        is_right = upload is not None and upload.owner in (None, owner)
        if upload is not None and is_right and session is not None:
            upload.session = upload.session or session
            is_right = upload.session == session
        if not is_right:
            raise RefusedError(403, 'the image was not uploaded here: choose it again')

    def read(self, path: str) -> bytes:
        """Read a file that is kept."""
        upload = self._known.get(path)
        try:
            if upload is None or not upload.is_kept:
                raise FileNotFoundError(path)
            return read_regular(path, MAX_UPLOAD_BYTES, follow_link=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f'the picture is kept for {self._kept_seconds / 60:.0f} minutes: '
                'choose it again'
            ) from error

    def drop_old(self) -> None:
        """Remove what was kept long enough."""
        with self._changing:
            too_old = time.monotonic() - self._kept_seconds
            for path, upload in self._kept().items():
                if upload.at <= too_old:
                    self._drop(path)
            gone = [path for path, upload in self._known.items() if not upload.is_kept]
            for path in gone[:-_MAX_REMEMBERED]:
                del self._known[path]

    def _make_room(self, owner: str | None, size: int) -> None:
        """Remove a visitor's own oldest images if there are too many of them.

        Requests without a cookie may be of several visitors: nothing is removed.
        """
        own = {path: x for path, x in self._kept().items() if x.owner == owner}
        while own and not _fits(own, size, _MAX_KEPT, _MAX_KEPT_BYTES):
            if owner is None:
                raise self._full(429, 'you have uploaded too many images')
            oldest = next(iter(own))
            self._drop(oldest)
            del own[oldest]
        if not _fits(self._kept(), size, _MAX_ALL, _MAX_ALL_BYTES):
            raise self._full(507, 'there is no room for more images')

    def _full(self, status: int, problem: str) -> RefusedError:
        minutes = f'{self._kept_seconds / 60:.0f} minutes'
        return RefusedError(
            status, f'{problem}: each is kept for {minutes}, so try again later'
        )

    def _kept(self) -> dict[str, _Upload]:
        return {path: upload for path, upload in self._known.items() if upload.is_kept}

    def _drop(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)
        self._known[path].is_kept = False


def _fits(kept: Mapping[str, _Upload], size: int, count: int, num_bytes: int) -> bool:
    """Return whether there is room for one more."""
    used = sum(upload.size for upload in kept.values())
    return len(kept) < count and used + size <= num_bytes


def _make_private(folder: Path) -> None:
    """Make a folder that nobody else can enter."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    is_ours = not hasattr(os, 'getuid') or found.st_uid == os.getuid()
    if not stat.S_ISDIR(found.st_mode) or not is_ours:
        raise InputError(
            f'{folder}: must be a folder of this user for uploads, and is a link, a '
            "file or somebody else's; remove it, or set TMPDIR to another folder"
        )
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def _remove_dead(base: Path) -> None:
    names = {found[1] for x in os.listdir(base) if (found := _NAME.fullmatch(x))}
    for name in names:
        lock = base / f'{name}.lock'
        if not is_locked(lock):
            shutil.rmtree(base / name, ignore_errors=True)
            _remove_lock(lock)


def _remove_lock(lock: Path) -> None:
    # no other process ever asks for a lock of this name
    lock.unlink(missing_ok=True)
    Path(f'{lock}.owner').unlink(missing_ok=True)
