"""Rank-1 of an encoder on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DefaultScope

from gckd_mm.registry import DATASETS
from gckd_mm.search.export.scores import rank_1
from tests.search.gallery.fakes import embedding


def of_picture(path: str) -> np.ndarray:
    return embedding(f'x{Path(path).name}'.encode())


class FakeEncoder:
    """Embeds captions by their words, and pictures by their names."""

    name, source, fingerprint, embedding_size = 'fake', None, '', 8

    def prepare(self, image: str) -> np.ndarray:
        return of_picture(image)

    def embed_images(self, prepared: list[np.ndarray]) -> np.ndarray:
        return np.stack(prepared)

    def embed_captions(self, captions: list[str]) -> np.ndarray:
        return np.stack([embedding(caption.encode()) for caption in captions])


def test_rank_1_is_the_share_of_right_first_matches(miniature: Path) -> None:
    def dataset(view: str) -> Any:
        root = str(miniature / 'rstpreid')
        settings = dict(type='RSTPReid', data_root=root, split='test', view=view)
        with DefaultScope.overwrite_default_scope('gckd_mm'):
            return DATASETS.build(dict(settings, pipeline=[]))

    images, captions = dataset('images'), dataset('captions')
    right = 0
    infos = [images.get_data_info(row) for row in range(len(images))]
    gallery = [of_picture(info['img_path']) for info in infos]
    for query in range(len(captions)):
        words = captions.get_data_info(query)
        feat = embedding(words['caption'].encode())
        best = int(np.argmax([feat @ other for other in gallery]))
        right += infos[best]['pid'] == words['pid']
    assert right > 0
    expected = 100 * right / len(captions)
    assert rank_1(FakeEncoder(), images, captions) == expected  # type: ignore[arg-type]
