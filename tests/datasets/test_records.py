"""Annotation files: what is read, and what every malformed one says."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from gckd_mm.datasets.records import (
    PersonRecord,
    RecordSchema,
    missing_images,
    read_records,
    select_split,
)
from gckd_mm.errors import InputError

GOOD = {'id': 7, 'file_path': 'cam_a/x.png', 'captions': ['a man'], 'split': 'train'}


def write(folder: Path, content: Any) -> Path:
    path = folder / 'annotations.json'
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(content), encoding='utf-8')
    return path


def test_a_record_is_read_as_it_is(tmp_path: Path) -> None:
    captions = ['她穿着红色外套。', 'x = {"a": [1, 2]};\n// 한국어', '  two  spaces ']
    path = write(tmp_path, [GOOD, {**GOOD, 'captions': captions, 'extra': None}])

    records = read_records(path, RecordSchema())

    assert records == [
        PersonRecord(7, 'cam_a/x.png', ('a man',), 'train'),
        PersonRecord(7, 'cam_a/x.png', tuple(captions), 'train'),
    ]


def test_escaped_and_raw_utf8_are_the_same(tmp_path: Path) -> None:
    content = [{**GOOD, 'captions': ['穿 é 😀']}]
    escaped = json.dumps(content, ensure_ascii=True).encode()
    raw = json.dumps(content, ensure_ascii=False).encode()

    assert escaped != raw
    for data in (escaped, raw):
        (record,) = read_records(write(tmp_path, data), RecordSchema())
        assert record.captions == ('穿 é 😀',)


def test_the_schema_names_the_fields(tmp_path: Path) -> None:
    raw = {'who': 3, 'img_path': 'a.png', 'says': ['a man'], 'part': 'test'}
    schema = RecordSchema(pid='who', image='img_path', captions='says', split='part')

    (record,) = read_records(write(tmp_path, [raw]), schema)

    assert record == PersonRecord(3, 'a.png', ('a man',), 'test')


@pytest.mark.parametrize('split', ['train', 'TRAIN', 'Train', 'tRaIn'])
def test_a_split_may_be_in_any_case(tmp_path: Path, split: str) -> None:
    path = write(tmp_path, [{**GOOD, 'split': split}])

    records = read_records(path, RecordSchema())

    assert len(select_split(records, 'train', path)) == 1


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (b'', 'not a JSON file'),
        (b'[{"id": 1,', 'not a JSON file'),
        (b'captions,id\na man,1\n', 'not a JSON file'),
        ('[{"captions": ["café"]}]'.encode('latin-1'), 'in UTF-8'),
        ('[{"captions": ["红色外套"]}]'.encode('gb18030'), 'in UTF-8'),
        ({'id': 1}, "must hold a list of records, got {'id': 1}"),
        ('a man', "must hold a list of records, got 'a man'"),
        (None, 'must hold a list of records, got None'),
    ],
)
def test_a_file_that_holds_no_records(tmp_path: Path, content: Any, said: str) -> None:
    path = write(tmp_path, content)

    with pytest.raises(InputError) as error:
        read_records(path, RecordSchema())

    assert str(path) in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize('raw', [None, 3, 'a man', ['a man'], []])
def test_a_record_that_is_no_object(tmp_path: Path, raw: Any) -> None:
    path = write(tmp_path, [GOOD, GOOD, raw])

    with pytest.raises(InputError) as error:
        read_records(path, RecordSchema())

    assert f'{path}, record 2: must be an object, got {raw!r}' in str(error.value)


@pytest.mark.parametrize('field', GOOD)
def test_a_record_without_a_field(tmp_path: Path, field: str) -> None:
    raw = {name: value for name, value in GOOD.items() if name != field}
    path = write(tmp_path, [GOOD, raw])

    with pytest.raises(InputError) as error:
        read_records(path, RecordSchema())

    assert f'{path}, record 1: no field {field!r}' in str(error.value)
    assert all(name in str(error.value) for name in raw)


@pytest.mark.parametrize(
    ('field', 'value', 'said'),
    [
        *(('id', pid, 'integer') for pid in ('7', 7.0, True, False, None, [7])),
        *(('file_path', path, 'path') for path in (None, 3, '', '  ', ['a.png'])),
        *(
            ('file_path', path, 'stay inside the image folder')
            for path in ('/etc/x.png', '../x.png', 'a/../../x.png', 'a/..', '//x.png')
        ),
        *(
            ('captions', captions, 'non-empty list of strings')
            for captions in ([], 'a man', None, {'0': 'a man'}, [3], ['a man', None])
        ),
        *(('split', split, 'train') for split in ('dev', '', None, 1, ['train'])),
    ],
)
def test_a_field_of_the_wrong_kind(
    tmp_path: Path, field: str, value: Any, said: str
) -> None:
    path = write(tmp_path, [GOOD, {**GOOD, field: value}])

    with pytest.raises(InputError) as error:
        read_records(path, RecordSchema())

    message = str(error.value)
    assert f'{path}, record 1: {field!r}' in message
    assert said in message
    assert repr(value) in message


@pytest.mark.parametrize('empty', ['', ' ', '\n\t', '\u3000'])
def test_an_empty_caption_is_named_by_its_place(tmp_path: Path, empty: str) -> None:
    path = write(tmp_path, [GOOD, {**GOOD, 'captions': ['a man', empty]}])

    with pytest.raises(InputError) as error:
        read_records(path, RecordSchema())

    assert f"{path}, record 1: 'captions', caption 1 is empty" in str(error.value)


def test_a_message_does_not_print_a_whole_book(tmp_path: Path) -> None:
    path = write(tmp_path, [{**GOOD, 'captions': 'a man ' * 10_000}])

    with pytest.raises(InputError) as error:
        read_records(path, RecordSchema())

    assert len(str(error.value)) < len(str(path)) + 300


def test_half_a_surrogate_pair_is_refused(tmp_path: Path) -> None:
    # json.loads takes it; no tokenizer and no UTF-8 encoder does, much later.
    path = write(
        tmp_path, b'[%s]' % json.dumps({**GOOD, 'captions': ['\ud83d']}).encode()
    )

    with pytest.raises(InputError, match=r"record 0: 'captions'"):
        read_records(path, RecordSchema())


def test_an_id_that_does_not_fit_64_bits_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [{**GOOD, 'id': 2**63}])

    with pytest.raises(InputError, match=r"record 0: 'id'"):
        read_records(path, RecordSchema())


def test_select_split_keeps_the_order_and_nothing_else() -> None:
    splits = ['train', 'test', 'train', 'val', 'test']
    records = [
        PersonRecord(pid, f'{pid}.png', ('a man',), split)
        for pid, split in enumerate(splits)
    ]

    for wanted in ('train', 'val', 'test'):
        selected = select_split(records, wanted, 'a.json')
        assert [record.pid for record in selected] == [
            pid for pid, split in enumerate(splits) if split == wanted
        ]


@pytest.mark.parametrize('split', ['dev', 'Train', '', None])
def test_an_unknown_split_is_asked_for(split: Any) -> None:
    with pytest.raises(InputError) as error:
        select_split([PersonRecord(1, 'a.png', ('a',), 'train')], split, 'a.json')

    assert f'a.json: unknown split {split!r}' in str(error.value)
    assert all(known in str(error.value) for known in ('train', 'val', 'test'))


def test_an_empty_split_says_what_there_is() -> None:
    records = [PersonRecord(1, 'a.png', ('a',), split) for split in ('train', 'test')]

    with pytest.raises(InputError, match=r"a\.json.*'val'.*train 1, test 1"):
        select_split(records, 'val', 'a.json')
    with pytest.raises(InputError, match='none at all'):
        select_split([], 'val', 'a.json')


def test_missing_images_against_a_look_at_each_file(tmp_path: Path) -> None:
    for name in ('a.png', 'deep/er/b.png', 'folder.png/c.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    asked = [
        *('a.png', 'nowhere/a.png', 'deep/er/b.png', 'deep/b.png', 'A.png'),
        *('nowhere/a.png', 'folder.png', 'folder.png/c.png', 'a.png/b.png'),
    ]

    missing = missing_images(tmp_path, asked)

    expected = {name for name in asked if not (tmp_path / name).is_file()}
    assert set(missing) == expected
    assert missing == ['nowhere/a.png', 'deep/b.png', 'A.png', *missing[3:]]
    assert len(missing) == len(expected)


@pytest.mark.parametrize('text', ['[' * 100_000, '[' + '1' * 5000 + ']'])
def test_json_that_python_cannot_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / 'annotations.json'
    path.write_text(text)
    with pytest.raises(InputError, match=r'annotations\.json: not a JSON file'):
        read_records(path, RecordSchema())


def _deep(levels: int) -> bytes:
    return b'[' * levels + b']' * levels


@pytest.mark.parametrize(
    'content',
    [
        pytest.param([{**GOOD, 'file_path': 'a\0b/c.png'}], id='null byte in a folder'),
        pytest.param([{**GOOD, 'file_path': 'c.png\0'}], id='null byte in a name'),
        pytest.param([{**GOOD, 'file_path': 'a\ud800.png'}], id='lone surrogate'),
        pytest.param([{**GOOD, 'file_path': '/etc/passwd'}], id='absolute'),
        pytest.param([{**GOOD, 'file_path': 'a/../../b.png'}], id='outside'),
        pytest.param(b'[{"id": 1, "id": 2}]', id='a field twice'),
        pytest.param(
            b'[' + json.dumps(GOOD)[:-1].encode() + b', "captions": ["x"]}]',
            id='captions twice',
        ),
        pytest.param(_deep(100_000), id='deep'),
        pytest.param(b'[' + b'9' * 5000 + b']', id='5,000 digits'),
        pytest.param(b'[{"id": NaN}]', id='NaN'),
        pytest.param(json.dumps([{**GOOD, 'id': 1.0}]).encode(), id='float id'),
        pytest.param(json.dumps([{**GOOD, 'id': 2**63}]).encode(), id='large id'),
        pytest.param(json.dumps([GOOD]).encode('utf-16')[:-1], id='cut UTF-16'),
        pytest.param(b'', id='empty'),
        pytest.param(b'{}', id='no list'),
        pytest.param(b'"' + b'x' * 10**6 + b'"', id='a long string'),
    ],
)
def test_every_other_flaw_is_an_input_error_of_one_line(
    tmp_path: Path, content: Any
) -> None:
    with pytest.raises(InputError) as error:
        read_records(write(tmp_path, content), RecordSchema())
    message = str(error.value)
    assert '\n' not in message
    assert len(message) < 600
    message.encode()  # can be printed and logged


@pytest.mark.parametrize('kind', ['folder', 'FIFO', 'device', 'nothing', 'loop'])
def test_what_is_no_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / 'annotations.json'
    {
        'folder': path.mkdir,
        'FIFO': lambda: os.mkfifo(path),
        'device': lambda: path.symlink_to('/dev/zero'),
        'nothing': lambda: None,
        'loop': lambda: path.symlink_to(path),
    }[kind]()
    with pytest.raises(InputError, match=r'annotations\.json: is not a file'):
        read_records(path, RecordSchema())


@pytest.mark.parametrize('image', ['x' * 300 + '/a.png', 'x' * 300, 'a.png/b', 'l/a'])
def test_an_image_of_a_path_that_cannot_be_is_missing(
    tmp_path: Path, image: str
) -> None:
    (tmp_path / 'a.png').write_bytes(b'')
    (tmp_path / 'l').symlink_to(tmp_path / 'l')
    assert missing_images(tmp_path, [image]) == [image]


FRAGMENTS = (b'"', b'\\', b'{', b']', b'\x00', b'\xff', b'\\ud800', b'null', b'-', b'e')


@pytest.mark.parametrize('seed', range(4))
def test_damaged_files_never_give_anything_but_an_input_error(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    whole = json.dumps([{**GOOD, 'id': number} for number in range(6)]).encode()
    (tmp_path / 'imgs').mkdir()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            cut = rng.choice((0, 1, 1, 5, 40))
            data[at : at + cut] = rng.choice((b'', *FRAGMENTS))
        path = write(tmp_path, bytes(data))
        try:
            records = read_records(path, RecordSchema())
            missing_images(tmp_path / 'imgs', (record.image for record in records))
        except InputError as error:
            str(error).encode()
