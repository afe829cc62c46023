# Target-supervised, with the source: trained on the labels of both domains.
_base_ = './source_only_mall2street.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatPersonText',
        datasets=[_base_.mall_train, _base_.street_train],
    ),
)
