# A checkpoint of CLIP's size takes seconds and gigabytes.
_base_ = './default_runtime.py'
default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(interval=1000),
)
