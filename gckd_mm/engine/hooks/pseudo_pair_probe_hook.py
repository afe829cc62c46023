"""Say how many of the teacher's pseudo pairs are right, without touching the run."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from gckd_mm.datasets.cross_domain import canonical_order
from gckd_mm.errors import InputError
from gckd_mm.model_wrapper import unwrapped
from gckd_mm.models.gckd.labels import PseudoLabels, SoftLabels
from gckd_mm.registry import DATASETS, HOOKS


@HOOKS.register_module()
class PseudoPairProbeHook(Hook):
    """Log the precision of the pseudo pairs, for a target whose labels are at hand.

    The labels live in this hook alone and go to the log alone, under ``probe/``: a run
    with the probe ends with identical weights. A pair is right if caption and image
    are of one person. ``probe/pair_precision`` counts every caption's best image,
    ``probe/gated_pair_precision`` those that pass the gate; both are means over
    ``interval`` iterations.

    Args:
        target: Config of the target's training dataset, the same as the run's.
        interval: Iterations between two lines of the log.
    """

    priority = 'LOW'

    def __init__(self, target: dict, interval: int = 50) -> None:
        self._target = target
        self._interval = interval
        self._image_pids = np.empty(0, dtype=np.int64)
        self._caption_pids: list[set[int]] = []
        self._right: list[bool] = []
        self._kept: list[bool] = []

    def before_train(self, runner: Runner) -> None:
        """Read the labels, in the order in which the run numbers its samples."""
        labels = getattr(unwrapped(runner.model), 'labels', None)
        if labels is None:
            raise InputError(
                'PseudoPairProbeHook counts the pseudo-labels of GCKD with `labels`'
            )
        dataset = DATASETS.build({**self._target, 'lazy_init': True, 'view': 'images'})
        pid_of_image: dict[str, int] = {}
        pids_of_caption: dict[str, set[int]] = {}
        for record in dataset.load_records():
            pid_of_image[record.image] = record.pid
            for caption in record.captions:
                # Different people may be described in the same words.
                pids_of_caption.setdefault(caption, set()).add(record.pid)
        captions = [
            text for record in dataset.load_records() for text in record.captions
        ]
        images = canonical_order(pid_of_image)
        self._image_pids = np.array([pid_of_image[image] for image in images])
        self._caption_pids = [pids_of_caption[c] for c in canonical_order(captions)]
        train = runner.train_dataloader.dataset
        sizes = len(self._image_pids), len(self._caption_pids)
        if sizes != (train.num_target_images, train.num_target_captions):
            raise InputError(
                f'PseudoPairProbeHook: its target has {sizes[0]} images and {sizes[1]} '
                f"captions, the run's has {train.num_target_images} and "
                f'{train.num_target_captions}'
            )
        self._handle = labels.register_forward_hook(self._count)

    def after_train(self, runner: Runner) -> None:
        """Let go of the model."""
        self._handle.remove()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Log every ``interval`` iterations."""
        if not self.every_n_train_iters(runner, self._interval) or not self._right:
            return
        right, kept = np.array(self._right), np.array(self._kept)
        shown = {'probe/pair_precision': float(right.mean())}
        if kept.any():
            shown['probe/gated_pair_precision'] = float(right[kept].mean())
        self._right, self._kept = [], []
        runner.visualizer.add_scalars(shown, step=runner.iter + 1)
        runner.logger.info(
            f'Probe (labels of the target, for the log alone) at {runner.iter + 1}: '
            + '  '.join(f'{name}: {value:.3f}' for name, value in shown.items())
        )

    def _count(
        self, module: PseudoLabels, given: tuple[Any, ...], found: dict[str, SoftLabels]
    ) -> None:
        """Compare the labels of a step's captions; ``given`` is what made them."""
        _, keys, _, slots, _ = given
        labels, weights = found['text_to_image']
        images = keys['images'][labels.argmax(dim=1)]
        captions = keys['captions'][slots['captions']]
        for caption, image in zip(captions.tolist(), images.tolist(), strict=True):
            pid = int(self._image_pids[image])
            self._right.append(pid in self._caption_pids[caption])
        self._kept += (weights > 0).tolist()
