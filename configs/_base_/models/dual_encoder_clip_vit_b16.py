# CLIP ViT-B/16 for images of 384 x 128 pixels (height x width): 150 million weights.
# They are read once, when training starts: from the hub, or from the folder of this name
# below the one that training starts in (docs/encoders.md).
_clip = 'openai/clip-vit-base-patch16'
_vocabulary = 49408

model = dict(
    type='DualEncoder',
    data_preprocessor=dict(
        type='PersonTextPreprocessor',
        mean=[122.771, 116.746, 104.094],
        std=[68.501, 66.632, 70.323],
        non_blocking=True,
        tokenizer=dict(
            type='HFTokenizer', pretrained=_clip, vocab_size=_vocabulary, max_length=77
        ),
    ),
    image_backbone=dict(
        type='CLIPImageBackbone',
        pretrained=_clip,
        config=dict(patch_size=16),
        image_size=(384, 128),
    ),
    image_neck=dict(
        type='TokenProjection', in_channels=768, out_channels=512, pretrained=_clip
    ),
    text_backbone=dict(
        type='CLIPTextBackbone', pretrained=_clip, config=dict(vocab_size=_vocabulary)
    ),
    text_neck=dict(
        type='TokenProjection',
        in_channels=512,
        out_channels=512,
        pooling='eos',
        pretrained=_clip,
    ),
    heads=dict(sdm=dict(type='SDMHead', temperature=0.02)),
)
