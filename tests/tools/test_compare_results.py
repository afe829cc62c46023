"""Results side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import compare_results


def write(path: Path, **metrics: dict[str, float | None]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({'metrics': metrics}))
    return str(path)


def test_a_row_for_each_test_set_and_model(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    one = write(tmp_path / 'a.json', mall={'R1': 40.444, 'mAP': 30.0}, street={'R1': 1})
    two = write(tmp_path / 'run' / 'b.json', mall={'R1': None, 'mAP': 31.0})

    compare_results.main([f'source-only={one}', two])

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ['mall', 'source-only', '40.44', '–', '–', '30.00', '–'] in rows
    assert ['mall', 'run', '–', '–', '–', '31.00', '–'] in rows
    assert ['street', 'source-only', '1.00', '–', '–', '–', '–'] in rows
    assert not any(row[:2] == ['street', 'run'] for row in rows)


@pytest.mark.parametrize('text', ['{"R1": 1}', 'no json', '[]'])
def test_says_what_is_no_result(tmp_path: Path, text: str) -> None:
    (tmp_path / 'x.json').write_text(text)

    with pytest.raises(SystemExit, match=r'x\.json: not what tools/test\.py'):
        compare_results.main([str(tmp_path / 'x.json')])
    with pytest.raises(SystemExit, match=r'none\.json: cannot be read'):
        compare_results.main([str(tmp_path / 'none.json')])
