"""Which words a vocabulary knows."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gckd_mm.models import HFTokenizer, WordPieceTokenizer
from gckd_mm.models.tokenizers.base_tokenizer import BaseTokenizer
from gckd_mm.models.tokenizers.caption_reading import CaptionReading
from gckd_mm.search.apis.torch_encoder import TorchEncoder

tiny_clip = pytest.importorskip('tests.models.tiny_clip')


@pytest.fixture(scope='module', params=['gckd_street2mall', 'synthclip_tiny_web'])
def packaged(request: pytest.FixtureRequest) -> BaseTokenizer:
    encoder = TorchEncoder.read(f'gckd_mm://{request.param}', device='cpu')
    return encoder.model.data_preprocessor.tokenizer


@pytest.mark.parametrize(
    'caption',
    [
        'a woman in a red coat with a white backpack',
        'two men and two women wearing blue jeans and sneakers',
        'A young lady: grey hoodies, BLACK trousers (cropped), no hat.',
        'a man with a blakc bakpack and a yelow jaket',
        'he carries his handbags & sunglasses; long-sleeved shirt',
    ],
)
def test_ordinary_sentences_are_known(packaged: BaseTokenizer, caption: str) -> None:
    assert packaged.unknown_words(caption) == []


@pytest.mark.parametrize(
    ('caption', 'unknown'),
    [
        ('xqzt', ['xqzt']),
        ('a man in asdfgh, qwerty', ['asdfgh', 'qwerty']),
        ('一个穿红色外套的女人', ['一个穿红色外套的女人']),
        ('a 红色 coat 🙂🎒 a 红色', ['红色', '🙂🎒']),
        ('человек, красный', ['человек', 'красный']),
        ('backpack一个', ['一个']),
        ('number 10', ['10']),
        ('a' * 150, ['a' * 150]),
        ('', []),
        ('!!! ... \u200b', []),
    ],
)
def test_unknown_words_are_named(
    packaged: BaseTokenizer, caption: str, unknown: list[str]
) -> None:
    assert packaged.unknown_words(caption) == unknown


def test_of_random_letters_most_are_named_and_of_plurals_none(
    packaged: BaseTokenizer,
) -> None:
    rng = random.Random(0)
    letters = 'abcdefghijklmnopqrstuvwxyz'
    noise = [''.join(rng.choices(letters, k=rng.randint(4, 9))) for _ in range(500)]
    named = sum(bool(packaged.unknown_words(word)) for word in noise)
    assert named > 0.85 * len(noise)
    for thing in ('coat', 'backpack', 'shirt', 'scarf', 'handbag', 'jacket', 'boot'):
        assert packaged.unknown_words(f'{thing}s') == []


_WORDS = """
at next beside it boy girl adult student old tall aged young walks pushing standing
rides socks helmet gloves belt pocket earrings mask moustache beard ponytail glasses
watch apron left side bottom front face legs foot feet body wrist waist knee puffy
fluffy striped floral text number bicycle bike dog newspaper bus stop stairs wall door
day rain snow bridge taxi navy khaki beige turquoise maroon olive cream purple camera
phone umbrella suitcase trolley jumper parka blazer kimono hijab bouquet lanyard suede
velvet corduroy denim knitted baggy child toddler elderly slim heavy bald blonde curly
braid headphones scooter wheelchair
"""
_NOISE = """
qxzvkw asdfgh qwerty zxcvbn asdf qwer hjkl fghj dfgh sdfg xcvb lkjh mnbv wqeqwe zzzzzz
xxxxx ghjkl tyuio vbnm rtyu aaaaaa kjhkjh sdlkfj wxyz bvnmxc qazwsx jfjfjf hhhh trgfd
QWERTY
"""


def test_ordinary_words_are_told_from_noise(packaged: BaseTokenizer) -> None:
    named = [word for word in _WORDS.split() if packaged.unknown_words(word)]
    missed = [word for word in _NOISE.split() if not packaged.unknown_words(word)]
    assert (named, missed) == ([], [])


def test_a_caption_is_read_up_to_where_it_is_cut() -> None:
    tokenizer = WordPieceTokenizer(max_length=5)
    tokenizer.fit(['a man in a red coat'])
    assert tokenizer.read('a man in') == CaptionReading(3, [], None)
    assert tokenizer.read('a man in a red coat') == CaptionReading(3, [], 8)


def test_a_byte_level_vocabulary_spells_other_scripts(tmp_path: Path) -> None:
    folder = tiny_clip.write_clip_tokenizer(tmp_path / 'bpe')
    tokenizer = HFTokenizer(str(folder), vocab_size=len(tiny_clip.clip_vocabulary()))
    assert tokenizer.unknown_words('man red coat') == []
    caption = 'man 红色外套 красный 🙂'
    assert tokenizer.unknown_words(caption) == ['红色外套', 'красный', '🙂']
