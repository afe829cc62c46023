"""Loops: two stages of training, and tests over named gallery and query loaders."""

from gckd_mm.engine.loops.retrieval_loop import RetrievalTestLoop, RetrievalValLoop
from gckd_mm.engine.loops.two_stage_loop import TwoStageTrainLoop

__all__ = ['RetrievalTestLoop', 'RetrievalValLoop', 'TwoStageTrainLoop']
