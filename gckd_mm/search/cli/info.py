"""``gckd-search info``: describe a gallery, and verify it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from gckd_mm.errors import InputError
from gckd_mm.search.cli.printing import print_pairs, progress_bar
from gckd_mm.search.gallery import Gallery


def run(options: argparse.Namespace) -> int:
    """Print what a gallery is."""
    # --verify reports all that is damaged, and not what is found first
    with Gallery.open(options.gallery, check=not options.verify) as gallery:
        checked = []
        if options.verify:
            with progress_bar('verifying') as progress:
                checked = gallery.verify(progress)
        problems = [file.problem for file in checked if file.problem]
        known: dict[str, Any] = {}
        if not problems:
            known = gallery.info()
            if options.recall is not None:
                known['recall_at_10'] = gallery.measure_recall_on_own(options.recall)
        # 0.1 stored nothing to compare with: that it can be read says little
        what = 'verified' if known.get('checksums', 'yes') == 'yes' else 'not verified'
        known |= {f'{what} {x.name}': x.found for x in checked if not x.problem}
    if problems and options.json:
        known['damaged'] = problems
    if options.json:
        print(json.dumps(known, indent=2))
    else:
        print_pairs(known)
    if problems:
        raise InputError('\n'.join(problems))
    return 0
