"""A word-piece tokenizer that travels inside the checkpoint."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import WordPieceTrainer

from gckd_mm.errors import InputError
from gckd_mm.models.tokenizers.base_tokenizer import BaseTokenizer
from gckd_mm.registry import MODELS

PAD, UNKNOWN, START, END = SPECIAL_TOKENS = ('[PAD]', '[UNK]', '[CLS]', '[SEP]')


@MODELS.register_module()
class WordPieceTokenizer(BaseTokenizer):
    """A vocabulary of word pieces, fitted on the training captions.

    Before training, :class:`FitTokenizerHook` fits one unless a checkpoint or ``file``
    has brought it. From then on it is part of the state dict, and a checkpoint alone
    can be tested.

    Args:
        vocab_size: Upper bound of the vocabulary, special tokens included; the text
            backbone's embedding must have at least as many rows. Defaults to 1500.
        max_length: Longer captions are cut to this many tokens, start and end
            included. Defaults to 77.
        file: A ``tokenizer.json`` to begin with. Defaults to None.
        alphabet_size: Letters that a fitted vocabulary knows; rarer ones, such as CJK
            in an English set, become unknown. Defaults to 100.

    Raises:
        InputError: If ``file`` is no tokenizer or larger than ``vocab_size``, or if
            ``max_length`` is below 2.
    """

    def __init__(
        self,
        vocab_size: int = 1500,
        max_length: int = 77,
        file: str | None = None,
        alphabet_size: int = 100,
    ) -> None:
        super().__init__(vocab_size, max_length)
        self.alphabet_size = alphabet_size
        if file is not None:
            if not os.path.isfile(file):
                raise InputError(f'tokenizer file {file} does not exist')
            self._load(Path(file).read_bytes(), file)

    def fit(self, captions: Iterable[str]) -> None:
        """Build the vocabulary from captions; the same captions give the same one."""
        vocabulary = _train_vocabulary(captions, self.vocab_size, self.alphabet_size)
        tokenizer = _blank_tokenizer(vocabulary)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f'{START} $A {END}',
            special_tokens=[(token, vocabulary[token]) for token in (START, END)],
        )
        self._load(tokenizer.to_str().encode(), 'the fitted tokenizer')

    def _padding_of(self, tokenizer: Tokenizer, where: str) -> int:
        padding = tokenizer.token_to_id(PAD)
        if padding is None:
            raise InputError(f'{where}: has no padding token {PAD}')
        tokenizer.no_padding()  # a batch is padded to its longest caption alone
        return padding


def _blank_tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    model = models.WordPiece(vocabulary, unk_token=UNKNOWN)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _train_vocabulary(
    captions: Iterable[str], size: int, alphabet_size: int
) -> dict[str, int]:
    """Train word pieces, the same in every process.

    `tokenizers` numbers the pieces of one letter in the order of a hash map that is
    seeded anew in every process, and breaks ties between merges by these numbers. Given
    as special tokens, the pieces have fixed numbers; the vocabulary is then taken out
    of that tokenizer, so that they are ordinary pieces again.
    """
    tokenizer = _blank_tokenizer({})
    normalised = [tokenizer.normalizer.normalize_str(caption) for caption in captions]
    letters = Counter(letter for caption in normalised for letter in caption)
    ranking = sorted(letters, key=lambda letter: (-letters[letter], letter))
    alphabet = sorted(
        letter for letter in ranking[:alphabet_size] if not letter.isspace()
    )
    rare = {ord(letter): ' ' for letter in set(letters) - set(alphabet)}
    trainer = WordPieceTrainer(
        vocab_size=size,
        special_tokens=[
            *SPECIAL_TOKENS,
            *alphabet,
            *(f'##{letter}' for letter in alphabet),
        ],
        show_progress=False,
    )
    with _one_thread():
        tokenizer.train_from_iterator(
            (caption.translate(rare) for caption in normalised), trainer
        )
    return tokenizer.get_vocab()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep `tokenizers` from starting threads: same counts, and safe to fork after."""
    name = 'TOKENIZERS_PARALLELISM'
    before = os.environ.get(name)
    os.environ[name] = 'false'
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
