"""Errors that a user can fix; the tools print their message without a traceback."""

from __future__ import annotations


class InputError(ValueError):
    """Something that the user gave is wrong: a file, a record, a config key.

    The message says where, what was expected, what was got and what to do.
    """


class MissingDataError(InputError):
    """A file or folder that a config needs is not there."""


class CheckpointError(InputError):
    """A checkpoint is missing, damaged, unsafe or of another architecture."""


class DivergedError(InputError):
    """A loss is NaN or infinite: the settings of the training have to change."""
