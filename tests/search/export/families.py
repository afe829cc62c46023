"""A small retriever of each family of encoders, and its export, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from gckd_mm.registry import MODELS
from gckd_mm.search.apis.torch_encoder import TorchEncoder
from tests.models.tiny_clip import BERT, shaken, towers, write_bert, write_clip
from tests.training import ROOT

SYNTHCLIP = 'gckd_mm://synthclip_tiny_web'


def tiny(folder: Path) -> TorchEncoder:
    return TorchEncoder.read(SYNTHCLIP, device='cpu')


def clip(folder: Path) -> TorchEncoder:
    folder = write_clip(folder, num_hidden_layers=1)
    return encoder_of(towers(folder), height=64, width=32)


def minilm_lite0(folder: Path) -> TorchEncoder:
    """The shipped model with a BERT of one small layer and a network of timm's."""
    path = ROOT / 'configs/_base_/models/dual_encoder_minilm_lite0.py'
    settings = Config.fromfile(path).model.to_dict()
    sizes = dict(pretrained=str(write_bert(folder)), vocab_size=BERT['vocab_size'])
    settings['data_preprocessor']['tokenizer'].update(sizes, max_length=40)
    settings['image_backbone'] = dict(
        type='mmpretrain.TIMMBackbone', model_name='test_efficientnet'
    )
    settings['image_neck'].update(in_channels=256, out_channels=16)
    settings['text_backbone'].update(
        pretrained=None, config=dict(BERT, model_type='bert', num_hidden_layers=1)
    )
    settings['text_neck'].update(in_channels=24, out_channels=16)
    # six rows of features for four stripes
    return encoder_of(settings, height=192, width=64)


def encoder_of(settings: dict[str, Any], height: int, width: int) -> TorchEncoder:
    """A retriever with weights that show, and the pipeline of the shipped configs."""
    settings = dict(settings, type='DualEncoder', heads=None)
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        model = shaken(MODELS.build(settings))
    pipeline = [
        dict(type='LoadPersonImage'),
        dict(type='Resize', scale=(width, height)),
        dict(type='PackPersonText'),
    ]
    return TorchEncoder(model, settings, pipeline, torch.device('cpu'), None, 'small')


FAMILIES: dict[str, Callable[[Path], TorchEncoder]] = {
    'tiny': tiny,
    'clip': clip,
    'minilm_lite0': minilm_lite0,
}


def encoder(family: str, factory: pytest.TempPathFactory) -> TorchEncoder:
    return FAMILIES[family](factory.getbasetemp() / f'hub-{family}')


def exported(family: str, factory: pytest.TempPathFactory) -> Path:
    """The folder of the export, with the graphs of torch.export beside those of ONNX.

    A function and no fixture: what several modules ask for is made once.
    """
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    from gckd_mm.search.export.retriever import export_retriever

    folder = factory.getbasetemp() / f'exported-{family}'
    if not folder.exists():
        export_retriever(encoder(family, factory), folder, torch_export=True)
    return folder
