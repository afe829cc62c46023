# Soft labels from the teacher's embeddings as they are.
_base_ = '../gckd/gckd_street2mall.py'
model = dict(graph=None, labels=dict(propagation=None))
