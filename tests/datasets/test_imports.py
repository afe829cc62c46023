"""The datasets stand alone: synthetic ones are written for them, not by them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / 'gckd_mm/datasets'
LOADED = (
    'import sys; import gckd_mm.datasets; '
    "print([name for name in sys.modules if 'synthpedes' in name])"
)


def test_nothing_in_datasets_imports_synthpedes() -> None:
    for path in FOLDER.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert 'synthpedes' not in ast.unparse(node), path

    done = subprocess.run(
        [sys.executable, '-c', LOADED], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == '[]'
