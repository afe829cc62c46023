"""Search images of people: what ``gckd-search`` does, without an install."""

from __future__ import annotations

import sys

from gckd_mm.search.cli.search import main

if __name__ == '__main__':
    sys.exit(main())
