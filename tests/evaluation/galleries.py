"""Made-up galleries with captions, for the tests of re-ranking."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.evaluation import top_matches


class Searched(NamedTuple):
    """A gallery of people with four images each, and what captions of them find.

    Attributes:
        queries: L2-normalised, shape (Q, D).
        gallery: L2-normalised, shape (N, D).
        order: Gallery rows, best first, shape (Q, K).
        similarity: Of these, shape (Q, K), float64: what is scaled and exponentiated
            shows no rounding.
    """

    queries: Tensor
    gallery: Tensor
    order: Tensor
    similarity: Tensor


def searched(num_images: int, num_queries: int, top: int) -> Searched:
    """Return captions that lie further from their people than images do."""
    people = F.normalize(torch.randn(-(-num_images // 4), 8), dim=1)
    images = people.repeat_interleave(4, 0)[:num_images]
    gallery = F.normalize(images + 0.2 * torch.randn(num_images, 8), dim=1)
    captions = people[torch.arange(num_queries) % len(people)] + 0.4
    queries = F.normalize(captions + 0.3 * torch.randn(num_queries, 8), dim=1)
    order, similarity = top_matches(
        queries.double().numpy(), gallery.double().numpy(), top
    )
    found = torch.from_numpy(order), torch.from_numpy(similarity)
    return Searched(queries, gallery, *found)


def seeds_of(similarity: Tensor, seeds: int, temperature: float) -> np.ndarray:
    """Return the weights of one query's first images, by loops."""
    s = similarity.tolist()
    relative = [(each - s[-1]) / (s[0] - s[-1]) for each in s]
    raw = np.array([np.exp(each / temperature) for each in relative[:seeds]])
    return raw / raw.sum()
