"""A config in mmengine's pure-Python style, from training to search and export."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.engine.launch import read_config
from gckd_mm.search.apis.onnx_encoder import OnnxEncoder
from gckd_mm.search.apis.torch_encoder import TorchEncoder
from gckd_mm.search.cli.search import main as search
from tests.training import in_process, last_checkpoint
from tools import export_onnx
from tools import test as test_tool
from tools import train as train_tool

BASE = """\
from mmcv.transforms import RandomFlip, Resize
from mmengine.dataset import DefaultSampler
from mmengine.hooks import LoggerHook, ParamSchedulerHook, RuntimeInfoHook
from mmengine.optim import LinearLR, OptimWrapper
from mmpretrain.datasets import RandomCrop
from torch.optim import AdamW

from gckd_mm.datasets import CUHKPEDES, CrossDomainDataset, RSTPReid
from gckd_mm.datasets import collate_person_text
from gckd_mm.datasets.samplers import CrossDomainSampler
from gckd_mm.datasets.transforms import LoadPersonImage, PackPersonText
from gckd_mm.engine.hooks import AdaptationHook, AtomicCheckpointHook
from gckd_mm.engine.hooks import FitTokenizerHook, FiniteLossHook, IterationSeedHook
from gckd_mm.engine.loops import RetrievalTestLoop, TwoStageTrainLoop
from gckd_mm.engine.schedulers import AdaptationLR
from gckd_mm.evaluation.metrics import PersonRetrievalMetric

default_scope = 'gckd_mm'
log_level = 'ERROR'
randomness = dict(seed=0)

_train_pipeline = [
    dict(type=LoadPersonImage),
    dict(type=Resize, scale=(32, 64)),
    dict(type=RandomFlip, prob=0.5),
    dict(type=RandomCrop, crop_size=(64, 32), padding=4, pad_val=128),
    dict(type=PackPersonText),
]
_image_pipeline = [
    dict(type=LoadPersonImage),
    dict(type=Resize, scale=(32, 64)),
    dict(type=PackPersonText),
]
_loader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=collate_person_text),
)
_test = dict(type=RSTPReid, data_root='DATA/rstpreid', split='test')
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type=CrossDomainSampler),
    collate_fn=dict(type=collate_person_text),
    dataset=dict(
        type=CrossDomainDataset,
        source=dict(
            type=CUHKPEDES, data_root='DATA/cuhk_pedes', pipeline=_train_pipeline
        ),
        target=dict(
            type=RSTPReid, data_root='DATA/rstpreid', pipeline=_train_pipeline
        ),
    ),
)
test_dataloader = dict(
    rstpreid=dict(
        gallery=dict(
            **_loader, dataset=dict(**_test, view='images', pipeline=_image_pipeline)
        ),
        query=dict(
            **_loader,
            dataset=dict(
                **_test, view='captions', pipeline=[dict(type=PackPersonText)]
            ),
        ),
    )
)
train_cfg = dict(type=TwoStageTrainLoop, source_iters=2, adapt_iters=3)
test_cfg = dict(type=RetrievalTestLoop)
test_evaluator = dict(type=PersonRetrievalMetric)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-3))
param_scheduler = [
    dict(type=LinearLR, by_epoch=False, start_factor=0.1),
    dict(type=AdaptationLR, by_epoch=False, warmup=0.4),
]
find_unused_parameters = True
default_hooks = dict(
    adaptation=dict(type=AdaptationHook),
    checkpoint=dict(type=AtomicCheckpointHook, interval=2),
    finite_loss=dict(type=FiniteLossHook),
    iteration_seed=dict(type=IterationSeedHook),
    logger=dict(type=LoggerHook),
    param_scheduler=dict(type=ParamSchedulerHook),
    runtime_info=dict(type=RuntimeInfoHook),
    tokenizer=dict(type=FitTokenizerHook),
)
"""

CONFIG = """\
from mmengine.config import read_base

from gckd_mm.models import (
    GCKD,
    GCKDWithMatching,
    GraphPropagationNeck,
    ImageProjection,
    ImageTextMatchingHead,
    MemoryGraph,
    MomentumDistillHead,
    NeighbourConsistencyHead,
    PersonTextPreprocessor,
    PseudoLabels,
    SDMHead,
    TextProjection,
    TinyImageEncoder,
    TinyTextEncoder,
    WordPieceTokenizer,
)

with read_base():
    from .base import *

