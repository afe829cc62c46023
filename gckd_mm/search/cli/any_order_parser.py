"""A command line whose words and options may come in any order."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any

_NEGATIVE = re.compile(r'-\.?\d')


class AnyOrderParser(argparse.ArgumentParser):
    """Parse ``GALLERY --top-k 2 TEXT``, too.

    argparse gives a positional argument that may be empty nothing if an option comes
    next, and ``parse_intermixed_args`` does not work with subcommands. So the options
    are put in front of the words. After ``--`` there are words only; an option has one
    value or none.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse: see ``argparse``."""
        given = sys.argv[1:] if args is None else list(args)
        known, unknown = super().parse_known_args(self._options_first(given), namespace)
        if unknown:
            self.error(
                f'unrecognized arguments: {" ".join(unknown)} (a text that begins with '
                f'a dash comes after --)'
            )
        return known, unknown

    def _options_first(self, args: Sequence[str]) -> list[str]:
        options: list[str] = []
        words: list[str] = []
        rest = iter(args)
        for arg in rest:
            if arg == '--':
                words += rest
            elif not _is_option(arg):
                words.append(arg)
            else:
                options.append(arg)
                if self._takes_value(arg):
                    options += islice(rest, 1)
        return [*options, '--', *words] if words else options

    def _takes_value(self, option: str) -> bool:
        if '=' in option:
            return False
        known = self._option_string_actions
        meant = [known[option]] if option in known else []
        if not meant and self.allow_abbrev:
            meant = [known[name] for name in known if name.startswith(option)]
        return bool(meant) and all(action.nargs != 0 for action in meant)


def _is_option(arg: str) -> bool:
    """Return whether argparse takes it for an option: a text may have a dash."""
    return (
        arg[:1] == '-' and len(arg) > 1 and ' ' not in arg and not _NEGATIVE.match(arg)
    )
