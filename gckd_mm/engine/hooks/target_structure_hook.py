"""Log how the target's captions and images lie to each other, without its labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.dataset import Compose
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from gckd_mm.datasets.cross_domain import CrossDomainDataset, canonical_order
from gckd_mm.datasets.person_text import PersonTextDataset
from gckd_mm.engine.evaluation_guard import evaluating
from gckd_mm.errors import InputError
from gckd_mm.evaluation.target_structure import embedding_gap, target_structure
from gckd_mm.fileio import write_atomically
from gckd_mm.model_wrapper import unwrapped
from gckd_mm.registry import DATASETS, HOOKS

#: file in the work dir: all measured, a list of ``{'iteration': …, name: value}``
STRUCTURE_FILE = 'structure.json'


class _Unpaired(NamedTuple):
    """Paths of images, and captions, each in an order that says nothing of labels."""

    images: Sequence[str]
    captions: Sequence[str]


@HOOKS.register_module()
class TargetStructureHook(Hook):
    """Measure the target's train set as the adaptation starts, and as it ends.

    The student embeds images and captions in evaluation mode, and the measures of
    :func:`gckd_mm.evaluation.target_structure.target_structure` go to the log under
    ``structure/`` and to ``structure.json`` in the work dir. Where the run has a source
    beside its target, so do ``image_domain_gap`` and ``caption_domain_gap``, the
    distances of the domains' mean embeddings.

    No label is read: images and captions come in the order of a hash of their names and
    texts, in which neither ids nor pairs survive. Nothing that trains reads the values:
    a run with the hook ends with identical weights.

    It measures at iteration ``model.source_iters`` (0 for a model without it), before
    the first step of the adaptation, and after the last iteration. On several ranks the
    main process does, and the others wait in their next step.

    Args:
        pipeline: Transforms of an image, those of the test sets: without augmentation,
            ending with :class:`PackPersonText`. Captions are taken as they are written.
        target: Config of the target's training dataset; its pipeline has no effect.
            Defaults to None: the target of the run's :class:`CrossDomainDataset`.
        max_samples: Images, and captions, of a domain that are embedded: evenly spaced
            in their order, the same ones each time.
        batch_size: Images, or captions, embedded at a time.
        interval: Iterations of the adaptation between two further measurements.
            Defaults to None: none but the first and the last.
    """

    # After the step, and before the checkpoint is written.
    priority = 'LOW'

    def __init__(
        self,
        pipeline: Sequence[dict],
        target: dict | None = None,
        max_samples: int = 2000,
        batch_size: int = 128,
        interval: int | None = None,
    ) -> None:
        for name, value, least in (
            ('max_samples', max_samples, 2),
            ('batch_size', batch_size, 1),
            ('interval', interval, 1),
        ):
            if value is not None and value < least:
                raise InputError(
                    f'TargetStructureHook: {name} must be at least {least}, got {value}'
                )
        self._pipeline = Compose(pipeline)
        self._target_config = target
        self._max_samples = max_samples
        self._batch_size = batch_size
        self._interval = interval
        self._domains: dict[str, _Unpaired] = {}
        self._measured: list[dict[str, float]] = []
        self._start = 0

    def before_train(self, runner: Runner) -> None:
        """List what will be embedded, and what a resumed run has measured before."""
        self._start = getattr(unwrapped(runner.model), 'source_iters', 0)
        dataset = runner.train_dataloader.dataset
        domains = {'target': self._list_target(dataset)}
        if isinstance(dataset, CrossDomainDataset):
            domains['source'] = _list_unpaired(dataset.source)
        self._domains = {
            name: _Unpaired(*(self._evenly_spaced(part) for part in domain))
            for name, domain in domains.items()
        }
        num_images, num_captions = map(len, self._domains['target'])
        if min(num_images, num_captions) < 2:
            raise InputError(
                f'TargetStructureHook compares images with captions, but the target '
                f'has {num_images} images and {num_captions} captions: remove the '
                f'hook, or set target to a dataset that has both'
            )
        path = Path(runner.work_dir) / STRUCTURE_FILE
        if runner.iter and path.is_file():
            self._measured = json.loads(path.read_text())

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Measure before the first step of the adaptation."""
        if runner.iter == self._start:
            self._measure(runner, runner.iter)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Measure after the last step, and every ``interval`` adaptation steps."""
        done = runner.iter + 1
        steps = done - self._start
        due = self._interval and steps > 0 and steps % self._interval == 0
        if due or done == runner.max_iters:
            self._measure(runner, done)

    def _measure(self, runner: Runner, iteration: int) -> None:
        if not is_main_process():
            return
        model = unwrapped(runner.model)
        with evaluating(model):
            feats = {
                name: self._embed(model, domain)
                for name, domain in self._domains.items()
            }
        values = target_structure(**feats['target'])
        if 'source' in feats:
            for modality, rows in feats['source'].items():
                name = f'{modality.removesuffix("s")}_domain_gap'
                values[name] = embedding_gap(rows, feats['target'][modality])
        self._show(runner, values, iteration)

    @torch.no_grad()
    def _embed(self, model: Any, samples: _Unpaired) -> dict[str, Tensor]:
        """Return ``images`` and ``captions``, each of shape (N, D)."""
        feats = {}
        for modality, items in samples._asdict().items():
            rows = []
            for start in range(0, len(items), self._batch_size):
                batch = items[start : start + self._batch_size]
                if modality == 'images':
                    batch = [self._load(path) for path in batch]
                inputs = model.data_preprocessor({'inputs': {modality: batch}})
                rows.append(model.extract_feat(inputs['inputs'])[modality])
            feats[modality] = torch.cat(rows)
        return feats

    def _load(self, path: str) -> Tensor:
        return self._pipeline({'img_path': path})['inputs']['images']

    def _show(self, runner: Runner, values: dict[str, float], iteration: int) -> None:
        shown = {f'structure/{name}': value for name, value in values.items()}
        runner.visualizer.add_scalars(shown, step=iteration)
        runner.logger.info(
            f'Structure of the target (no labels) at {iteration}: '
            + '  '.join(f'{name}: {value:.3f}' for name, value in shown.items())
        )
        # A resumed run measures again, and replaces, what is later than its checkpoint.
        earlier = [row for row in self._measured if row['iteration'] < iteration]
        self._measured = [*earlier, {'iteration': iteration, **values}]
        write_atomically(
            Path(runner.work_dir) / STRUCTURE_FILE, json.dumps(self._measured, indent=1)
        )

    def _list_target(self, dataset: Any) -> _Unpaired:
        if self._target_config is not None:
            target = {**self._target_config, 'view': 'images', 'lazy_init': True}
            return _list_unpaired(DATASETS.build(target))
        if isinstance(dataset, CrossDomainDataset):
            return _Unpaired(dataset.target_images, dataset.target_captions)
        raise InputError(
            f'TargetStructureHook: the run trains on a {type(dataset).__name__}, which '
            f"has no target: set target to the config of the target's training dataset"
        )

    def _evenly_spaced(self, items: Sequence[str]) -> list[str]:
        num = min(self._max_samples, len(items))
        return [items[index * len(items) // num] for index in range(num)]


def _list_unpaired(dataset: PersonTextDataset) -> _Unpaired:
    """Drop ids and pairs, as :class:`CrossDomainDataset` does."""
    if dataset.split != 'train':
        raise InputError(
            f'TargetStructureHook: the {dataset.split!r} split must not be seen in '
            f"training; use split='train'"
        )
    records = dataset.load_records()
    paths = {record.image: dataset.image_path(record) for record in records}
    captions: Iterable[str] = (text for record in records for text in record.captions)
    return _Unpaired(
        [paths[image] for image in canonical_order(paths)], canonical_order(captions)
    )