model = dict(
    type=GCKD,
    embedding_size=16,
    memory_size=64,
    data_preprocessor=dict(
        type=PersonTextPreprocessor,
        tokenizer=dict(type=WordPieceTokenizer, vocab_size=300, max_length=30),
    ),
    image_backbone=dict(type=TinyImageEncoder, channels=(8, 16), blocks=(1, 1)),
    image_neck=dict(
        type=ImageProjection, in_channels=16, out_channels=16, stripes=4
    ),
    text_backbone=dict(type=TinyTextEncoder, vocab_size=300, channels=16),
    text_neck=dict(type=TextProjection, in_channels=16, out_channels=16),
    heads=dict(sdm=dict(type=SDMHead, temperature=0.05)),
    graph=dict(
        type=MemoryGraph,
        k=dict(near=3, cross_domain=2),
        neck=dict(type=GraphPropagationNeck, layer='parameter_free', num_layers=1),
        refresh=2,
    ),
    labels=dict(
        type=PseudoLabels, temperature=0.02, candidates=8,
        assignment=dict(epsilon=0.06, iterations=4),
    ),
    distill=dict(type=MomentumDistillHead, temperature=0.06),
    consistency=dict(type=NeighbourConsistencyHead),
    loss_weights=dict(distill=1.0, consistency=1.0),
)
"""

WITH_MATCHING = """
model.update(
    type=GCKDWithMatching,
    matching=dict(
        type=ImageTextMatchingHead, image_channels=16, caption_channels=16,
        channels=8, num_heads=2, grid=(2, 1),
    ),
)
model['loss_weights'].update(matching=1.0)
"""
#: name of a config -> what is added to ``CONFIG``
CONFIGS = {
    'plain': '',
    'without_scope': 'default_scope = None\n',
    'matching': WITH_MATCHING,
}
RERANK = {
    'plain': ('--rerank-method', 'k_reciprocal'),
    'without_scope': ('--rerank-method', 'propagation'),
    'matching': ('--rerank-method', 'matching'),
}


@pytest.fixture(scope='module', params=CONFIGS)
def trained_by(
    request: pytest.FixtureRequest,
    miniature: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """A config of classes and the checkpoint that tools/train.py ends with."""
    folder = tmp_path_factory.mktemp('pure')
    (folder / 'base.py').write_text(BASE.replace('DATA', str(miniature)))
    config = folder / f'{request.param}.py'
    config.write_text(CONFIG + CONFIGS[request.param])
    work_dir = folder / 'work'
    arguments = [str(config), '--work-dir', str(work_dir)]
    assert in_process(train_tool.main, arguments) == 0
    return config, last_checkpoint(work_dir)


def test_both_stages_are_trained(trained_by: tuple[Path, Path]) -> None:
    _, last = trained_by
    source = read_checkpoint(str(last.parent / 'source.pth'))['state_dict']
    adapted = read_checkpoint(str(last))['state_dict']
    assert last.name == 'iter_5.pth'
    assert adapted['teacher.steps'] == 3
    name = 'image_neck.' + next(
        key.removeprefix('image_neck.') for key in source if 'image_neck' in key
    )
    assert not torch.equal(source[name], adapted[name])


def test_it_is_tested_with_the_config_and_alone(
    trained_by: tuple[Path, Path], tmp_path: Path
) -> None:
    config, last = trained_by
    rerank = ['--rerank', '5', *RERANK[config.stem]]
    scores = []
    for number, arguments in enumerate(
        ([str(config), str(last)], [str(last)], [str(last), *rerank])
    ):
        out = tmp_path / f'{number}.json'
        test_tool.main([*arguments, '--work-dir', str(tmp_path), '--out', str(out)])
        scores.append(json.loads(out.read_text())['metrics']['rstpreid'])
    by_config, alone, reranked = scores
    assert by_config == alone
    assert {name: reranked[name] for name in alone} == alone
    assert reranked['reranked_mAP'] != alone['mAP']


def test_it_indexes_and_searches(
    trained_by: tuple[Path, Path],
    miniature: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, last = trained_by
    gallery, images = str(tmp_path / 'gallery'), str(miniature / 'rstpreid/imgs')
    arguments = ['index', images, '--gallery', gallery, '--checkpoint', str(last)]
    assert search(arguments) == 0
    capsys.readouterr()
    assert search(['query', gallery, 'a red coat', '--json']) == 0
    assert json.loads(capsys.readouterr().out)
    # the config file reads the same model: it may add to this gallery
    assert search([*arguments, '--config', str(config)]) == 0


def test_classes_and_names_have_one_fingerprint(
    trained_by: tuple[Path, Path], tmp_path: Path
) -> None:
    config, last = trained_by
    cfg = read_config(config)
    alone = TorchEncoder.read(last)
    assert TorchEncoder.read(config, last).fingerprint == alone.fingerprint
    if cfg.get('default_scope') is None:
        return
    text = cfg.pretty_text
    names = re.sub(
        r"type='(?:gckd_mm|mmcv|mmengine)\.[\w.]*\.(\w+)'", r"type='\1'", text
    )
    assert "type='GCKD" in names
    by_name = tmp_path / 'names.py'
    by_name.write_text(names)
    assert TorchEncoder.read(by_name, last).fingerprint == alone.fingerprint


def test_it_is_exported(trained_by: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    config, last = trained_by
    if config.stem != 'plain':
        pytest.skip('exporting takes seconds, and the encoders are the same')
    export_onnx.main([str(last), str(tmp_path / 'export')])
    exported = OnnxEncoder(tmp_path / 'export')
    encoder = TorchEncoder.read(last)
    assert exported.fingerprint == encoder.fingerprint
    np.testing.assert_allclose(
        exported.embed_captions(['a red coat']),
        encoder.embed_captions(['a red coat']),
        atol=1e-5,
    )
