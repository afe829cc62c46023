from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gckd_mm.datasets import RSTPReid
from tests.miniature import SIZES, write_dataset
from tools.check_dataset import main


@pytest.fixture
def rstpreid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A miniature RSTPReid whose counts pass for the published ones."""
    counts = {
        split: (ids, ids * images, ids * images * 2)
        for split, (ids, images) in SIZES['rstpreid'].items()
    }
    monkeypatch.setattr(RSTPReid, 'published_counts', counts)
    return write_dataset(tmp_path, 'rstpreid')


def remove_image(folder: Path) -> None:
    (folder / 'imgs' / '0003_c1.png').unlink()


def cut_image(folder: Path) -> None:
    path = folder / 'imgs' / '0003_c1.png'
    path.write_bytes(path.read_bytes()[:-20])


def tear_id(folder: Path) -> None:
    path = folder / 'data_captions.json'
    records = json.loads(path.read_text())
    records[0]['split'] = 'test'
    path.write_text(json.dumps(records))


def test_a_sound_dataset_exits_with_0_even_if_strict(
    rstpreid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['RSTPReid', str(rstpreid), '--strict']) == 0
    printed = capsys.readouterr()
    assert 'the published release' in printed.out
    assert '| train |  24 |    120 |      240 |' in printed.out
    assert printed.err == ''  # no progress bar away from a terminal


@pytest.mark.parametrize(
    ('flaw', 'message'),
    [
        (remove_image, 'images missing below'),
        (cut_image, 'damaged or unreadable images: 1'),
        (tear_id, 'ids in more than one split: 1'),
    ],
)
def test_problems_exit_with_1(
    flaw: Callable[[Path], None],
    message: str,
    rstpreid: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flaw(rstpreid)
    assert main(['RSTPReid', str(rstpreid)]) == 1
    assert f'problem: {message}' in capsys.readouterr().out


def test_skipped_decoding_looks_for_missing_images_alone(rstpreid: Path) -> None:
    cut_image(rstpreid)
    assert main(['RSTPReid', str(rstpreid), '--skip-decoding']) == 0
    remove_image(rstpreid)
    assert main(['RSTPReid', str(rstpreid), '--skip-decoding']) == 1


def test_other_counts_are_fatal_only_if_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(write_dataset(tmp_path, 'icfg_pedes'))
    assert main(['ICFGPEDES', folder]) == 0
    printed = capsys.readouterr().out
    assert '24 (3102)' in printed
    assert 'warning: the counts of train, test differ' in printed
    assert main(['ICFGPEDES', folder, '--strict']) == 1


def test_shared_captions_are_never_fatal(
    rstpreid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = rstpreid / 'data_captions.json'
    records = json.loads(path.read_text())
    records[0]['captions'] = records[-1]['captions'] = ['[bold]Mann[/bold] 🧥 走']
    path.write_text(json.dumps(records))
    RSTPReid.published_counts['train'] = (24, 120, 239)
    RSTPReid.published_counts['test'] = (16, 80, 159)
    assert main(['RSTPReid', str(rstpreid), '--strict']) == 0
    printed = capsys.readouterr().out
    assert 'note: captions shared by more than one id: 1' in printed
    # Markup in a caption is text.
    assert 'ids 0, 47: [bold]mann[/bold] 🧥 走' in printed


def test_output_fits_a_narrow_encoding(
    rstpreid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rstpreid / 'data_captions.json'
    records = json.loads(path.read_text())
    records[0]['captions'][0] = records[-1]['captions'][0] = 'A 走 person.'
    path.write_text(json.dumps(records))
    raw = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(raw, encoding='ascii'))
    assert main(['RSTPReid', str(rstpreid), '--skip-decoding']) == 0
    sys.stdout.flush()
    assert b'a \\u8d70 person.' in raw.getvalue()


@pytest.mark.parametrize('decoding', ['--strict', '--skip-decoding'])
def test_overlap_is_fatal_only_if_strict(
    decoding: str,
    rstpreid: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = write_dataset(tmp_path, 'icfg_pedes')
    command = ['RSTPReid', str(rstpreid), '--against', 'ICFGPEDES', str(other)]
    assert main([*command, '--strict', decoding]) == 0
    assert 'no image of RSTPReid was found in ICFGPEDES' in capsys.readouterr().out
    copy = next((other / 'imgs' / 'test').iterdir())
    shutil.copyfile(rstpreid / 'imgs' / '0002_c2.png', copy)
    assert main(command) == 0
    assert main([*command, '--strict', decoding]) == 1
    printed = capsys.readouterr().out
    assert 'images that are in ICFGPEDES as well: 1 (1 byte for byte' in printed
    assert f'0002_c2.png (train) = test/{copy.name} (test)' in printed


def test_missing_and_malformed_annotations_exit_with_a_message(
    rstpreid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The interpreter prints a message given to SystemExit and exits with 1.
    with pytest.raises(SystemExit, match=r'error: RSTPReid: missing annotation file'):
        main(['RSTPReid', str(rstpreid / 'elsewhere')])
    with pytest.raises(SystemExit, match=r'missing annotation file .*other\.json'):
        main(['RSTPReid', str(rstpreid), '--ann-file', 'other.json'])
    (rstpreid / 'data_captions.json').write_text('[{"id": "one"}]')
    with pytest.raises(SystemExit, match=r'error: .*record 0'):
        main(['RSTPReid', str(rstpreid)])


@pytest.mark.parametrize(
    'arguments',
    [
        ['ImageNet'],
        ['CrossDomainDataset'],
        ['RSTPReid', '--against', 'ImageNet', '.'],
        ['RSTPReid', '--workers', '0'],
    ],
)
def test_a_wrong_command_line_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2
    if 'ImageNet' in arguments:
        assert 'CUHKPEDES' in capsys.readouterr().err


def test_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(['--help'])
    assert ending.value.code == 0
    printed = capsys.readouterr().out
    assert '  1  problems' in printed
    assert 'RSTPReid' in printed


def test_another_annotation_file_can_be_named(rstpreid: Path) -> None:
    tear_id(rstpreid)
    assert main(['RSTPReid', str(rstpreid), '--skip-decoding']) == 1
    records = json.loads((rstpreid / 'data_captions.json').read_text())
    records[0]['split'] = 'train'
    (rstpreid / 'mended.json').write_text(json.dumps(records))
    command = ['RSTPReid', str(rstpreid), '--skip-decoding', '--strict']
    assert main([*command, '--ann-file', 'mended.json']) == 0


def test_examples_are_cut_in_print_and_whole_in_json(
    rstpreid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        (rstpreid / 'imgs' / f'0003_c{number}.png').unlink()
    path = tmp_path / 'new' / 'report.json'
    command = ['RSTPReid', str(rstpreid), '--examples', '3', '--json', str(path)]
    assert main(command) == 1
    printed = capsys.readouterr().out
    assert '0003_c2.png' in printed
    assert '0003_c3.png' not in printed
    assert 'and 1 more' in printed
    report = json.loads(path.read_text())
    (finding,) = (f for f in report['findings'] if f['check'] == 'missing images')
    assert finding['items'] == [f'0003_c{number}.png' for number in range(4)]
    assert finding['severity'] == 'problem'
    assert report['exit_code'] == 1
    assert report['release'] == 'published'
    assert report['counts']['val'] == {'ids': 8, 'images': 40, 'captions': 80}
    assert report['decoded'] is True


def test_json_holds_the_overlap_by_split(rstpreid: Path, tmp_path: Path) -> None:
    path = tmp_path / 'report.json'
    folder = str(rstpreid)
    command = ['RSTPReid', folder, '--against', 'RSTPReid', folder]
    assert main([*command, '--skip-decoding', '--json', str(path)]) == 0
    report = json.loads(path.read_text())
    assert report['against'] == ['RSTPReid', folder]
    assert report['overlap'] == [
        {'splits': [split, split], 'identical': ids * images, 'alike': 0}
        for split, (ids, images) in SIZES['rstpreid'].items()
    ]
