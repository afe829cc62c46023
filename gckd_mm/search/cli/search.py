"""Search images of people from the shell: ``gckd-search``."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from gckd_mm.errors import InputError
from gckd_mm.search.cli.parser import make_parser

WRONG, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: see ``EXIT_CODES`` of the parser.
    """
    _print_whatever_comes()
    options = make_parser().parse_args(arguments)
    try:
        code = _run(options)
        sys.stdout.flush()  # a full disk shows here, and not while Python ends
        return code
    except InputError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        _discard_output()
        return 0
    except MemoryError:
        return _failed('the memory is full: a smaller --batch-size takes less')
    except OSError as error:
        _discard_output()
        where = f'{error.filename}: ' if error.filename else ''
        return _failed(f'{where}{error.strerror or error}')


def _run(options: argparse.Namespace) -> int:
    """Run a command; it is imported only here, because it takes seconds."""
    command = import_module(f'gckd_mm.search.cli.{options.command}')
    from gckd_mm.search.cli.printing import plain_warnings
    from gckd_mm.search.gallery.damage import DamagedGalleryWarning

    _quiet_decoders()
    with plain_warnings(DamagedGalleryWarning):
        return command.run(options)


def _print_whatever_comes() -> None:
    """Write as escapes what the encoding of the terminal or pipe lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')


def _quiet_decoders() -> None:
    """Keep OpenCV and Pillow from printing what our errors say, file by file."""
    import cv2
    from PIL import Image

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    warnings.simplefilter('ignore', Image.DecompressionBombWarning)


def _failed(message: str) -> int:
    """Print what is wrong, on one line."""
    line = ' '.join(message.split())
    print(f'error: {line}', file=sys.stderr)
    return WRONG


def _discard_output() -> None:
    """Write no more to stdout, where what is left would fail again."""
    with suppress(OSError):  # it may have no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == '__main__':
    sys.exit(main())
