# The teacher is the student of the step before.
_base_ = '../gckd/gckd_street2mall.py'
model = dict(teacher_momentum=0.0)
