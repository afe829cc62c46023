from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.search.gallery import parse_condition
from gckd_mm.search.gallery.files import (
    find_images,
    images_at,
    named_suffixes,
    read_fields,
    read_list,
    scan_folder,
)
from tests.search.gallery.fakes import close, write_images


def test_pictures_are_found_in_order_with_their_fields(tmp_path: Path) -> None:
    names = ['b/2.PNG', 'a.jpg', 'b/1.jpeg', 'notes.txt', '.hidden.jpg', '.x/3.jpg']
    write_images(tmp_path, names)
    found = find_images(tmp_path, {'b/1.jpeg': {'camera': '4'}})
    assert [image.path for image in found] == ['a.jpg', 'b/1.jpeg', 'b/2.PNG']
    assert [dict(image.fields) for image in found] == [{}, {'camera': '4'}, {}]
    assert [Path(image.file) for image in found] == [
        tmp_path / image.path for image in found
    ]


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        ([], r'holds no pictures \(0 other files\)'),
        (['a.txt', 'b/c.md'], r'holds no pictures \(2 other files\)'),
    ],
)
def test_a_folder_without_pictures(
    tmp_path: Path, names: list[str], message: str
) -> None:
    write_images(tmp_path, names)
    with pytest.raises(InputError, match=message):
        find_images(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='is no folder'):
        find_images(tmp_path / 'none')


def test_fields_of_a_picture_that_is_not_there(tmp_path: Path) -> None:
    write_images(tmp_path, ['a.jpg'])
    with pytest.raises(InputError, match=r"has no picture 'b.jpg', and none of the 1"):
        find_images(tmp_path, {'b.jpg': {'camera': '1'}})
    # one that is gone is no error
    fields = {'b.jpg': {'camera': '1'}, 'a.jpg': {'camera': '2'}}
    (image,) = find_images(tmp_path, fields)
    assert image.fields == {'camera': '2'}


def test_nothing_is_said_of_fields_unless_some_are_given(tmp_path: Path) -> None:
    write_images(tmp_path, ['a.jpg', 'b.jpg'])
    assert [image.fields for image in find_images(tmp_path)] == [None, None]
    found = images_at(['a.jpg', 'b.jpg'], tmp_path, {'a.jpg': {'camera': '1'}})
    assert [image.fields for image in found] == [{'camera': '1'}, {}]


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, ['a.jpg', 'b/c.jpg'])
    close(monkeypatch, tmp_path / 'b')
    image, closed = find_images(tmp_path)
    assert image.path == 'a.jpg'
    assert closed.path == 'b/'
    with pytest.raises(InputError, match=r'b: cannot be listed \(Permission denied\)'):
        closed.stamp()
    close(monkeypatch, tmp_path)
    with pytest.raises(InputError, match='cannot be listed'):
        find_images(tmp_path)


def test_a_list_keeps_each_file_once(tmp_path: Path) -> None:
    names = ['b/x.jpg', str(tmp_path / 'a.jpg'), './b/../b/x.jpg']
    found = images_at(names, tmp_path, {'a.jpg': {'camera': '1'}})
    assert [image.path for image in found] == ['b/x.jpg', 'a.jpg']
    assert [image.file for image in found] == [
        str(tmp_path / 'b/x.jpg'),
        str(tmp_path / 'a.jpg'),
    ]
    assert [dict(image.fields) for image in found] == [{}, {'camera': '1'}]
    with pytest.raises(InputError, match=r"has no picture 'c\.jpg'"):
        images_at(['a.jpg'], tmp_path, {'c.jpg': {}})


@pytest.mark.parametrize('name', ['../a.jpg', '/etc/passwd', 'b/../../a.jpg'])
def test_a_list_stays_inside_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match='lies outside of'):
        images_at([name], tmp_path)


