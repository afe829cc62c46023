"""The tokenizer of a pretrained text encoder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer

from gckd_mm.errors import InputError
from gckd_mm.models.hugging_face import read_tokenizer
from gckd_mm.models.tokenizers.base_tokenizer import BaseTokenizer
from gckd_mm.registry import MODELS

#: by which a published embedding may exceed its vocabulary, for the sake of GPUs
SPARE_ROWS = 512


@MODELS.register_module()
class HFTokenizer(BaseTokenizer):
    """A tokenizer of Hugging Face, CLIP's or BERT's, that travels in the checkpoint.

    It gives the ids that transformers' own gives, and does without transformers once a
    checkpoint has brought it.

    Args:
        pretrained: A folder that transformers' ``save_pretrained`` wrote (CLIP's may
            hold ``vocab.json`` and ``merges.txt`` alone), a name on the hub such as
            ``'openai/clip-vit-base-patch16'``, or a tokenizer of transformers. With
            ``vocab_size`` it is only read when it is needed: a checkpoint is then
            tested where the folder is not.
        max_length: Longer captions are cut to this many tokens, start and end
            included; the text encoder must have as many positions. Defaults to 77,
            CLIP's.
        vocab_size: Rows of the text encoder's embedding, such as 49408 for CLIP and
            30522 for BERT. None, the default, reads ``pretrained`` at once and takes
            its size.

    Raises:
        InputError: If there is no such tokenizer, it is larger than ``vocab_size`` or
            too small to be of that encoder, or ``max_length`` is below 2.
    """

    def __init__(
        self,
        pretrained: str | Any,
        max_length: int = 77,
        vocab_size: int | None = None,
    ) -> None:
        super().__init__(vocab_size or 0, max_length)
        self._pretrained = pretrained
        if vocab_size is None or not isinstance(pretrained, str):
            tokenizer = self._read()
            self.vocab_size = vocab_size or _rows(tokenizer)
            self._take(tokenizer)

    def fit(self, captions: Iterable[str] = ()) -> None:
        """Read the vocabulary; the captions are not looked at."""
        self._take(self._read())

    def _vocabulary(self) -> Tokenizer:
        if not self.fitted:
            self.fit()
        return super()._vocabulary()

    def _load(self, data: bytes, where: str) -> None:
        super()._load(data, where)
        rows = _rows(self._tokenizer)
        if rows < self.vocab_size - SPARE_ROWS:
            raise InputError(
                f'{where}: has {rows} tokens, and the text encoder that knows '
                f'{self.vocab_size} is trained with another; name its own'
            )

    def _read(self) -> Any:
        given = self._pretrained
        tokenizer = read_tokenizer(given) if isinstance(given, str) else given
        if not isinstance(getattr(tokenizer, 'backend_tokenizer', None), Tokenizer):
            raise InputError(
                f'{self._where()}: {type(tokenizer).__name__} is no fast tokenizer of '
                f'transformers, and only those can travel in a checkpoint'
            )
        return tokenizer

    def _take(self, tokenizer: Any) -> None:
        # Not in a tokenizer.json of itself: which token pads.
        padding = tokenizer.pad_token_id
        if padding is None:
            padding = tokenizer.eos_token_id or 0  # the attention mask hides it
        data = tokenizer.backend_tokenizer.to_str()
        backend = Tokenizer.from_str(data)
        backend.enable_padding(
            pad_id=padding, pad_token=tokenizer.convert_ids_to_tokens(padding)
        )
        self._load(backend.to_str().encode(), self._where())

    def _where(self) -> str:
        given = self._pretrained
        return given if isinstance(given, str) else 'the given tokenizer'

    def _padding_of(self, tokenizer: Tokenizer, where: str) -> int:
        padding = tokenizer.padding
        if padding is None:
            raise InputError(
                f'{where}: does not say which token pads; take it from the folder of '
                f'its model'
            )
        return padding['pad_id']


def _rows(tokenizer: Any) -> int:
    """Return how many rows an embedding needs: ids may have gaps."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1
