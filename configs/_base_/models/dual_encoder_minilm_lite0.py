# EfficientNet-lite0 and all-MiniLM-L6-v2: 28 million weights, trained apart from each other
# (docs/real_images.md tells where they are to be had).
_minilm = 'sentence-transformers/all-MiniLM-L6-v2'
_vocabulary = 30522

model = dict(
    type='DualEncoder',
    data_preprocessor=dict(
        type='PersonTextPreprocessor',
        mean=[127.0, 127.0, 127.0],
        std=[128.0, 128.0, 128.0],
        tokenizer=dict(
            type='HFTokenizer',
            pretrained=_minilm,
            vocab_size=_vocabulary,
            max_length=77,
        ),
    ),
    image_backbone=dict(
        type='mmpretrain.TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/efficientnet_lite0.pth',
            prefix='image_backbone.',
        ),
    ),
    image_neck=dict(
        type='ImageProjection', in_channels=1280, out_channels=384, stripes=4
    ),
    text_backbone=dict(
        type='HFTextBackbone',
        pretrained=_minilm,
        config=dict(
            model_type='bert',
            vocab_size=_vocabulary,
            hidden_size=384,
            num_hidden_layers=6,
            num_attention_heads=12,
            intermediate_size=1536,
        ),
    ),
    text_neck=dict(
        type='TokenProjection', in_channels=384, out_channels=384, pooling='mean'
    ),
    heads=dict(sdm=dict(type='SDMHead', temperature=0.05)),
)
