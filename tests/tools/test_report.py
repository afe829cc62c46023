"""``tools/test.py --report`` writes a page of the queries that went worst."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.training import last_checkpoint
from tools import test as test_tool


def test_the_page_agrees_with_the_scores(trained: Path, tmp_path: Path) -> None:
    page, out = tmp_path / 'worst.html', tmp_path / 'results.json'
    options = ['--num-rank-lists', '5', '--work-dir', str(tmp_path / 'work')]
    options += ['--report', str(page), '--out', str(out)]
    test_tool.main([str(last_checkpoint(trained)), *options])
    html = page.read_text()
    for test_set, scores in json.loads(out.read_text())['metrics'].items():
        assert f'<tr><td>{test_set}</td><td>{scores["R1"]:.2f}</td>' in html
        ranks = re.findall(
            rf'{test_set}, query \d+: first right image at rank (\d+)', html
        )
        assert len(ranks) == 5
        assert ranks == sorted(ranks, key=int, reverse=True)
    assert html.count('<article>') == 2 * 5
    assert html.count('<img src="data:image/jpeg;base64,') == 2 * 5 * (1 + 8)