FIELDS = {
    'a.jpg': {'camera': '03', 'time': 86400.0, 'floor': 2, 'note': 'x, y'},
    'b/c.jpg': {'camera': '1', 'floor': 1.5},
}


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        (
            'fields.csv',
            'path,camera,time,floor,note\n'
            'a.jpg,03,1970-01-02,2,"x, y"\n'
            'b/c.jpg,1,,1.5,\n',
        ),
        (
            'fields.jsonl',
            '{"path": "a.jpg", "camera": "03", "time": 86400, "floor": 2, '
            '"note": "x, y"}\n\n'
            '{"path": "b/c.jpg", "camera": 1, "time": null, "floor": 1.5}\n',
        ),
    ],
)
def test_fields_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_fields(tmp_path / name) == FIELDS


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('x.csv', 'file,camera\na.jpg,1\n', 'line 2: has no path'),
        ('x.csv', 'path,camera\na.jpg\n', 'line 2: has'),
        ('x.csv', 'path,camera\na.jpg,1,2\n', 'line 2: has'),
        ('x.csv', 'path,a b\na.jpg,1\n', "line 2: 'a b' cannot be the name"),
        ('x.csv', 'path,size\na.jpg,1\n', "line 2: 'size' cannot be the name"),
        ('x.csv', 'path,time\na.jpg,noon\n', 'line 2: a time is seconds'),
        ('x.csv', 'path,b\na.jpg,1\na.jpg,2\n', 'line 3: a.jpg has been there'),
        ('x.jsonl', '{"path": "a.jpg"}\n{', 'line 2: no JSON'),
        ('x.jsonl', '[1]', 'line 1: must be a JSON object'),
        ('x.jsonl', '{"path": "a.jpg", "b": [1]}', 'line 1: b must be text, a number'),
        ('x.txt', '', r'must be \.csv or \.jsonl'),
        ('x.csv', b'path\n\xff.jpg', 'cannot be read'),
    ],
)
def test_fields_that_are_wrong(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_fields(tmp_path / name)


def test_cells_that_look_like_numbers_and_are_names(tmp_path: Path) -> None:
    cells = {
        '7': 7,
        '-1.5': -1.5,
        '2e3': 2000.0,
        '007': '007',
        '1_000': '1_000',
        'nan': 'nan',
        '1e999': '1e999',
        'true': True,
        'false': False,
    }
    (tmp_path / 'x.csv').write_text(
        'path,x\n' + ''.join(f'{n}.jpg,{cell}\n' for n, cell in enumerate(cells))
    )
    found = [fields['x'] for fields in read_fields(tmp_path / 'x.csv').values()]
    assert found == list(cells.values())
    assert [type(x) for x in found] == [type(x) for x in cells.values()]
    # and conditions read them alike
    assert [parse_condition(f'x={cell}').value for cell in cells] == found


@pytest.mark.parametrize('number', ['NaN', 'Infinity', '-1e999'])
@pytest.mark.parametrize('field', ['x', 'time'])
def test_numbers_that_are_none(tmp_path: Path, number: str, field: str) -> None:
    (tmp_path / 'x.jsonl').write_text(f'{{"path": "a.jpg", "{field}": {number}}}')
    with pytest.raises(InputError, match='line 1'):
        read_fields(tmp_path / 'x.jsonl')


@pytest.mark.parametrize(
    ('name', 'data', 'message'),
    [
        ('x.csv', b'path,a\na.jpg,"open\nb.jpg,1\n', r'line \d: no CSV'),
        (
            'x.csv',
            b'path,a\na.jpg,' + b'a' * 200_000,
            r'line \d: no CSV \(field larger',
        ),
        ('x.csv', b'path,a\na.jpg,' + b'a' * 20_000, 'line 2: a may have 10000'),
        ('x.csv', b'path,a\na.jpg,x\0y', 'line 2: holds a NUL character'),
        ('x.csv', b'path,a,a\na.jpg,1,2', "line 1: has two columns of the name 'a'"),
        ('x.csv', b'path;a\na.jpg;1', 'line 1: has one column, .* separated by commas'),
        ('x.csv', b'', 'has fields of no picture'),
        ('x.csv', b'path,a\n', 'has fields of no picture'),
        ('x.csv', 'path,a\na.jpg,1'.encode('utf-16'), 'it is UTF-16'),
        ('x.csv', 'path,a\na.jpg,1'.encode('utf-16-le'), 'line 1: holds a NUL'),
        ('x.csv', b'path,a\nb.jpg,1\n\xff.jpg,1', 'line 3: cannot be read .*not UTF-8'),
        ('x.csv', b'path,time\na.jpg,1e300', 'line 2: a time must lie in the years'),
        ('x.jsonl', b'{"path": "a.jpg", "b": ' + b'[' * 100_000, 'line 1: no JSON'),
        ('x.jsonl', b'[' * 100_000 + b']' * 100_000, 'line 1: no JSON'),
        ('x.jsonl', b'{"path": "a.jpg", "b": ' + b'9' * 5000 + b'}', 'line 1: '),
        ('x.jsonl', b'{"path": "a.jpg", "b": 99999999999999999999}', 'than 64 bits'),
        ('x.jsonl', b'{"path": "a.jpg", "b": -1e999}', 'b must be a finite number'),
        ('x.jsonl', b'{"path": "a.jpg", "time": -1e300}', 'must lie in the years'),
        ('x.jsonl', b'{"path": "a.jpg", "b": "\\ud800"}', 'line 1: b is not valid'),
        ('x.jsonl', b'{"path": "a\\udcff.jpg"}', 'line 1: path is not valid Unicode'),
        ('x.jsonl', b'{"path": "a.jpg", "b": "\\u0000"}', 'line 1: b holds a NUL'),
        (
            'x.jsonl',
            b'{"path": "a.jpg", "\\ud800": 1}',
            'cannot be the name of a field',
        ),
        (
            'x.jsonl',
            b'{"path": "a.jpg", "b": 1, "b": 2}',
            "line 1: .*'b' is there twice",
        ),
        ('x.jsonl', b'{"path": "a.jpg", "camera": [1]}', 'line 1: camera must be text'),
    ],
)
def test_texts_that_crash_are_one_line(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        read_fields(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
    assert len(str(error.value)) < 400


def test_cells_may_have_lines_and_any_number_of_digits(tmp_path: Path) -> None:
    digits = '9' * 5000
    text = f'\ufeffpath,a,b\r\na.jpg,"x\ny\u2028z",{digits}\r\n'
    (tmp_path / 'x.CSV').write_bytes(text.encode())
    expected = {'a.jpg': {'a': 'x\ny\u2028z', 'b': digits}}
    assert read_fields(tmp_path / 'x.CSV') == expected
    (tmp_path / 'x.jsonl').write_text('{"path": "a.jpg", "a": "x\u2028y"}\n')
    assert read_fields(tmp_path / 'x.jsonl') == {'a.jpg': {'a': 'x\u2028y'}}


@pytest.mark.parametrize('read', [read_fields, read_list])
def test_tables_are_regular_files(tmp_path: Path, read: Any) -> None:
    (tmp_path / 'folder.csv').mkdir()
    os.mkfifo(tmp_path / 'pipe.csv')
    (tmp_path / 'zero.csv').symlink_to('/dev/zero')
    for name in ('folder.csv', 'pipe.csv', 'zero.csv'):
        with pytest.raises(InputError, match='not a regular file'):
            read(tmp_path / name)


def test_a_list_of_paths(tmp_path: Path) -> None:
    file = tmp_path / 'list.txt'
    file.write_bytes('\ufeffa.jpg\r\n\r\n b/c.jpg \n'.encode())
    assert read_list(file) == ['a.jpg', 'b/c.jpg']
    for data, message in (
        (b'\n \n', 'is empty'),
        (b'a.jpg\n\xff.jpg', 'line 2: cannot be read'),
        (b'a.jpg\nb\0.jpg', 'line 2: holds a NUL'),
    ):
        file.write_bytes(data)
        with pytest.raises(InputError, match=message):
            read_list(file)
    with pytest.raises(InputError, match='holds a NUL'):
        images_at(['a\0.jpg'], tmp_path)
    with pytest.raises(InputError, match='must be a list of paths'):
        images_at('a.jpg', tmp_path)


def test_files_passed_over_are_counted_by_suffix(tmp_path: Path) -> None:
    names = ['a.jpg', 'A.JPG', 'x.heic', 'y.HEIC', 'z.mp4', 'README', '.DS_Store']
    write_images(tmp_path, [*names, 'b/w.heic', '.git/config'])
    scan = scan_folder(tmp_path)
    assert [image.path for image in scan.images] == ['A.JPG', 'a.jpg']
    assert scan.passed_over == {'.heic': 3, '.mp4': 1, '': 1}
    assert named_suffixes(scan.passed_over) == '3 .heic, 1 without a suffix, 1 .mp4'


def test_what_is_no_regular_file_has_no_stamp(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe.png')
    (tmp_path / 'loop.png').symlink_to(tmp_path / 'loop.png')
    (tmp_path / 'zero.png').symlink_to('/dev/zero')
    write_images(tmp_path, ['a.png'])
    (tmp_path / 'link.png').symlink_to(tmp_path / 'a.png')
    problems = {}
    for image in find_images(tmp_path):
        try:
            image.stamp()
        except InputError as error:
            problems[image.path] = str(error)
    assert set(problems) == {'loop.png', 'pipe.png', 'zero.png'}
    assert 'Too many levels of symbolic links' in problems['loop.png']
    for name in ('pipe.png', 'zero.png'):
        assert 'not a regular file' in problems[name]
    (folder,) = images_at(['.'], tmp_path)
    with pytest.raises(InputError, match='but a folder'):
        folder.stamp()


def test_fields_of_a_program_are_checked(tmp_path: Path) -> None:
    write_images(tmp_path, ['a.png'])
    (image,) = find_images(tmp_path, {'a.png': {'floor': np.int64(2)}})
    assert type(image.fields['floor']) is int
    with pytest.raises(InputError, match=r'a\.png: floor must be text'):
        find_images(tmp_path, {'a.png': {'floor': [2]}})
