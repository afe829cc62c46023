"""Hooks: adaptation, exact resumption, whole checkpoints, probes, figures."""

from gckd_mm.engine.hooks.adabn_hook import AdaBNHook
from gckd_mm.engine.hooks.adaptation_hook import AdaptationHook
from gckd_mm.engine.hooks.atomic_checkpoint_hook import AtomicCheckpointHook
from gckd_mm.engine.hooks.finite_loss_hook import FiniteLossHook
from gckd_mm.engine.hooks.fit_tokenizer_hook import FitTokenizerHook
from gckd_mm.engine.hooks.iteration_seed_hook import IterationSeedHook
from gckd_mm.engine.hooks.pseudo_pair_probe_hook import PseudoPairProbeHook
from gckd_mm.engine.hooks.target_probe_hook import TargetProbeHook
from gckd_mm.engine.hooks.target_structure_hook import TargetStructureHook
from gckd_mm.engine.hooks.visualization_hook import VisualizationHook

__all__ = [
    'AdaBNHook',
    'AdaptationHook',
    'AtomicCheckpointHook',
    'FiniteLossHook',
    'FitTokenizerHook',
    'IterationSeedHook',
    'PseudoPairProbeHook',
    'TargetProbeHook',
    'TargetStructureHook',
    'VisualizationHook',
]
