"""What an export loses: Rank-1 on a labelled test set."""

from __future__ import annotations

from gckd_mm.datasets.person_text import PersonTextDataset
from gckd_mm.evaluation import rank_metrics
from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.apis.encoder import Encoder


def rank_1(
    encoder: Encoder, images: PersonTextDataset, captions: PersonTextDataset
) -> float:
    """Return the Rank-1 of the two views of a test set, in percent."""
    inferencer = PersonSearchInferencer(encoder, show_progress=False)
    paths = [images.get_data_info(row)['img_path'] for row in range(len(images))]
    texts = [captions.get_data_info(row)['caption'] for row in range(len(captions))]
    metrics = rank_metrics(
        inferencer.encode_texts(texts),
        inferencer.encode_images(paths),
        captions.pids,
        images.pids,
        ks=(1,),
    )
    return metrics['R1']
