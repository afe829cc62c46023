"""Adapt a model by the target's batch statistics alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from gckd_mm.datasets.collate import collate_person_text
from gckd_mm.datasets.draw import Draw
from gckd_mm.datasets.person_text import PersonTextDataset
from gckd_mm.engine.evaluation_guard import evaluating
from gckd_mm.errors import InputError
from gckd_mm.model_wrapper import unwrapped
from gckd_mm.models.retrievers.towers import TwoTowers
from gckd_mm.registry import DATASETS, HOOKS


@HOOKS.register_module()
class AdaBNHook(Hook):
    """Replace the statistics of all batch normalisations by those of the target.

    After the last iteration, before anything of it is logged, scored or saved, the
    encoders and necks embed once every training sample of the target. Each layer
    forgets its running mean and variance and takes the average of those of its batches.
    No weight changes, and of the target nothing but images and captions is used.

    Every rank embeds the whole target: all end with the statistics that one process
    ends with. The samples are shuffled, since an annotation file lists a person's
    images together, and a batch of few people has too small a variance. Only the model
    itself is adapted, not a teacher within it.

    Args:
        target: Config of the target's training dataset, whose pipeline should be that
            of the test's images: no augmentation. Its ``view`` is set here. Captions,
            which go as they are, are asked of it only if the text encoder has batch
            normalisations.
        batch_size: The most samples of a batch; batches differ in size by 1 at most, so
            that all samples count the same.

    Source: Li et al., *Revisiting Batch Normalization for Practical Domain Adaptation*,
    2016, and in Pattern Recognition, 2018, as *Adaptive Batch Normalization …*. The
    average over the batches of one pass is ours.
    """

    # After AdaptationHook (HIGH), before the log (BELOW_NORMAL), the probes (LOW) and
    # the checkpoint (VERY_LOW).
    priority = 'NORMAL'

    def __init__(self, target: dict, batch_size: int = 64) -> None:
        if batch_size < 2:
            raise InputError(
                f'AdaBNHook: a batch of {batch_size} has no variance; batch_size must '
                f'be at least 2'
            )
        self._target = target
        self._batch_size = batch_size
        self._datasets: dict[str, PersonTextDataset] = {}

    def before_train(self, runner: Runner) -> None:
        """Find the layers and read the target, so that a mistake is known now."""
        model = unwrapped(runner.model)
        layers = _batch_norms(model)
        if not any(layers.values()):
            raise InputError(
                f'AdaBNHook: {type(model).__name__} has no batch normalisation with '
                f'running statistics in its encoders and necks: there is nothing to '
                f'adapt. Remove the hook, or choose a backbone with BatchNorm'
            )
        for modality, found in layers.items():
            if found:
                self._datasets[modality] = _build_target(self._target, modality)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Adapt the model after the last iteration."""
        if not self.is_last_train_iter(runner):
            return
        model = unwrapped(runner.model)
        layers = _batch_norms(model)
        for modality, dataset in self._datasets.items():
            batches = _shuffled(len(dataset), self._batch_size)
            _estimate(model, layers[modality], dataset, batches)
            runner.logger.info(
                f'AdaBNHook: {len(layers[modality])} batch normalisations have the '
                f'statistics of {len(dataset)} {modality} of the target'
            )


def _batch_norms(model: TwoTowers) -> dict[str, list[_BatchNorm]]:
    towers = {
        'images': (model.image_backbone, model.image_neck),
        'captions': (model.text_backbone, model.text_neck),
    }
    return {
        modality: [
            layer
            for part in parts
            for layer in part.modules()
            if isinstance(layer, _BatchNorm) and layer.track_running_stats
        ]
        for modality, parts in towers.items()
    }


def _build_target(config: dict, modality: str) -> PersonTextDataset:
    config = {**config, 'view': modality}
    if modality == 'captions':
        config['pipeline'] = [{'type': 'gckd_mm.PackPersonText'}]
    dataset: PersonTextDataset = DATASETS.build(config)
    if dataset.split != 'train':
        raise InputError(
            f"AdaBNHook: the target's {dataset.split!r} split must not be seen in "
            f"training; use split='train'"
        )
    if len(dataset) < 2:
        raise InputError(
            f'AdaBNHook: the target has {len(dataset)} {modality}, which have no '
            f'variance'
        )
    return dataset


def _shuffled(count: int, batch_size: int) -> list[list[Draw]]:
    """Split all indexes into batches of nearly equal size, the same every time."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    batches = order.tensor_split(-(-count // batch_size))
    return [[Draw(index, seed=index) for index in batch.tolist()] for batch in batches]


@torch.no_grad()
def _estimate(
    model: Any,
    layers: Sequence[_BatchNorm],
    dataset: PersonTextDataset,
    batches: list[list[Draw]],
) -> None:
    loader: DataLoader = DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate_person_text,
        generator=torch.Generator(),  # a loader would advance the run's own
    )
    momenta = [layer.momentum for layer in layers]
    with evaluating(model):
        for layer in layers:
            layer.train()
            layer.reset_running_stats()
            layer.momentum = None  # the average of all batches since
        for batch in loader:
            prepared = model.data_preprocessor({'inputs': batch['inputs']})
            model.extract_feat(prepared['inputs'])
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
