"""A test set of made-up embeddings whose images are plain colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gckd_mm.evaluation.metrics import Embeddings
from gckd_mm.visualization.searched_set import SearchedSet


class Items:
    """As much of a dataset as pictures ask for."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self.items = items

    def get_data_info(self, index: int) -> dict[str, Any]:
        return self.items[index]


def searched_set(
    folder: Path,
    scores: list[list[float]],
    query_pids: list[int],
    image_pids: list[int],
    captions: list[str] | None = None,
    name: str = 'mall',
    prefix: str = '',
) -> SearchedSet:
    """Return a test set in which caption q has similarity ``scores[q][g]`` to image g.

    Image g has the colour (10 · g, 0, 0); captions are ``'caption <q>'``.
    """
    folder.mkdir(exist_ok=True)
    names = [f'{prefix}image_{number}.png' for number in range(len(image_pids))]
    paths = [str(folder / file) for file in names]
    for number, path in enumerate(paths):
        Image.new('RGB', (24, 48), (10 * number, 0, 0)).save(path)
    captions = captions or [f'caption {q}' for q in range(len(query_pids))]
    # One dimension an image: a product with the identity is the score.
    images = np.eye(len(image_pids), dtype=np.float32)
    return SearchedSet(
        name,
        Items([{'img_path': path} for path in paths]),
        Items([{'caption': caption} for caption in captions]),
        Embeddings(images, np.array(image_pids), np.arange(len(image_pids))),
        Embeddings(
            np.array(scores, np.float32), np.array(query_pids), np.arange(len(scores))
        ),
    )
