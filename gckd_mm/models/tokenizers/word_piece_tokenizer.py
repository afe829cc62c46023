"""A word-piece tokenizer that travels inside the checkpoint."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import WordPieceTrainer
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.registry import MODELS

PAD, UNKNOWN, START, END = SPECIAL_TOKENS = ('[PAD]', '[UNK]', '[CLS]', '[SEP]')


@MODELS.register_module()
class WordPieceTokenizer(nn.Module):
    """Captions to padded token ids, with a vocabulary that is part of the state dict.

    The vocabulary belongs to the weights that were trained with it. It is therefore
    saved and loaded with them (as the bytes of a Hugging Face ``tokenizer.json``), and
    a checkpoint alone can be tested. Before training, :class:`FitTokenizerHook` fits
    one on the training captions unless a checkpoint or ``file`` has brought it.

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
        super().__init__()
        if max_length < 2:
            raise InputError(
                f'max_length counts start and end: at least 2, got {max_length}'
            )
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.alphabet_size = alphabet_size
        self._tokenizer: Tokenizer | None = None
        if file is not None:
            if not os.path.isfile(file):
                raise InputError(f'tokenizer file {file} does not exist')
            self._load(Path(file).read_bytes(), file)

    @property
    def fitted(self) -> bool:
        """Whether there is a vocabulary."""
        return self._tokenizer is not None

    def fit(self, captions: Iterable[str]) -> None:
        """Build the vocabulary from captions; the same captions give the same one."""
        vocabulary = _train_vocabulary(captions, self.vocab_size, self.alphabet_size)
        tokenizer = _blank_tokenizer(vocabulary)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f'{START} $A {END}',
            special_tokens=[(token, vocabulary[token]) for token in (START, END)],
        )
        self._load(tokenizer.to_str().encode(), 'the fitted tokenizer')

    def forward(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Tokenise a batch, padded to its longest caption.

        Args:
            captions: N >= 1 strings; an empty one becomes start and end alone.

        Returns:
            ``input_ids``, shape (N, L), int64, and ``attention_mask``, shape (N, L),
            bool, False on padding.

        Raises:
            InputError: If there is no vocabulary yet.
            ValueError: If there are no captions.
        """
        if not captions:
            raise ValueError('there are no captions to tokenise')
        if self._tokenizer is None:
            raise InputError(
                'the tokenizer has no vocabulary: load a checkpoint, set its `file`, '
                'or set default_hooks.tokenizer=dict(type="FitTokenizerHook")'
            )
        # One by one: `encode_batch` starts threads, which the loader's later forks
        # would break.
        rows = [self._tokenizer.encode(caption).ids for caption in captions]
        longest = max(len(row) for row in rows)
        padding = self._tokenizer.token_to_id(PAD)
        ids = torch.tensor([row + [padding] * (longest - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(longest)[None, :] < lengths[:, None]
        return {'input_ids': ids, 'attention_mask': mask}

    def to_json(self) -> str:
        """Return the text of a Hugging Face ``tokenizer.json``; empty if unfitted."""
        return '' if self._tokenizer is None else self._tokenizer.to_str()

    def get_extra_state(self) -> Tensor:
        """Return the vocabulary for the state dict: UTF-8 bytes, shape (B,), uint8."""
        data = np.frombuffer(self.to_json().encode(), dtype=np.uint8)
        return torch.from_numpy(data.copy())

    def set_extra_state(self, state: Tensor) -> None:
        """Take the vocabulary out of a state dict."""
        data = state.cpu().numpy().tobytes()
        if data:
            self._load(data, 'the tokenizer in the checkpoint')

    def extra_repr(self) -> str:
        """Describe the module."""
        size = self._tokenizer.get_vocab_size() if self._tokenizer else 0
        return (
            f'vocab_size={self.vocab_size}, max_length={self.max_length}, fitted={size}'
        )

    def _load(self, data: bytes, where: str) -> None:
        try:
            tokenizer = Tokenizer.from_buffer(data)
        # `tokenizers` raises plain Exceptions.
        except Exception as error:
            raise InputError(f'{where}: not a tokenizer.json ({error})') from error
        if tokenizer.get_vocab_size() > self.vocab_size:
            raise InputError(
                f'{where}: has {tokenizer.get_vocab_size()} tokens, more than '
                f'vocab_size={self.vocab_size}'
            )
        if tokenizer.token_to_id(PAD) is None:
            raise InputError(f'{where}: has no padding token {PAD}')
        tokenizer.no_padding()  # a batch is padded to its longest caption alone
        tokenizer.enable_truncation(self.max_length)
        self._tokenizer = tokenizer


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
