# The matching head as well: tools/test.py --rerank 128 uses it.
_base_ = '../gckd/gckd_street2mall.py'
model = dict(
    type='GCKDWithMatching',
    matching=dict(
        type='ImageTextMatchingHead', image_channels=128, caption_channels=128
    ),
)
