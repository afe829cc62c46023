"""Tokenizers of pretrained encoders: transformers' ids, without its folder."""

from __future__ import annotations

import copy
import logging
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger

from gckd_mm.errors import InputError
from gckd_mm.models import HFTokenizer

tiny_clip = pytest.importorskip('tests.models.tiny_clip')
transformers = tiny_clip.transformers

CAPTIONS = [
    'A man in a RED coat.',
    '',
    ' \n ',
    '穿红色外套的人',
    '😀👩‍👩‍👧',
    'red ' * 300,
    'q' * 10_000,
    '\x00\x07',
]


def theirs(folder: Path, captions: list[str], length: int) -> dict[str, torch.Tensor]:
    if (folder / 'merges.txt').is_file():
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder)
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer(
        captions, padding=True, truncation=True, max_length=length, return_tensors='pt'
    )


@pytest.mark.parametrize('length', [2, 7, 40])
@pytest.mark.parametrize('family', ['clip', 'bert'])
def test_the_ids_are_transformers(
    clip_folder: Path, bert_folder: Path, family: str, length: int
) -> None:
    folder = {'clip': clip_folder, 'bert': bert_folder}[family]

    batch = HFTokenizer(str(folder), max_length=length)(CAPTIONS)

    judge = theirs(folder, CAPTIONS, length)
    assert torch.equal(batch['input_ids'], judge['input_ids'])
    assert torch.equal(batch['attention_mask'], judge['attention_mask'].bool())


def test_the_two_files_of_clip_are_enough(tmp_path: Path) -> None:
    folder = tiny_clip.write_clip_tokenizer(tmp_path / 'bpe')
    vocabulary = tiny_clip.clip_vocabulary()
    start, end = vocabulary[tiny_clip.START], vocabulary[tiny_clip.END]

    tokenizer = HFTokenizer(str(folder))

    ids = [vocabulary[token] for token in ('man</w>', 'red</w>', 'coat</w>')]
    assert tokenizer(['Man red  COAT'])['input_ids'].tolist() == [[start, *ids, end]]
    assert tokenizer([''])['input_ids'].tolist() == [[start, end]]
    assert tokenizer.vocab_size == len(vocabulary)


def test_every_caption_begins_and_ends(clip_folder: Path) -> None:
    tokenizer = HFTokenizer(str(clip_folder), max_length=9)
    vocabulary = tiny_clip.clip_vocabulary()

    batch = tokenizer(CAPTIONS)

    last = batch['attention_mask'].sum(1) - 1
    assert (batch['input_ids'][:, 0] == vocabulary[tiny_clip.START]).all()
    ends = batch['input_ids'].gather(1, last[:, None])
    assert (ends == vocabulary[tiny_clip.END]).all()
    assert batch['input_ids'].shape == (len(CAPTIONS), 9)


def test_a_special_token_in_a_caption_is_text(clip_folder: Path) -> None:
    # It would end the caption before its end.
    tokenizer = HFTokenizer(str(clip_folder))
    end = tiny_clip.clip_vocabulary()[tiny_clip.END]

    ids = tokenizer([f'a man {tiny_clip.END} a red coat'])['input_ids'][0].tolist()

    assert ids.index(end) == len(ids) - 1


def test_it_travels_in_the_state_dict(
    clip_folder: Path, bert_folder: Path, tmp_path: Path
) -> None:
    for number, folder in enumerate((clip_folder, bert_folder)):
        tokenizer = HFTokenizer(str(folder), max_length=40)
        file = tmp_path / f'{number}.pth'
        torch.save(tokenizer.state_dict(), file)

        fresh = HFTokenizer('/nowhere', 40, vocab_size=tokenizer.vocab_size)
        assert not fresh.fitted
        fresh.load_state_dict(torch.load(file, weights_only=True))

        batch, expected = fresh(CAPTIONS), tokenizer(CAPTIONS)
        assert fresh.to_json() == tokenizer.to_json()
        assert torch.equal(batch['input_ids'], expected['input_ids'])
        assert torch.equal(batch['attention_mask'], expected['attention_mask'])


def test_with_a_size_it_is_read_when_needed(clip_folder: Path) -> None:
    size = len(tiny_clip.clip_vocabulary())
    eager = HFTokenizer(str(clip_folder))

    for use in (lambda one: one.fit(['left alone']), lambda one: one(['a man'])):
        waiting = HFTokenizer(str(clip_folder), vocab_size=size)
        assert not waiting.fitted
        use(waiting)
        assert waiting.to_json() == eager.to_json()


