from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gckd_mm.synthpedes.domain import Sizes, SynthDomain, default_sizes
from tools import check_dataset, make_synthpedes
from tools.make_synthpedes import main

SMALL = ['--train', '3', '--val', '2', '--test', '2', '--images', '2']
SMALL += ['--processes', '1']


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / 'drawn'


def drawn_sizes(folder: Path) -> Sizes:
    description = json.loads((folder / 'synthpedes.json').read_text())
    assert description['complete'] is True
    return Sizes(**description['sizes'])


def test_a_world_is_drawn_and_sound(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = out / 'sheets' / 'sheet.png'
    options = ['--out', str(out), '--world', '3', '--contact-sheet', str(sheet)]
    assert main([*SMALL, *options]) == 0
    printed = capsys.readouterr()
    assert printed.err == ''  # no progress bar away from a terminal
    world = out / 'world3'
    assert sorted(path.name for path in world.iterdir()) == ['campus', 'mall', 'street']
    assert drawn_sizes(world / 'street') == Sizes(3, 2, 2, 2)
    assert drawn_sizes(world / 'campus') == Sizes(3, 0, 2, 2)
    assert f'{world / "campus"}: ids: train 3, test 2; pictures of each: 2' in (
        printed.out
    )
    assert 'configs/baselines/source_only_street2mall.py' in printed.out
    assert f'train on {world}' in printed.out
    with Image.open(sheet) as picture:
        assert picture.format == 'PNG'
    check = printed.out.split('check_dataset.py ')[1].splitlines()[0].split()
    assert check_dataset.main(check) == 0


def test_a_whole_drawing_is_left_alone_unless_redrawn(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['street', *SMALL, '--out', str(out)]
    image = out / 'world0' / 'street' / 'imgs' / 'cam_a' / '0001_0.jpg'
    times = []
    for added in ([], [], ['--redraw']):
        assert main([*arguments, *added]) == 0
        times.append(image.stat().st_mtime_ns)
    assert times[0] == times[1] < times[2]
    assert capsys.readouterr().out.count('complete already') == 1


def test_web_has_its_own_place_and_sizes(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 'web' not in make_synthpedes.parse_arguments([]).domains
    options = make_synthpedes.parse_arguments(['web', '--world', '5'])
    assert make_synthpedes.make_domain('web', options).sizes == default_sizes('web')
    monkeypatch.setattr(
        make_synthpedes, 'default_sizes', lambda name: Sizes(4, 2, 0, 1)
    )
    sheet = out / 'sheet.jpg'
    arguments = ['web', '--world', '5', '--processes', '1', '--out', str(out)]
    assert main([*arguments, '--test', '9', '--contact-sheet', str(sheet)]) == 0
    assert drawn_sizes(out / 'web') == Sizes(4, 2, 0, 1)
    with Image.open(sheet) as picture:
        assert picture.format == 'JPEG'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--world', 'x'], "--world: must be a whole number of at least 0, got 'x'"),
        (['--world', '-1'], 'argument --world'),
        (['--processes', '0'], 'argument --processes: must be positive, got 0'),
        (['park'], "invalid choice: 'park' (choose from street, mall"),
        (['--contact-sheet', 'a.doc'], "must end in .png or .jpg, got 'a.doc'"),
    ],
)
def test_wrong_command_lines(
    arguments: list[str],
    message: str,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, '--out', str(out)])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--train', '1'], 'split train needs at least 2 ids'),
        (['--test', '0'], 'split test needs at least 2 ids'),
        (['--images', '0'], 'at least one picture'),
    ],
)
def test_sizes_on_which_nothing_can_be_ranked(
    arguments: list[str], message: str, out: Path
) -> None:
    with pytest.raises(SystemExit, match=f'^error: .*{message}'):
        main([*arguments, '--out', str(out)])
    assert not out.exists()


def test_other_content_is_an_error_without_a_traceback(out: Path) -> None:
    (out / 'world0' / 'street').mkdir(parents=True)
    (out / 'world0' / 'street' / 'mine.txt').touch()
    with pytest.raises(SystemExit, match=r'^error: .*such as mine\.txt'):
        main([*SMALL, '--out', str(out)])


def test_a_contact_sheet_that_cannot_be_written(out: Path, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    sheet = ['--contact-sheet', str(tmp_path / 'file' / 'sheet.png')]
    with pytest.raises(SystemExit, match=r'^error: --contact-sheet .* cannot be writ'):
        main(['street', *SMALL, '--out', str(out), *sheet])


def test_ctrl_c_says_how_to_go_on(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['street', *SMALL, '--out', str(out)]

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SynthDomain, 'draw_image', interrupt)
        assert main(arguments) == 130
    assert 'the same command continues' in capsys.readouterr().err
    assert main(arguments) == 0
    assert drawn_sizes(out / 'world0' / 'street') == Sizes(3, 2, 2, 2)
