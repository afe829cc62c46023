"""Figures for papers and debugging."""

from gckd_mm.visualization.rank_lists import RankList, render_rank_lists

__all__ = ['RankList', 'render_rank_lists']
