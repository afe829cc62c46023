"""Loops over named gallery and query loaders."""

from gckd_mm.engine.loops.retrieval_loop import RetrievalTestLoop, RetrievalValLoop

__all__ = ['RetrievalTestLoop', 'RetrievalValLoop']
