from __future__ import annotations

from pathlib import Path

import pytest

from gckd_mm.errors import InputError
from gckd_mm.gallery import parse_condition
from gckd_mm.gallery.files import find_images, images_at, read_fields
from tests.gallery.fakes import close, write_images


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
