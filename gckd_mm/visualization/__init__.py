"""Pictures for papers and debugging."""

from gckd_mm.visualization.rank_lists import RankList, draw_rank_lists

__all__ = ['RankList', 'draw_rank_lists']
