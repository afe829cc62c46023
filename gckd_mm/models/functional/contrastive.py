"""Identity-aware contrastive losses of one batch, as pure functions in float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_EPSILON = 1e-8


def identity_targets(pids: Tensor) -> Tensor:
    """Return the true matching distribution of a batch of pairs.

    Args:
        pids: Person ids, shape (N,).

    Returns:
        Shape (N, N), float32: q_ij = 1[y_i = y_j] / |{j : y_j = y_i}|. Rows sum to 1,
        and the matrix is symmetric.
    """
    same = pids[:, None] == pids[None, :]
    return same.float() / same.sum(dim=1, keepdim=True)


def info_nce(
    image_feats: Tensor,
    caption_feats: Tensor,
    pids: Tensor,
    temperature: float | Tensor,
) -> Tensor:
    """Identity-aware InfoNCE: cross-entropy to all pairs of the same person.

    With pairwise different ids it is CLIP's loss. Computed in float32, under autocast
    too.

    Args:
        image_feats: L2-normalised, shape (N, D).
        caption_feats: L2-normalised, shape (N, D); row i belongs to image i.
        pids: Person ids, shape (N,).
        temperature: Divides the cosine similarities.

    Returns:
        Scalar: the mean over the batch and over both directions.

    Source: Radford et al., *CLIP*, ICML 2021, fig. 3; the identity-aware targets as in
    DESIGN §3, eq. 1 without memory (ours).
    """
    with _float32(image_feats):
        logits = image_feats.float() @ caption_feats.float().t() / temperature
        targets = identity_targets(pids)
        image_to_text = F.cross_entropy(logits, targets)
        text_to_image = F.cross_entropy(logits.t(), targets)
        return (image_to_text + text_to_image) / 2


def sdm_loss(
    image_feats: Tensor,
    caption_feats: Tensor,
    pids: Tensor,
    temperature: float | Tensor,
) -> Tensor:
    """Similarity distribution matching: KL(p ‖ q) in both directions.

    p is the softmax of the similarities over the batch, q the true matching
    distribution (:func:`identity_targets`). Computed in float32, under autocast too.

    Args:
        image_feats: L2-normalised, shape (N, D).
        caption_feats: L2-normalised, shape (N, D); row i belongs to image i.
        pids: Person ids, shape (N,).
        temperature: Divides the cosine similarities.

    Returns:
        Scalar: mean over the batch, summed over both directions.

    Source: Jiang and Ye, *Cross-Modal Implicit Relation Reasoning and Aligning for
    Text-to-Image Person Retrieval* (IRRA), CVPR 2023, eq. 5 and 6, ε = 1e-8.
    """
    with _float32(image_feats):
        logits = image_feats.float() @ caption_feats.float().t() / temperature
        log_targets = torch.log(identity_targets(pids) + _EPSILON)
        return _kl_to(log_targets, logits) + _kl_to(log_targets, logits.t())


def _kl_to(log_targets: Tensor, logits: Tensor) -> Tensor:
    log_p = F.log_softmax(logits, dim=1)
    return (log_p.exp() * (log_p - log_targets)).sum(dim=1).mean()


def _float32(like: Tensor) -> torch.autocast:
    return torch.autocast(like.device.type, enabled=False)
