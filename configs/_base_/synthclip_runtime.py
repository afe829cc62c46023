# Everything starts from SynthCLIP-tiny, whose vocabulary comes with its weights.
_base_ = './default_runtime.py'
load_from = 'gckd_mm://synthclip_tiny_web'
