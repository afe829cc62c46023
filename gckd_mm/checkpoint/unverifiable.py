"""Say of a file, once, that nothing tells whether it is as it was written."""

from __future__ import annotations

import functools
import logging


@functools.cache
def say_not_verifiable(where: str, reason: str) -> None:
    """Log that a file holds no checksums; once for each file in a process."""
    # Not mmengine's logger: it writes to stdout, where results go.
    logging.getLogger('gckd_mm').warning(
        '%s: not verifiable: %s. Damaged numbers would not be noticed', where, reason
    )