def test_a_vocabulary_that_is_too_large_is_refused(clip_folder: Path) -> None:
    size = len(tiny_clip.clip_vocabulary())

    with pytest.raises(InputError, match=rf'tiny-clip: has {size} tokens.*=100'):
        HFTokenizer(str(clip_folder), vocab_size=100)(['a man'])
    with pytest.raises(InputError, match=rf'checkpoint: has {size} tokens'):
        HFTokenizer(str(clip_folder), vocab_size=100).load_state_dict(
            HFTokenizer(str(clip_folder)).state_dict()
        )


def test_a_vocabulary_that_is_too_small_is_another_encoders(clip_folder: Path) -> None:
    size = len(tiny_clip.clip_vocabulary())
    HFTokenizer(str(clip_folder), vocab_size=size + 512)(['a man'])

    with pytest.raises(InputError, match=rf'{size} tokens, .* knows {size + 513} is'):
        HFTokenizer(str(clip_folder), vocab_size=size + 513)(['a man'])


def test_a_tokenizer_that_is_built_already(bert_folder: Path) -> None:
    built = transformers.AutoTokenizer.from_pretrained(bert_folder)

    tokenizer = HFTokenizer(built, max_length=20)

    expected = HFTokenizer(str(bert_folder), max_length=20)(CAPTIONS)
    assert torch.equal(tokenizer(CAPTIONS)['input_ids'], expected['input_ids'])
    with pytest.raises(InputError, match='the given tokenizer: object is no fast'):
        HFTokenizer(object())


def test_what_was_set_on_the_given_one_is_not_kept(bert_folder: Path) -> None:
    built = transformers.AutoTokenizer.from_pretrained(bert_folder)
    built.padding_side = 'left'
    built(['a man'], padding='max_length', max_length=30, truncation=True)

    batch = HFTokenizer(built)(['a man', 'a'])

    expected = HFTokenizer(str(bert_folder))(['a man', 'a'])
    assert torch.equal(batch['input_ids'], expected['input_ids'])


def test_without_start_and_end_an_empty_caption_is_one_token(bert_folder: Path) -> None:
    built = transformers.AutoTokenizer.from_pretrained(bert_folder)
    built.backend_tokenizer.post_processor = None

    batch = HFTokenizer(built)(['', 'a man'])

    assert batch['attention_mask'].sum(1).tolist() == [1, 2]


def test_captions_that_are_cut_are_counted_in_the_log_once(
    clip_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = HFTokenizer(str(clip_folder), max_length=10)
    logger = MMLogger.get_current_instance()
    level = logger.level  # that of the last run in this process
    logger.setLevel(logging.WARNING)
    logger.addHandler(caplog.handler)
    try:
        tokenizer(['a man', 'a red coat'])
        assert not caplog.records
        for _ in range(3):
            tokenizer(['a man', 'red ' * 9, 'red ' * 90, 'red ' * 8])
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(level)

    assert tokenizer.truncated == 6  # eight words, start and end are ten tokens
    (record,) = caplog.records
    assert '2 of the captions' in record.getMessage()
    assert '10 tokens' in record.getMessage()


def test_a_copy_is_a_copy(clip_folder: Path) -> None:
    tokenizer = HFTokenizer(str(clip_folder))

    twin = copy.deepcopy(tokenizer)

    assert torch.equal(twin(CAPTIONS)['input_ids'], tokenizer(CAPTIONS)['input_ids'])


def test_a_folder_of_a_model_alone(clip_folder: Path, tmp_path: Path) -> None:
    # transformers would make a vocabulary of start and end alone.
    for name in ('config.json', 'model.safetensors'):
        shutil.copy(clip_folder / name, tmp_path / name)

    with pytest.raises(InputError, match=r'holds no tokenizer.*vocab\.json'):
        HFTokenizer(str(tmp_path))


def test_a_tokenizer_json_that_does_not_pad(clip_folder: Path) -> None:
    from gckd_mm.models import WordPieceTokenizer

    other = WordPieceTokenizer()
    other.fit(['a man'])

    with pytest.raises(InputError, match='does not say which token pads'):
        HFTokenizer(str(clip_folder)).load_state_dict(other.state_dict())
