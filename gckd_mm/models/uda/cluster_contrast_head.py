"""Contrast target samples with clusters of the target's images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, broadcast, get_rank, get_world_size
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.functional.reciprocal import close_pairs
from gckd_mm.models.gckd.memory import EmbeddingMemory
from gckd_mm.models.gckd.relations import MODALITIES
from gckd_mm.models.heads.contrastive_head import gather_with_gradient, identity_targets
from gckd_mm.models.uda.adaptation_head import (
    AdaptationHead,
    CrossDomainFeats,
)
from gckd_mm.models.uda.clusters import (
    capped_assignment,
    density_classes,
    independence_threshold,
    keep_reliable,
)
from gckd_mm.registry import MODELS

#: share of the clusters that are independent when the first are made
_INDEPENDENT = 0.9


class _Centroids(NamedTuple):
    feats: Tensor  # L2-normalised, (C, D)
    sizes: Tensor  # members of each, (C,)
    row_of_class: Tensor  # (memory's size + 1,), -1 for none, which the last always is


@MODELS.register_module()
class ClusterContrastHead(AdaptationHead):
    """Softmax contrast to the classes of a memory, whose target classes are clusters.

    Every ``refresh`` steps the target images held in a memory are clustered: DBSCAN
    over the Jaccard distance of k-reciprocal neighbours, and then only what is reliable
    of each cluster. An image outside all clusters is a class of its own. In between,

    - a target image learns to find the centroid of its class among the centroids of
      all classes, those of the source's persons included;
    - a source image learns to find its person's there;
    - a target caption learns to find the class that its most similar centroid gave it
      when the images were clustered, unless that class had captions enough.

    Memories are updated after the loss, so that no sample is compared with itself as it
    is now. Until the first clustering, which comes when every image of a batch is held
    already, when the memory is full or at step ``warmup``, all losses are 0. Works
    without target captions, which leaves their loss out.

    Args:
        embedding_size: D.
        memory_size: Rows of each of the three memories: at least as many as the source
            has persons, and the target images and captions.
        k1: Neighbours that may be reciprocal. Defaults to 30.
        k2: Samples over which their sets are averaged. Defaults to 6.
        eps: Jaccard distance within which images are neighbours, in (0, 1). Defaults to
            0.6.
        margin: By how much ``eps`` varies to see whether a cluster is reliable; 0
            trusts all of them. Defaults to 0.02.
        min_samples: Neighbours, itself counted, that an image needs to be the core of a
            cluster. Defaults to 4.
        refresh: Steps between two clusterings. Defaults to 50.
        warmup: The step at which the first one comes at the latest. Defaults to 50.
        memory_momentum: Share of itself that what a memory holds keeps in an update, in
            [0, 1). Defaults to 0.2.
        temperature: Divides the cosine similarities. Defaults to 0.05.
        capacity: Captions that a class takes, as a multiple of what its share of the
            images makes expect. Defaults to 1.
        source_weight: Of the source images' loss. Defaults to 1.
        caption_weight: Of the target captions' loss. Defaults to 1.
        loss_weight: See :class:`AdaptationHead`.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If a number is out of its range; from the first clustering, if
            scikit-learn is not installed.

    Source: Ge et al., *Self-paced Contrastive Learning with Hybrid Memory for Domain
    Adaptive Object Re-ID* (SpCL), NeurIPS 2020, for the images of both domains: its
    defaults but for ``refresh``, which is its epoch. Normalised centroids of clusters
    are as in Dai et al., *Cluster Contrast*, ACCV 2022. Source persons that enter the
    memory as they are seen, when the first clustering comes, and all that concerns
    captions are ours.
    """

    images_classes: Tensor
    images_keys: Tensor
    captions_classes: Tensor
    captions_keys: Tensor
    last_clustering: Tensor
    threshold: Tensor

    memories: Mapping[str, EmbeddingMemory]

    def __init__(
        self,
        embedding_size: int,
        memory_size: int,
        k1: int = 30,
        k2: int = 6,
        eps: float = 0.6,
        margin: float = 0.02,
        min_samples: int = 4,
        refresh: int = 50,
        warmup: int = 50,
        memory_momentum: float = 0.2,
        temperature: float = 0.05,
        capacity: float = 1.0,
        source_weight: float = 1.0,
        caption_weight: float = 1.0,
        loss_weight: float | dict = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_weight, init_cfg)
        self.embedding_size = embedding_size
        _check_at_least_1(k1=k1, k2=k2, min_samples=min_samples, refresh=refresh)
        if warmup < 0 or source_weight < 0 or caption_weight < 0:
            raise InputError(
                f'ClusterContrastHead: warmup, source_weight and caption_weight must '
                f'not be negative, got {warmup}, {source_weight} and {caption_weight}'
            )
        if not 0 <= margin < eps < 1 - margin:
            raise InputError(
                f'ClusterContrastHead: eps - margin and eps + margin must be between 0 '
                f'and 1, and margin not negative, got eps={eps} and margin={margin}'
            )
        if not 0 <= memory_momentum < 1:
            raise InputError(
                f'memory_momentum must be in [0, 1), got {memory_momentum}'
            )
        if temperature <= 0 or capacity <= 0:
            raise InputError(
                f'ClusterContrastHead: temperature and capacity must be positive, got '
                f'{temperature} and {capacity}'
            )
        self.k1 = k1
        self.k2 = k2
        self.eps = eps
        self.margin = margin
        self.min_samples = min_samples
        self.refresh = refresh
        self.warmup = warmup
        self.memory_momentum = memory_momentum
        self.temperature = temperature
        self.capacity = capacity
        self.source_weight = source_weight
        self.caption_weight = caption_weight
        self.memories = nn.ModuleDict(  # type: ignore[assignment] # maps as one
            {
                name: EmbeddingMemory(memory_size, embedding_size)
                for name in ('persons', *MODALITIES)
            }
        )
        for modality in MODALITIES:
            # The class of each slot of the memory, and of which sample it was found.
            self.register_buffer(f'{modality}_classes', torch.full((memory_size,), -1))
            self.register_buffer(f'{modality}_keys', torch.full((memory_size,), -1))
        self.register_buffer('last_clustering', torch.tensor(-1))
        # NaN until there are clusters.
        self.register_buffer('threshold', torch.tensor(math.nan))

    def reset(self) -> None:
        """Forget everything."""
        for name in ('persons', *MODALITIES):
            self.memories[name].reset()
        for modality in MODALITIES:
            self.get_buffer(f'{modality}_classes').fill_(-1)
            self.get_buffer(f'{modality}_keys').fill_(-1)
        self.last_clustering.fill_(-1)
        self.threshold.fill_(math.nan)

    def terms(self, feats: CrossDomainFeats, step: int) -> dict[str, Tensor]:
        """Return the losses of the batch of all ranks, and what describes the classes.

        Args:
            feats: See :class:`CrossDomainFeats`.
            step: Step of the adaptation, from 0.

        Returns:
            ``loss_cluster_source``, ``loss_cluster_images`` and, if the target has
            captions, ``loss_cluster_captions``; and ``clusters`` (their number),
            ``clustered_images`` (share of the batch's images that are in one) and
            ``labelled_captions`` (share of its captions that have a class).
        """
        modalities = [each for each in MODALITIES if each in feats.target]
        with torch.autocast(feats.source['images'].device.type, enabled=False):
            source = gather_with_gradient(feats.source['images']).float()
            pids = torch.cat(all_gather(feats.pids))
            target = {
                modality: gather_with_gradient(feats.target[modality]).float()
                for modality in modalities
            }
            keys = {
                modality: torch.cat(all_gather(feats.keys[modality]))
                for modality in modalities
            }
            if self._is_due(keys['images'], step):
                self._cluster(step)
            terms = self._contrasts(source, pids, target, keys)
            self._remember('persons', source, pids)
            for modality in modalities:
                self._remember(modality, target[modality], keys[modality])
        return terms

    def _contrasts(
        self,
        source: Tensor,
        pids: Tensor,
        target: dict[str, Tensor],
        keys: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        centroids = self._centroids()
        persons = self.memories['persons']
        classes = torch.cat([centroids.feats, persons.feats])
        labels = {
            modality: centroids.row_of_class[self._classes_of(modality, each)]
            for modality, each in keys.items()
        }
        person = _rows_of(persons, pids)
        person = torch.where(person < 0, -1, len(centroids.feats) + person)
        if self.last_clustering < 0:
            person = torch.full_like(person, -1)

        terms = {
            'loss_cluster_source': self.source_weight
            * self._contrast(source, classes, person),
            'loss_cluster_images': self._contrast(
                target['images'], classes, labels['images']
            ),
            'clusters': (centroids.sizes > 1).sum().float(),
            'clustered_images': (F.pad(centroids.sizes, (0, 1))[labels['images']] > 1)
            .float()
            .mean(),
        }
        if 'captions' in target:
            loss = self._contrast(target['captions'], classes, labels['captions'])
            terms['loss_cluster_captions'] = self.caption_weight * loss
            terms['labelled_captions'] = (labels['captions'] >= 0).float().mean()
        return terms

    def _contrast(self, feats: Tensor, classes: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of the rows whose label is not -1, or 0."""
        if not len(classes):
            return 0 * feats.sum()
        logits = feats @ classes.t() / self.temperature
        total = F.cross_entropy(logits, labels, ignore_index=-1, reduction='sum')
        return total / (labels >= 0).sum().clamp_min(1)

    def _is_due(self, image_keys: Tensor, step: int) -> bool:
        memory = self.memories['images']
        if not len(memory):
            return False
        if self.last_clustering >= 0:
            return step >= int(self.last_clustering) + self.refresh
        complete = len(memory) == memory.size or bool(
            (_rows_of(memory, image_keys) >= 0).all()
        )
        return complete or step >= self.warmup

    @torch.no_grad()
    def _cluster(self, step: int) -> None:
        images, captions = self.memories['images'], self.memories['captions']
        radii = (self.eps, self.eps - self.margin, self.eps + self.margin)
        pairs = close_pairs(images.feats.cpu(), self.k1, self.k2, max(radii))
        classes, tight, loose = (
            density_classes(pairs, len(images), radius, self.min_samples)
            for radius in radii
        )
        if self.threshold.isnan():
            self.threshold.fill_(independence_threshold(classes, loose, _INDEPENDENT))
            broadcast(self.threshold)
        reliable = keep_reliable(classes, tight, loose, float(self.threshold))
        self._note('images', reliable)
        if len(captions):
            centroids = self._centroids()
            assigned = capped_assignment(
                captions.feats, centroids.feats, centroids.sizes, self.capacity
            )
            self._note('captions', assigned)
        self.last_clustering.fill_(step)

    def _note(self, modality: str, classes: Tensor) -> None:
        memory = self.memories[modality]
        self.get_buffer(f'{modality}_classes')[: len(classes)] = classes
        self.get_buffer(f'{modality}_keys')[: len(classes)] = memory.keys
        # Ranks on unlike machines may round a distance to either side of eps.
        broadcast(self.get_buffer(f'{modality}_classes'))

    @torch.no_grad()
    def _centroids(self) -> _Centroids:
        """Return the classes of which the memory holds images, in their order."""
        memory = self.memories['images']
        classes = self._classes('images')
        held = classes >= 0
        present, rows, sizes = classes[held].unique(
            return_inverse=True, return_counts=True
        )
        sums = memory.feats.new_zeros(len(present), memory.dim)
        sums.index_add_(0, rows, memory.feats[held])
        row_of_class = torch.full((memory.size + 1,), -1, device=rows.device)
        row_of_class[present] = torch.arange(len(present), device=rows.device)
        return _Centroids(F.normalize(sums, dim=1), sizes, row_of_class)

    def _classes(self, modality: str) -> Tensor:
        """Return the class of each row of a memory, -1 for those that came since."""
        keys = self.memories[modality].keys
        classes = self.get_buffer(f'{modality}_classes')[: len(keys)]
        return classes.where(
            self.get_buffer(f'{modality}_keys')[: len(keys)] == keys, -1
        )

    def _classes_of(self, modality: str, keys: Tensor) -> Tensor:
        """Return the class of each sample, shape (N,), -1 where unknown."""
        rows = _rows_of(self.memories[modality], keys)
        return F.pad(self._classes(modality), (0, 1), value=-1)[rows]

    @torch.no_grad()
    def _remember(self, name: str, feats: Tensor, keys: Tensor) -> None:
        """Mix the batch of all ranks into a memory, rows of one key as their mean."""
        memory = self.memories[name]
        rows = _rows_of(memory, keys)
        new = identity_targets(keys) @ feats
        momentum = self.memory_momentum * (rows >= 0).float()[:, None]
        mixed = momentum * memory.slot_feats[rows.clamp_min(0)] + (1 - momentum) * new
        # The memory itself gathers what each rank gives it.
        own = (part.chunk(get_world_size())[get_rank()] for part in (mixed, keys))
        feats, keys = own
        memory.push(F.normalize(feats, dim=1), keys)


def _rows_of(memory: EmbeddingMemory, keys: Tensor) -> Tensor:
    """Return the row of each sample in a memory, shape (N,), -1 where it is not."""
    if not len(memory):
        return torch.full_like(keys, -1)
    held, rows = memory.keys.sort()
    places = torch.searchsorted(held, keys).clamp(max=len(held) - 1)
    return torch.where(held[places] == keys, rows[places], -1)


def _check_at_least_1(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InputError(
                f'ClusterContrastHead: {name} must be at least 1, got {count}'
            )
