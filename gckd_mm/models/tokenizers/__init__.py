"""Tokenizers: modules, so that they are saved with the weights."""

from gckd_mm.models.tokenizers.word_piece_tokenizer import WordPieceTokenizer

__all__ = ['WordPieceTokenizer']
