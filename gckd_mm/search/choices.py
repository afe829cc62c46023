"""What a user chooses from, in the shell and in Python; importing it costs nothing."""

from __future__ import annotations

#: of the index of a gallery
INDEX_KINDS = ('auto', 'exact', 'hnsw', 'ivf')
#: by the matching head of the model, which must have been trained with one
MATCHING = 'matching'
RERANK_METHODS = (MATCHING, 'k_reciprocal', 'propagation')
