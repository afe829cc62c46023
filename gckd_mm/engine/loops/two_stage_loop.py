"""The loop of a source stage and an adaptation, which knows how long both are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from gckd_mm.datasets.samplers import CrossDomainSampler
from gckd_mm.engine.schedulers import AdaptationLR
from gckd_mm.errors import InputError
from gckd_mm.model_wrapper import unwrapped
from gckd_mm.registry import DATA_SAMPLERS, LOOPS, PARAM_SCHEDULERS, type_of


@LOOPS.register_module()
class TwoStageTrainLoop(IterBasedTrainLoop):
    """Train on the source alone, then adapt; tell all others how long either takes.

    The sampler learns when the target begins, the model when the adaptation does and
    how long its ramps are, and the schedulers in which iterations they act: an
    :class:`AdaptationLR` in those of the adaptation, the others in the source stage.
    Their ``begin`` and ``end`` may be fractions of it (floats, from 0.0 to 1.0);
    ``end`` defaults to its end.

    :class:`gckd_mm.engine.hooks.AdaptationHook` starts the adaptation.

    Args:
        runner: The runner, given by itself.
        dataloader: Config of the loader, with a :class:`CrossDomainSampler`.
        source_iters: Iterations on the source alone, at least 0.
        adapt_iters: Iterations of the adaptation, at least 0.
        **options: Of :class:`mmengine.runner.IterBasedTrainLoop`.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        source_iters: int,
        adapt_iters: int,
        **options: Any,
    ) -> None:
        lengths = {'source_iters': source_iters, 'adapt_iters': adapt_iters}
        check_lengths({**lengths, **options})
        self.source_iters, self.adapt_iters = source_iters, adapt_iters
        model = unwrapped(runner.model)
        if not hasattr(model, 'set_stages'):
            raise InputError(
                f'TwoStageTrainLoop: {type(model).__name__} does not adapt: set '
                f"model.type='GCKD', or train_cfg.type='IterBasedTrainLoop'"
            )
        super().__init__(
            runner,
            _with_stages(dataloader, source_iters),
            max_iters=source_iters + adapt_iters,
            **options,
        )
        model.set_stages(source_iters, adapt_iters)
        runner.param_schedulers = _all_in_iterations(
            runner.param_schedulers, source_iters, self.max_iters
        )


def check_lengths(train_cfg: Mapping[str, Any]) -> None:
    """Check the lengths of the two stages."""
    if 'max_iters' in train_cfg:
        raise InputError(
            f'train_cfg.max_iters={train_cfg["max_iters"]}: a TwoStageTrainLoop has '
            f'source_iters and adapt_iters instead: tools/train.py --source-iters N '
            f'--adapt-iters M'
        )
    lengths = {name: train_cfg.get(name) for name in ('source_iters', 'adapt_iters')}
    for name, value in lengths.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(
                f'train_cfg.{name} must be a whole number of at least 0, got {value!r}'
            )
    if not any(lengths.values()):
        raise InputError('train_cfg: source_iters and adapt_iters are both 0')


def _with_stages(dataloader: Any, source_iters: int) -> Any:
    """Return the loader's config, with the source stage in its sampler's."""
    if not isinstance(dataloader, Mapping):
        found = getattr(dataloader.sampler, 'source_iters', None)
        if found != source_iters:
            raise InputError(
                f'TwoStageTrainLoop: the sampler of the given loader has source_iters='
                f'{found}, the loop {source_iters}'
            )
        return dataloader
    if 'batch_size' not in dataloader:
        raise InputError('TwoStageTrainLoop needs train_dataloader.batch_size')
    sampler = dict(dataloader.get('sampler') or {})
    kind = type_of(DATA_SAMPLERS, sampler.get('type'))
    if kind is None or not issubclass(kind, CrossDomainSampler):
        raise InputError(
            f'TwoStageTrainLoop needs '
            f"train_dataloader.sampler=dict(type='CrossDomainSampler'), got {sampler}"
        )
    stages = {'source_iters': source_iters, 'batch_size': dataloader['batch_size']}
    for name, value in stages.items():
        if sampler.get(name, value) != value:
            raise InputError(
                f'train_dataloader.sampler.{name}={sampler[name]}: leave it out; it is '
                f'{value}, from train_cfg and train_dataloader.batch_size'
            )
    return {**dataloader, 'sampler': {**sampler, **stages}}


def _all_in_iterations(schedulers: Any, source_iters: int, max_iters: int) -> Any:
    """Return the schedulers with their bounds: None, one, a list, or lists by name."""
    if isinstance(schedulers, Mapping) and 'type' not in schedulers:
        return {
            name: _all_in_iterations(part, source_iters, max_iters)
            for name, part in schedulers.items()
        }
    if isinstance(schedulers, Mapping):
        schedulers = [schedulers]
    if not isinstance(schedulers, list | tuple):
        return schedulers
    found = [_in_iterations(each, source_iters, max_iters) for each in schedulers]
    return [each for each in found if each is not None]


def _in_iterations(scheduler: Any, source_iters: int, max_iters: int) -> Any:
    """Return the config of a scheduler with its bounds; None if it has no iteration."""
    if not isinstance(scheduler, Mapping):
        return scheduler
    kind = type_of(PARAM_SCHEDULERS, scheduler['type'])
    is_adaptation = kind is not None and issubclass(kind, AdaptationLR)
    if scheduler.get('by_epoch', True):
        if is_adaptation:
            raise InputError('AdaptationLR counts iterations: set by_epoch=False')
        return scheduler
    if is_adaptation:
        given = {'begin', 'end'} & set(scheduler)
        if given:
            raise InputError(
                f'AdaptationLR: leave out {sorted(given)}: they are those of the '
                f'adaptation, {source_iters} and {max_iters}'
            )
        bounds = {'begin': source_iters, 'end': max_iters}
    else:
        bounds = {
            name: _iteration(scheduler.get(name, default), source_iters, name)
            for name, default in (('begin', 0), ('end', 1.0))
        }
    return {**scheduler, **bounds} if bounds['begin'] < bounds['end'] else None


def _iteration(bound: Any, source_iters: int, name: str) -> Any:
    if not isinstance(bound, float):
        return bound
    if not 0 <= bound <= 1:
        raise InputError(
            f'param_scheduler: {name}={bound} is a fraction of the source stage, from '
            f'0.0 to 1.0; give a whole number to count iterations'
        )
    return round(bound * source_iters)
