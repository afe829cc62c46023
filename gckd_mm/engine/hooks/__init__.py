"""Hooks: exact resumption, whole checkpoints, vocabulary, probe."""

from gckd_mm.engine.hooks.atomic_checkpoint_hook import AtomicCheckpointHook
from gckd_mm.engine.hooks.fit_tokenizer_hook import FitTokenizerHook
from gckd_mm.engine.hooks.iteration_seed_hook import IterationSeedHook
from gckd_mm.engine.hooks.target_probe_hook import TargetProbeHook

__all__ = [
    'AtomicCheckpointHook',
    'FitTokenizerHook',
    'IterationSeedHook',
    'TargetProbeHook',
]
