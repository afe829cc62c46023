"""The vocabulary: fitted the same every time, saved with the weights."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models

from gckd_mm.errors import InputError
from gckd_mm.models import WordPieceTokenizer

ROOT = Path(__file__).resolve().parents[3]
UNKNOWN, START, END = 1, 2, 3  # in the order of the special tokens


def corpus() -> list[str]:
    """Many captions of made-up words: many equally frequent pairs to merge."""
    rng = random.Random(0)
    words = [''.join(rng.choices('abcdefgh', k=rng.randint(2, 8))) for _ in range(500)]
    return [' '.join(rng.choices(words, k=12)) for _ in range(100)]


def fitted(captions: list[str] | None = None, **kwargs) -> WordPieceTokenizer:
    tokenizer = WordPieceTokenizer(**kwargs)
    tokenizer.fit(captions or ['a man in a red coat', 'the woman wears blue jeans'])
    return tokenizer


def lengths(batch: dict) -> list[int]:
    return batch['attention_mask'].sum(1).tolist()


def test_a_batch_is_padded_to_its_longest_caption() -> None:
    tokenizer = fitted()
    captions = ['a man', 'a', 'a man in a red coat']

    batch = tokenizer(captions)

    alone = [tokenizer([caption])['input_ids'][0].tolist() for caption in captions]
    assert batch['input_ids'].shape == (3, max(map(len, alone)))
    assert batch['input_ids'].dtype == torch.int64
    assert batch['attention_mask'].dtype == torch.bool
    rows = zip(batch['input_ids'], batch['attention_mask'], alone, strict=True)
    for row, mask, ids in rows:
        assert row[: len(ids)].tolist() == ids
        assert not row[len(ids) :].any()
        assert mask.tolist() == [True] * len(ids) + [False] * (len(row) - len(ids))


def test_a_known_word_is_one_token_between_start_and_end() -> None:
    ids = fitted()(['red coat'])['input_ids'][0].tolist()

    assert [ids[0], ids[-1]] == [START, END]
    assert len(ids) == 4
    assert UNKNOWN not in ids


def test_case_is_nothing() -> None:
    tokenizer = fitted()

    rows = tokenizer(['A Man in a RED coat', 'a man in a red coat'])['input_ids']

    assert torch.equal(rows[0], rows[1])


@pytest.mark.parametrize('max_length', [2, 5, 9])
def test_a_long_caption_is_cut_and_still_ends(max_length: int) -> None:
    tokenizer = fitted(max_length=max_length)

    batch = tokenizer(['a man ' * 5_000, 'a man'])

    whole = fitted(max_length=100)(['a man a man a man a man'])['input_ids'][0]
    row = batch['input_ids'][0].tolist()
    assert len(row) == max_length
    assert row[:-1] == whole[: max_length - 1].tolist()
    assert row[-1] == END


def test_an_empty_caption_is_start_and_end() -> None:
    batch = fitted()(['', ' \n ', 'a man'])

    assert lengths(batch)[:2] == [2, 2]
    assert batch['input_ids'][:2, :2].tolist() == [[START, END]] * 2


@pytest.mark.parametrize(
    'caption',
    [
        '😀👩‍👩‍👧',
        '穿红色外套的人',
        'ζ',
        '\x00\x07',
        '<script>x = {}</script>',
        'q' * 10_000,
    ],
)
def test_what_it_has_never_seen(caption: str) -> None:
    batch = fitted()([caption, 'a man'])

    assert 2 <= lengths(batch)[0] <= 77
    assert batch['input_ids'].max() < 1500
    assert batch['input_ids'][0, 0] == START
    # Its neighbour is not touched.
    assert torch.equal(
        batch['input_ids'][1, : lengths(batch)[1]], fitted()(['a man'])['input_ids'][0]
    )


def test_an_unknown_character_is_the_unknown_token() -> None:
    assert fitted()(['穿'])['input_ids'].tolist() == [[START, UNKNOWN, END]]


def test_cjk_is_learned_where_it_is_seen() -> None:
    ids = fitted(['穿 红色 外套', 'a man'])(['红色'])['input_ids']

    assert UNKNOWN not in ids


@pytest.mark.parametrize('vocab_size', [60, 200, 1500])
def test_the_vocabulary_keeps_to_its_bound(vocab_size: int) -> None:
    tokenizer = fitted(corpus(), vocab_size=vocab_size)

    ids = tokenizer(corpus())['input_ids']

    assert len(json.loads(tokenizer.to_json())['model']['vocab']) <= vocab_size
    assert ids.max() < vocab_size
    assert UNKNOWN not in ids


def digest() -> str:
    return hashlib.sha256(
        fitted(corpus(), vocab_size=300).to_json().encode()
    ).hexdigest()


def test_fitting_is_deterministic() -> None:
    assert len({digest() for _ in range(5)}) == 1


def test_fitting_is_deterministic_across_processes() -> None:
    module = 'tests.models.tokenizers.test_word_piece_tokenizer'
    done = subprocess.run(
        [sys.executable, '-c', f'from {module} import digest; print(digest())'],
        cwd=ROOT,
        env={**os.environ, 'PYTHONHASHSEED': '7', 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.stdout.split()[-1:] == [digest()], done.stderr


def test_the_order_of_the_captions_is_nothing() -> None:
    captions = corpus()

    assert (
        fitted(captions[::-1], vocab_size=300).to_json()
        == fitted(captions, vocab_size=300).to_json()
    )


def test_fitting_leaves_the_environment_alone(monkeypatch) -> None:
    for value in ('true', None):
        if value is None:
            monkeypatch.delenv('TOKENIZERS_PARALLELISM', raising=False)
        else:
            monkeypatch.setenv('TOKENIZERS_PARALLELISM', value)
        fitted()
        assert os.environ.get('TOKENIZERS_PARALLELISM') == value


def test_it_travels_in_the_state_dict(tmp_path: Path) -> None:
    tokenizer = fitted(['穿 红色 外套', 'a man 😀'])
    torch.save(tokenizer.state_dict(), tmp_path / 'weights.pth')

    fresh = WordPieceTokenizer()
    assert not fresh.fitted
    fresh.load_state_dict(torch.load(tmp_path / 'weights.pth', weights_only=True))

    assert fresh.fitted
    assert fresh.to_json() == tokenizer.to_json()
    captions = ['a man in 红色', '😀']
    assert (
        fresh(captions)['input_ids'].tolist()
        == tokenizer(captions)['input_ids'].tolist()
    )


def test_the_length_is_the_models_and_not_the_files(tmp_path: Path) -> None:
    state = fitted(max_length=4).state_dict()
    longer = WordPieceTokenizer(max_length=9)

    longer.load_state_dict(state)

    assert longer(['a man ' * 20])['input_ids'].shape == (1, 9)


def test_an_unfitted_state_is_a_state(tmp_path: Path) -> None:
    torch.save(WordPieceTokenizer().state_dict(), tmp_path / 'weights.pth')
    fresh = WordPieceTokenizer()

    fresh.load_state_dict(torch.load(tmp_path / 'weights.pth', weights_only=True))

    assert not fresh.fitted


def test_a_copy_has_its_own_vocabulary() -> None:
    tokenizer = fitted()
    twin = copy.deepcopy(tokenizer)

    tokenizer.fit(['something else altogether'])

    assert twin.to_json() == fitted().to_json() != tokenizer.to_json()


def test_without_a_vocabulary_it_says_what_to_do() -> None:
    tokenizer = WordPieceTokenizer()

    with pytest.raises(InputError, match='FitTokenizerHook'):
        tokenizer(['a man'])
    assert tokenizer.to_json() == ''


def test_a_vocabulary_that_is_too_large_is_refused(tmp_path: Path) -> None:
    large = fitted(corpus(), vocab_size=300)
    file = tmp_path / 'tokenizer.json'
    file.write_text(large.to_json())

    with pytest.raises(InputError, match=r'tokenizer\.json: has 300 tokens.*=200'):
        WordPieceTokenizer(vocab_size=200, file=str(file))
    with pytest.raises(InputError, match='checkpoint: has 300 tokens'):
        WordPieceTokenizer(vocab_size=200).load_state_dict(large.state_dict())


def test_it_begins_with_a_file(tmp_path: Path) -> None:
    file = tmp_path / 'tokenizer.json'
    file.write_text(fitted().to_json(), encoding='utf-8')

    tokenizer = WordPieceTokenizer(file=str(file))

    assert tokenizer.fitted
    assert tokenizer.to_json() == fitted().to_json()


def test_a_file_that_pads_to_a_maximum_is_padded_to_the_longest(tmp_path: Path) -> None:
    # Many a published tokenizer.json asks for padding to a fixed length.
    padding = Tokenizer.from_str(fitted().to_json())
    padding.enable_padding(length=64)
    file = tmp_path / 'tokenizer.json'
    padding.save(str(file))

    batch = WordPieceTokenizer(file=str(file))(['a man', 'a'])

    assert batch['input_ids'].tolist() == fitted()(['a man', 'a'])['input_ids'].tolist()
    assert lengths(batch) == [4, 3]


@pytest.mark.parametrize('content', ['', '{}', 'not json', '[1, 2]'])
def test_a_file_that_is_no_tokenizer(tmp_path: Path, content: str) -> None:
    file = tmp_path / 'tokenizer.json'
    file.write_text(content)

    with pytest.raises(InputError, match=r'tokenizer\.json: not a tokenizer\.json'):
        WordPieceTokenizer(file=str(file))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / 'tokenizer.json'
    file.write_bytes(b'\x89PNG\xff\xfe\x00')

    with pytest.raises(InputError, match=r'tokenizer\.json: not a tokenizer\.json'):
        WordPieceTokenizer(file=str(file))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'nowhere\.json does not exist'):
        WordPieceTokenizer(file=str(tmp_path / 'nowhere.json'))


def test_a_tokenizer_without_padding_is_refused(tmp_path: Path) -> None:
    file = tmp_path / 'tokenizer.json'
    Tokenizer(models.WordPiece({'a': 0, '[UNK]': 1})).save(str(file))

    with pytest.raises(InputError, match=r'no padding token \[PAD\]'):
        WordPieceTokenizer(file=str(file))


def test_damaged_bytes_in_a_checkpoint_are_refused() -> None:
    state = fitted().state_dict()
    state['_extra_state'] = state['_extra_state'][:-20]

    with pytest.raises(InputError, match='in the checkpoint: not a tokenizer'):
        WordPieceTokenizer().load_state_dict(state)


@pytest.mark.parametrize('max_length', [-1, 0, 1])
def test_a_length_without_room_for_start_and_end(max_length: int) -> None:
    with pytest.raises(InputError, match=f'at least 2, got {max_length}'):
        WordPieceTokenizer(max_length=max_length)


def test_no_captions_at_all() -> None:
    with pytest.raises(ValueError, match='no captions'):
        fitted()([])


def test_letters_beyond_the_alphabet_are_unknown() -> None:
    captions = ['aaa bbb ccc'] * 3 + ['aaa bbb'] * 3
    for size, unknown in ((4, 0), (3, 1)):
        tokenizer = WordPieceTokenizer(alphabet_size=size)  # the space is a letter
        tokenizer.fit(captions)
        ids = tokenizer(['ccc'])['input_ids']
        assert (ids == 1).sum() == unknown
