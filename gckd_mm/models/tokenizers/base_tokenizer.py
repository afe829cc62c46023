"""What every tokenizer does: pad, cut, and travel inside the checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from mmengine.logging import print_log
from tokenizers import Tokenizer
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.tokenizers.caption_reading import CaptionReading, read_encoding


class BaseTokenizer(nn.Module):
    """Captions to padded token ids, with a vocabulary that is part of the state dict.

    The vocabulary belongs to the weights that were trained with it. It is therefore
    saved and loaded with them (as the bytes of a Hugging Face ``tokenizer.json``), and
    a checkpoint alone can be tested.

    A caption is text and nothing else: what looks like a special token in it is spelled
    out.

    Args:
        vocab_size: Upper bound of the vocabulary, special tokens included; the text
            backbone's embedding must have at least as many rows.
        max_length: Longer captions are cut to this many tokens, start and end
            included. The first batch that has any is counted in the log.

    Raises:
        InputError: If ``max_length`` is below 2.
    """

    def __init__(self, vocab_size: int, max_length: int) -> None:
        super().__init__()
        if max_length < 2:
            raise InputError(
                f'max_length counts start and end: at least 2, got {max_length}'
            )
        self.vocab_size = vocab_size
        self.max_length = max_length
        #: captions cut so far, in this process
        self.truncated = 0
        self._tokenizer: Tokenizer | None = None
        self._padding = 0

    @property
    def fitted(self) -> bool:
        """Whether there is a vocabulary."""
        return self._tokenizer is not None

    def fit(self, captions: Iterable[str]) -> None:
        """Get a vocabulary, before training without one."""
        raise NotImplementedError

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
        tokenizer = self._vocabulary()
        # One by one: `encode_batch` starts threads, which the loader's later forks
        # would break.
        encodings = [tokenizer.encode(caption) for caption in captions]
        self._count(sum(bool(encoding.overflowing) for encoding in encodings))
        # Without start and end an empty caption would have nothing to attend to.
        rows = [encoding.ids or [self._padding] for encoding in encodings]
        longest = max(len(row) for row in rows)
        ids = torch.tensor(
            [row + [self._padding] * (longest - len(row)) for row in rows]
        )
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(longest)[None, :] < lengths[:, None]
        return {'input_ids': ids, 'attention_mask': mask}

    def read(self, caption: str) -> CaptionReading:
        """Tell which words of a caption are known, and where it is cut.

        See :func:`~gckd_mm.models.tokenizers.caption_reading.read_encoding`.

        Raises:
            InputError: If there is no vocabulary yet.
        """
        tokenizer = self._vocabulary()
        unknown_token = getattr(tokenizer.model, 'unk_token', None)
        return read_encoding(caption, tokenizer.encode(caption), unknown_token)

    def unknown_words(self, caption: str) -> list[str]:
        """Return the words of a caption that the vocabulary does not know."""
        return self.read(caption).unknown

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

    def _vocabulary(self) -> Tokenizer:
        if self._tokenizer is None:
            raise InputError(
                'the tokenizer has no vocabulary: load a checkpoint, set its `file`, '
                'or set default_hooks.tokenizer=dict(type="FitTokenizerHook")'
            )
        return self._tokenizer

    def _padding_of(self, tokenizer: Tokenizer, where: str) -> int:
        """Return the id to pad with.

        Raises:
            InputError: If the tokenizer has none.
        """
        raise NotImplementedError

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
        self._padding = self._padding_of(tokenizer, where)
        tokenizer.encode_special_tokens = True
        tokenizer.enable_truncation(self.max_length)
        self._tokenizer = tokenizer

    def _count(self, truncated: int) -> None:
        if truncated and not self.truncated:
            print_log(
                f'{truncated} of the captions of a batch are longer than '
                f'{self.max_length} tokens and are cut; this is said once',
                logger='current',
                level=logging.WARNING,
            )
        self.truncated += truncated
