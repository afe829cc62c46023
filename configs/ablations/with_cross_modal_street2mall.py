# The graph has edges from the teacher's best matches of the other modality, too.
_base_ = '../gckd/gckd_street2mall.py'
model = dict(graph=dict(k=dict(cross_modal=3)))
