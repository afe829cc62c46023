# Self-training on mutual nearest neighbours.
_base_ = './continued_street2mall.py'
model = dict(
    adaptation=dict(
        type='MutualNeighbourHead',
        embedding_size=128,
        memory_size=5000,
        # begins when every image has been seen, and is full when every caption has
        loss_weight=dict(start=0.0, end=1.0, begin=40 / 300, length=35 / 300),
    ),
)
