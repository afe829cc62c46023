"""Tokenizers: modules, so that they are saved with the weights."""

from gckd_mm.models.tokenizers.hf_tokenizer import HFTokenizer
from gckd_mm.models.tokenizers.word_piece_tokenizer import WordPieceTokenizer

__all__ = ['HFTokenizer', 'WordPieceTokenizer']
