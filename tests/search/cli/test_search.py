"""The shell's commands, on good and bad input."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.cli import index as index_command
from gckd_mm.search.cli import search as cli
from gckd_mm.search.gallery import Gallery
from tests.search.gallery.old_gallery import write_old_gallery
from tests.training import ROOT

MODEL = 'gckd_mm://synthclip_tiny_web'
COLOURS = {'red': (200, 20, 20), 'green': (20, 160, 40), 'blue': (20, 40, 200)}


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


@pytest.fixture(scope='module')
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('crops')
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for n in range(4):
            noise = rng.normal(0, 10, (64, 32, 3))
            picture = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(picture).save(root / f'{name}{n}.png')
    return root


@pytest.fixture(scope='module')
def gallery(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('galleries') / 'colours'
    fields = folder.parent / 'fields.csv'
    lines = [f'{path.name},{path.name[-5]}' for path in crops.iterdir()]
    fields.write_text('\n'.join(['path,camera', *lines]))
    arguments = ['index', crops, '--gallery', folder, '--checkpoint', MODEL]
    assert cli.main([*map(str, arguments), '--fields', str(fields)]) == 0
    return folder


def test_an_index_is_made_and_brought_up_to_date(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ['index', crops, '--gallery', tmp_path / 'gallery']
    code, out, err = run(capsys, *where, '--checkpoint', MODEL)
    assert code == 0
    assert 'added\t12\n' in out
    assert 'indexing: 12 of 12' in err
    code, out, _ = run(capsys, *where, '--json')
    done = json.loads(out)
    assert code == 0
    assert (done['added'], done['unchanged'], done['pictures']) == (0, 12, 12)


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_unreadable_files_are_listed_and_told_by_the_exit_code(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / 'crops'
    root.mkdir()
    good = (crops / 'red0.png').read_bytes()
    (root / 'good.png').write_bytes(good)
    (root / 'cut.png').write_bytes(good[:-100])
    (root / 'text.jpg').write_text('a text')
    Image.open(crops / 'red0.png').save(root / 'cut.jpg')
    (root / 'cut.jpg').write_bytes((root / 'cut.jpg').read_bytes()[:-200])
    Image.new('1', (10_000, 10_000)).save(root / 'large.png')
    Image.open(crops / 'red1.png').convert('RGBA').save(root / 'alpha.png')
    frames = [Image.open(crops / f'{name}0.png') for name in ('blue', 'red')]
    frames[0].save(root / 'moves.gif', save_all=True, append_images=frames[1:])
    frames[0].save(root / 'still.gif')
    arguments = ['index', root, '--gallery', tmp_path / 'g', '--checkpoint', MODEL]
    code, out, err = run(capsys, *arguments)
    assert code == 3
    assert 'added\t4\n' in out
    assert 'unreadable\t4\n' in out
    for name in ('cut.png', 'cut.jpg', 'text.jpg', 'large.png'):
        assert f'left out: {root / name}: ' in err
    code, out, _ = run(capsys, *arguments, '--json')
    assert code == 3
    done = json.loads(out)
    unreadable = ['cut.jpg', 'cut.png', 'large.png', 'text.jpg']
    assert sorted(done['unreadable']) == unreadable
    # of an animation the first frame counts, and no transparency does
    with Gallery.open(tmp_path / 'g') as gallery:
        moves, still, alpha = gallery.engine.feats_of(
            ['moves.gif', 'still.gif', 'alpha.png']
        )
    np.testing.assert_allclose(moves, still, atol=1e-6)
    inferencer = PersonSearchInferencer(MODEL, device='cpu', show_progress=False)
    opaque = inferencer.encode_images([crops / 'red1.png'])
    np.testing.assert_allclose(alpha[None], opaque, atol=1e-6)


def test_a_list_and_a_dataset_are_indexed(
    miniature: Path,
    crops: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / 'list.txt').write_text('red1.png\n\nblue0.png\n')
    arguments = ['--list', tmp_path / 'list.txt', '--checkpoint', MODEL, '--gallery']
    code, out, _ = run(capsys, 'index', crops, *arguments, tmp_path / 'listed')
    assert code == 0
    assert 'pictures\t2\n' in out
    root = miniature / 'rstpreid'
    arguments = ['--dataset', 'RSTPReid', '--checkpoint', MODEL, '--gallery']
    code, _, _ = run(capsys, 'index', root, *arguments, tmp_path / 'dataset')
    assert code == 0
    with Gallery.open(tmp_path / 'dataset') as gallery:
        items = list(gallery.engine.items())
    records = json.loads((root / 'data_captions.json').read_text())
    expected = {
        str(root / 'imgs' / record['img_path']): record['id']
        for record in records
        if record['split'] == 'test'
    }
    assert {item.path: item.fields['pid'] for item in items} == expected


def test_lines_in_a_pipe_are_what_the_inferencer_finds(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'a man in a red shirt'
    code, out, err = run(capsys, 'query', gallery, text, '--top-k', 4)
    inferencer = PersonSearchInferencer(MODEL, device='cpu')
    (matches,) = inferencer.search(gallery, [text], 4)
    expected = [
        f'{m.score:.3f}\t{m.item.fields["camera"]}\t{m.item.path}' for m in matches
    ]
    assert (code, out.splitlines(), err) == (0, expected, '')


def test_the_first_matches_are_ordered_anew(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(
        capsys, 'query', gallery, 'a man', '--rerank', 'k_reciprocal', '--json'
    )
    matches = json.loads(out)['results'][0]['matches']
    inferencer = PersonSearchInferencer(MODEL, device='cpu')
    (expected,) = inferencer.search(gallery, ['a man'], rerank='k_reciprocal')
    assert code == 0
    assert [m['path'] for m in matches] == [m.item.path for m in expected]
    code, _, err = run(capsys, 'query', gallery, 'a man', '--rerank', 'matching')
    assert code == 2
    assert 'has no matching head' in err


def test_several_queries_are_told_apart(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, 'query', gallery, 'a man', 'a\twoman', '--top-k', 2)
    assert code == 0
    names = [line.split('\t')[0] for line in out.splitlines()]
    assert names == ['a man', 'a man', 'a\\twoman', 'a\\twoman']


def test_json_has_all_that_is_known(
    gallery: Path, crops: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(
        capsys,
        *('query', gallery, '--image', crops / 'green2.png', '--without', 'a dress'),
        *('--where', 'camera!=2', '--top-k', 3, '--json', '--exact'),
    )
    assert code == 0
    (result,) = json.loads(out)['results']
    assert result['query'] == f'like {crops / "green2.png"}, without a dress'
    for match in result['matches']:
        assert set(match) == {'path', 'file', 'score', 'fields'}
        assert match['file'] == str(crops / match['path'])
        assert match['path'].startswith('green')
        assert match['fields']['camera'] != '2'
    assert len(result['matches']) == 3


def test_a_gallery_in_milvus_is_searched_as_any_other(
    gallery: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('milvus_lite')
    where = tmp_path / 'in_milvus'
    uri = str(tmp_path / 'in_milvus' / 'vectors.db')
    index = ['index', crops, '--gallery', where, '--milvus', uri]
    assert run(capsys, *index, '--checkpoint', MODEL)[0] == 0
    code, out, _ = run(capsys, *index, '--json')
    assert (code, json.loads(out)['unchanged']) == (0, 12)
    found = [
        json.loads(run(capsys, 'query', folder, 'a man in red', '--json')[1])['results']
        for folder in (where, gallery)
    ]
    for matches in (result[0]['matches'] for result in found):
        for match in matches:
            match.pop('fields')
            match['score'] = pytest.approx(match['score'], abs=1e-5)
    assert found[0] == found[1]
    other = [*index[:-1], str(tmp_path / 'other.db')]
    code, _, err = run(capsys, *other)
    assert code == 2
    assert f'is there already, and not in {tmp_path / "other.db"}' in err


def test_nothing_found_is_an_exit_code(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, 'query', gallery, 'a man', '--where', 'camera=9')
    assert (code, out) == (1, '')


def test_an_unknown_field_is_an_error_and_an_unknown_value_a_warning(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ([], ['--json'], ['--rerank', 'k_reciprocal'], ['--exact']):
        where = ['--where', 'camra=3', *more]
        code, out, err = run(capsys, 'query', gallery, 'a man', *where)
        assert (code, out) == (2, '')
        assert 'no item has a field camra (did you mean camera?)' in err
        assert 'there are camera' in err
    code, _, err = run(capsys, 'query', gallery, 'a man', '--where', 'camera=9')
    assert code == 1
    assert 'warning: camera=9: no item has this value, but camera is one of 0, 1' in err
    code, out, _ = run(capsys, 'query', gallery, 'a', '--where', 'camera=9', '--json')
    assert code == 1
    assert (
        'camera is one of 0, 1, 2, 3' in json.loads(out)['results'][0]['warnings'][-1]
    )


def test_unknown_words_and_negation_are_warned_of(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = ['a woman in a red coat', '红色 xqzt', 'a man without a hat']
    code, out, err = run(capsys, 'query', gallery, *queries, '--json')
    assert code == 0
    fine, unknown, negated = (x['warnings'] for x in json.loads(out)['results'])
    assert fine == []
    assert "('红色', 'xqzt'): the results mean nothing" in unknown[0]
    assert '--without "a hat"' in negated[0]
    assert err.count('warning: ') == 2
    assert f"warning: '红色 xqzt': {unknown[0]}" in err
    code, out, err = run(capsys, 'query', gallery, queries[0])
    assert (code, err) == (0, '')


def test_times_are_shown_as_dates_and_taken_back(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = tmp_path / 'f.csv'
    fields.write_text('path,time\nred0.png,2026-11-22T08:30:00\nred1.png,-1.5\n')
    where = ['--gallery', tmp_path / 'g', '--checkpoint', MODEL]
    run(capsys, 'index', crops, *where, '--fields', fields)
    expected = {
        'red0.png': '2026-11-22T08:30:00+00:00',
        'red1.png': '1969-12-31T23:59:58.500000+00:00',
    }
    for path, time in expected.items():
        query = ['query', tmp_path / 'g', 'a man', '--where', f'time={time}']
        code, out, _ = run(capsys, *query, '--json')
        (match,) = json.loads(out)['results'][0]['matches']
        assert (match['path'], match['fields']) == (path, {'time': time})
        code, out, _ = run(capsys, *query)
        assert (code, out.split('\t')[1:]) == (0, [time, f'{path}\n'])


def test_words_and_options_in_any_order(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, 'query', gallery, '--top-k', 2, 'a man')
    assert (code, len(out.splitlines())) == (0, 2)
    code, out, _ = run(capsys, 'query', '--top-k', 2, gallery, '--exact', '--', '-a')
    assert (code, len(out.splitlines())) == (0, 2)
    code, out, _ = run(capsys, 'query', gallery, 'a man', '--top-k', 10**30)
    assert (code, len(out.splitlines())) == (0, 12)


def test_files_passed_over_and_wide_images_are_counted(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / 'crops'
    root.mkdir()
    for name in ('a.heic', 'b.HEIC', 'c.mp4', '.hidden.mp4'):
        (root / name).write_text('?')
    shutil.copy(crops / 'red0.png', root / 'TALL.PNG')
    with Image.open(crops / 'red0.png') as image:
        image.rotate(90, expand=True).save(root / 'wide.png')
    os.mkfifo(root / 'pipe.png')
    (root / 'loop.png').symlink_to(root / 'loop.png')
    (root / 'zero.png').symlink_to('/dev/zero')
    where = ['--gallery', tmp_path / 'g', '--checkpoint', MODEL]
    code, out, err = run(capsys, 'index', root, *where, '--json')
    done = json.loads(out)
    assert code == 3
    assert done['passed_over'] == {'.heic': 2, '.mp4': 1}
    assert (done['wider_than_tall'], done['added']) == (1, 2)
    assert set(done['unreadable']) == {'pipe.png', 'loop.png', 'zero.png'}
    assert 'passed over: 3 files that are no images by their suffix (2 .heic, 1' in err
    assert 'warning: 1 of 2 images are wider than tall: this model expects crops' in err
    code, out, err = run(capsys, 'index', root, *where)
    assert code == 3
    assert 'wider' not in err
    assert 'pipe.png: cannot be read (not a regular file, but a pipe)' in err
    assert 'passed_over\t3\n' in out


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (OSError(errno.ENOSPC, 'No space left on device'), 'No space left on device'),
        (PermissionError(errno.EACCES, 'Permission denied', '/x'), '/x: Permission'),
        (MemoryError(), 'the memory is full'),
    ],
)
def test_what_the_machine_lacks_is_one_line(
    gallery: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    message: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Gallery, 'info', fail)
    code, _, err = run(capsys, 'info', gallery)
    assert code == 2
    assert err.startswith(f'error: {message}')
    assert len(err.splitlines()) == 1


def shell(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'gckd_mm.search.cli.search', *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, text=True, check=False, **options)


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='Linux has it')
def test_a_full_disk_behind_stdout_is_one_line(gallery: Path) -> None:
    with open('/dev/full', 'w') as full:
        done = shell('info', gallery, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (2, 'error: No space left on device\n')


def test_a_terminal_without_unicode_gets_escapes(crops: Path, tmp_path: Path) -> None:
    root = tmp_path / 'crops'
    root.mkdir()
    shutil.copy(crops / 'red0.png', root / '红.png')
    (root / '×.png').write_text('no image')
    environment = {**os.environ, 'PYTHONIOENCODING': 'ascii'}
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'env': environment}
    where = ['--gallery', tmp_path / 'g']
    done = shell('index', root, *where, '--checkpoint', MODEL, **pipes)
    assert done.returncode == 3
    assert '\\xd7.png: not an image' in done.stderr
    done = shell('query', tmp_path / 'g', '红', **pipes)
    assert done.returncode == 0
    assert done.stdout.endswith('\t\\u7ea2.png\n')


def test_pictures_are_shown(
    gallery: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr('webbrowser.open', opened.append)
    code, _, err = run(capsys, 'query', gallery, 'a man', '--top-k', 3, '--open')
    path = Path(err.strip())
    assert (code, opened) == (0, [path.as_uri()])
    with Image.open(path) as picture:
        assert picture.width > 3 * 96
    path.unlink()


def test_info(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, 'info', gallery, '--json', '--recall', 5)
    known = json.loads(out)
    assert code == 0
    assert (known['items'], known['recall_at_10']) == (12, 1.0)
    code, out, _ = run(capsys, 'info', gallery)
    assert 'items\t12\n' in out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['query', '{gallery}'], 'name a description or --image'),
        (['query', '{gallery}', ' '], 'needs a description or a picture'),
        (['query', '{gallery}', 'a' * 10_000], 'at most 2000 characters'),
        (['query', '{gallery}', 'a', '--top-k', '0'], 'top_k must be at least 1'),
        (['query', '{gallery}', 'a', '--where', 'x'], 'is no condition'),
        (['query', '{gallery}', 'a man', ''], 'description 2 is empty'),
        (['query', '{gallery}', 'a\udcff'], 'not valid Unicode'),
        (['query', '{gallery}', 'a', '--without', '\udcff'], 'not valid Unicode'),
        (['query', '{gallery}', 'a', '--where', 'x=\udcff'], 'not valid Unicode'),
        (['query', '{gallery}', 'a', '--where', 'camera=1 or 2'], 'There is no "or"'),
        (['query', '{gallery}', 'a', '--where', 'time>1e300'], 'the years 1 to 9999'),
        (['query', '{gallery}', 'a', '--top-k', '-3'], 'top_k must be at least 1'),
        (['query', '{gallery}', '--image', '/dev/zero'], 'not a regular file'),
        (['query', '{gallery}', '--image', '{crops}'], 'not a regular file'),
        (['index', '{crops}', '--list', '{tmp}', '--gallery', 'g'], 'regular file'),
        (['query', '{gallery}', '--image', 'none.png'], 'none.png: cannot be read'),
        (['query', '{gallery}', 'a', '--checkpoint', 'x.pth'], 'does not exist'),
        (['query', '{tmp}', 'a'], 'is no gallery'),
        (['info', '{tmp}'], 'is no gallery'),
        (['info', '{gallery}', '--recall', '0'], 'at least 1 of the pictures'),
        (['index', '{crops}', '--gallery', '{tmp}/g'], 'with --checkpoint'),
        (['index', '{tmp}', '--gallery', '{gallery}'], 'holds no pictures'),
        (['index', '{crops}', '--list', 'none', '--gallery', 'g'], 'cannot be read'),
        (
            ['index', '{crops}', '--dataset', 'Market', '--gallery', '{tmp}/g'],
            'must be CUHKPEDES, ICFGPEDES or RSTPReid',
        ),
        (
            ['index', '{crops}', '--dataset', 'RSTPReid', '--gallery', '{tmp}/g'],
            'annotation file',
        ),
    ],
)
def test_bad_input_is_a_message_and_no_traceback(
    arguments: list[str],
    message: str,
    gallery: Path,
    crops: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places: dict[str, Any] = {'gallery': gallery, 'crops': crops, 'tmp': tmp_path}
    code, out, err = run(capsys, *(x.format(**places) for x in arguments))
    assert (code, out) == (2, '')
    assert err.startswith('error: ')
    assert message in err


def test_another_folder_wants_another_gallery(
    gallery: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'a.png').write_bytes((crops / 'red0.png').read_bytes())
    code, _, err = run(capsys, 'index', tmp_path, '--gallery', gallery)
    assert code == 2
    assert f'is the gallery of {crops}, not of {tmp_path}' in err


def test_a_gallery_follows_a_folder_that_was_moved(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = tmp_path / 'before', tmp_path / 'after'
    shutil.copytree(crops, before)
    where = ['--gallery', tmp_path / 'g', '--json']
    run(capsys, 'index', before, *where, '--checkpoint', MODEL)
    before.rename(after)
    # one of other pictures is none that it was moved to
    other = tmp_path / 'other'
    other.mkdir()
    shutil.copy(crops / 'red0.png', other / 'x.png')
    code, _, err = run(capsys, 'index', other, *where)
    assert code == 2
    assert f'is the gallery of {before}, not of {other}' in err
    code, out, _ = run(capsys, 'index', after, *where)
    assert code == 0
    assert json.loads(out)['unchanged'] == 12


def test_fields_of_pictures_that_are_gone_are_passed_over(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = tmp_path / 'fields.csv'
    fields.write_text('path,camera\nred0.png,1\ngone.png,2\nalso_gone.png,3\n')
    where = ['--gallery', tmp_path / 'g', '--checkpoint', MODEL]
    code, _, err = run(capsys, 'index', crops, *where, '--fields', fields)
    assert code == 0
    assert 'fields of 2 pictures that are not there, such as also_gone.png' in err


@pytest.mark.parametrize(
    ('named', 'rank', 'gpus', 'expected'),
    [
        (None, None, 8, None),
        (None, '3', 8, 'cuda:3'),
        (None, '3', 2, 'cuda:1'),
        (None, '3', 0, None),
        ('cpu', '3', 8, 'cpu'),
    ],
)
def test_every_rank_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
    named: str | None,
    rank: str | None,
    gpus: int,
    expected: str | None,
) -> None:
    monkeypatch.setattr('torch.cuda.is_available', lambda: gpus > 0)
    monkeypatch.setattr('torch.cuda.device_count', lambda: gpus)
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    if rank is not None:
        monkeypatch.setenv('LOCAL_RANK', rank)
    assert index_command._device(argparse.Namespace(device=named)) == expected


def test_a_model_that_was_moved_is_asked_for(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = json.loads((gallery / 'gallery.json').read_text())
    moved = tmp_path / 'gallery'
    moved.mkdir()
    for file in gallery.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    description['source'] = ['/none/iter_7.pth', None]
    (moved / 'gallery.json').write_text(json.dumps(description))
    code, _, err = run(capsys, 'query', moved, 'a man')
    assert code == 2
    assert 'its model cannot be read: checkpoint /none/iter_7.pth does not exist' in err
    code, _, _ = run(capsys, 'query', moved, 'a man', '--checkpoint', MODEL)
    assert code == 0


def test_ranks_share_the_work(crops: Path, tmp_path: Path) -> None:
    """As torchrun starts them; a second call has nothing to do."""
    command = [
        *(sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2'),
        *('--rdzv-backend', 'c10d', '--rdzv-endpoint', 'localhost:0'),
        *('-m', 'gckd_mm.search.cli.search', 'index', str(crops), '--json'),
        *('--gallery', str(tmp_path / 'g'), '--checkpoint', MODEL),
    ]
    for added in (12, 0):
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
        )
        counts = json.loads(done.stdout)
        assert (counts['added'], counts['pictures']) == (added, 12)
    with Gallery.open(tmp_path / 'g') as gallery:
        found = sorted(item.path for item in gallery.engine.items())
        assert found == sorted(path.name for path in crops.iterdir())
        feats = gallery.engine.feats_of(found)
    inferencer = PersonSearchInferencer(MODEL, device='cpu', show_progress=False)
    expected = inferencer.encode_images([crops / path for path in found])
    np.testing.assert_allclose(feats, expected, atol=1e-6)


def test_the_tool_is_the_same_entry(gallery: Path) -> None:
    command = [sys.executable, 'tools/search.py', 'info', str(gallery)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 'items\t12\n' in done.stdout


def copy_of(gallery: Path, folder: Path) -> Path:
    shutil.copytree(gallery, folder)
    return folder


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def test_a_sound_gallery_is_verified(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, 'info', gallery, '--verify')
    assert code == 0
    assert 'checksums\tyes\n' in out
    assert 'verified items.sqlite\t12 images\n' in out
    assert 'verified vectors-0.f32\t12 embeddings\n' in out
    assert 'verifying: 12 of 12' in err
    code, out, _ = run(capsys, 'info', gallery, '--verify', '--json')
    assert code == 0
    assert json.loads(out)['verified gallery.json'] == 'the model'


def test_damaged_embeddings_are_named_and_embedded_again(
    gallery: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(gallery, tmp_path / 'g')
    damage(folder / 'vectors-0.f32')
    for command in (
        ('query', folder, 'a man'),
        ('info', folder),
        ('info', folder, '--verify'),
        ('serve', folder, '--port', '0'),
    ):
        code, out, err = run(capsys, *command)
        assert code == 2
        assert f'error: {folder}/vectors-0.f32: damaged' in err
        assert 'run gckd-search index on this gallery again' in err
        assert 'score' not in out
    code, out, _ = run(capsys, 'info', folder, '--verify', '--json')
    assert code == 2
    (problem,) = json.loads(out)['damaged']
    assert problem.startswith(f'{folder}/vectors-0.f32: damaged')
    code, out, err = run(capsys, 'index', crops, '--gallery', folder)
    assert code == 0
    assert 'repaired\t12\n' in out
    assert '12 images whose stored embeddings were damaged: embedded again' in err
    assert run(capsys, 'info', folder, '--verify')[0] == 0
    # the fields that it was given once are still there
    assert run(capsys, 'query', folder, 'a man', '--where', 'camera=3')[0] == 0


def test_damaged_items_are_indexed_into_a_new_gallery(
    gallery: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(gallery, tmp_path / 'g')
    (folder / 'items.sqlite').write_bytes(b'')
    for command in (
        ('query', folder, 'a man'),
        ('info', folder),
        ('info', folder, '--verify'),
        ('serve', folder, '--port', '0'),
        ('index', crops, '--gallery', folder),
    ):
        code, _, err = run(capsys, *command)
        assert code == 2
        assert f'error: {folder}/items.sqlite: damaged' in err
        assert 'gckd-search index FOLDER --gallery NEW' in err


def test_a_damaged_index_is_a_warning_until_it_is_built_again(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'g'
    where = ['index', crops, '--gallery', folder]
    assert run(capsys, *where, '--checkpoint', MODEL, '--index', 'hnsw')[0] == 0
    code, expected, err = run(capsys, 'query', folder, 'a man', '--exact')
    assert (code, 'warning' in err) == (0, False)
    (file,) = folder.glob('*.faiss')
    damage(file)
    code, out, err = run(capsys, 'query', folder, 'a man')
    assert (code, out) == (0, expected)
    assert f'warning: {file}: damaged: ' in err
    assert 'run gckd-search index on this gallery again' in err
    code, _, err = run(capsys, 'info', folder, '--verify')
    assert code == 2
    assert f'error: {file}: damaged' in err
    assert 'run gckd-search index' in err
    code, _, err = run(capsys, *where)
    assert code == 0
    assert f'warning: {file}: damaged: ' in err
    code, out, err = run(capsys, 'query', folder, 'a man')
    assert (code, out, 'warning' in err) == (0, expected, False)


def test_what_has_no_checksums_is_not_called_verified(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Gallery.open(gallery) as new:
        items = list(new.engine.items())
        feats = new.engine.feats_of([item.path for item in items])
    folder = tmp_path / 'old'
    write_old_gallery(folder, items, feats)
    with (folder / 'vectors-0.f32').open('r+b') as file:
        file.write((-feats[0]).tobytes())  # of length 1, as any other
    code, out, _ = run(capsys, 'info', folder, '--verify', '--json')
    known = json.loads(out)
    assert code == 0
    assert known['not verified vectors-0.f32'] == '12 embeddings'
    assert not [name for name in known if name.startswith(('verified', 'readable'))]
    code, out, _ = run(capsys, 'info', gallery, '--verify')
    assert 'verified vectors-0.f32\t12 embeddings\n' in out
    assert 'not verified' not in out


@pytest.mark.parametrize('what', ['mem', 'clear_refs', 'fd', 'environ', 'task'])
def test_an_image_that_is_no_image_is_named(
    gallery: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    path = f'/proc/self/{what}'
    code, _, err = run(capsys, 'query', gallery, '--image', path)
    assert code == 2
    assert f'{path}: ' in err
    assert len(err.splitlines()) == 1


def test_a_gallery_that_another_process_indexes(
    gallery: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(gallery, tmp_path / 'g')
    with Gallery.open(folder) as opened, opened.indexing():
        code, _, err = run(capsys, 'index', crops, '--gallery', folder)
        assert code == 2
        assert f'error: {folder}: in use by process {os.getpid()}' in err
        assert run(capsys, 'query', folder, 'a man')[0] == 0
    assert run(capsys, 'index', crops, '--gallery', folder)[0] == 0


@pytest.mark.parametrize('command', ['query', 'info', 'serve'])
def test_a_gallery_that_is_a_file(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'file').touch()
    words = ['a man'] if command == 'query' else []
    code, _, err = run(capsys, command, tmp_path / 'file', *words)
    assert code == 2
    assert 'is no gallery' in err
