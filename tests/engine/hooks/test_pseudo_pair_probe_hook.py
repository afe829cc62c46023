"""The probe counts right pairs by the target's labels; the training does not see it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import nn

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.datasets import CrossDomainDataset
from gckd_mm.engine.hooks import PseudoPairProbeHook
from gckd_mm.errors import InputError
from gckd_mm.models.gckd.labels import SoftLabels
from tests.training import in_process, small_config, train

#: id, image, captions: two people are described in the same words
RECORDS = [
    (7, 'a.jpg', ['a red coat', 'a man']),
    (7, 'b.jpg', ['a woman']),
    (8, 'c.jpg', ['a blue hat', 'a man']),
    (9, 'd.jpg', ['green shoes']),
]


@pytest.fixture(autouse=True)
def _scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        yield


@pytest.fixture
def target(tmp_path: Path) -> dict[str, Any]:
    """The config of a target of four images and six captions."""
    (tmp_path / 'imgs').mkdir()  # none of them is opened
    records = [
        {'id': pid, 'img_path': image, 'captions': captions, 'split': 'train'}
        for pid, image, captions in RECORDS
    ]
    (tmp_path / 'data_captions.json').write_text(json.dumps(records))
    return dict(type='RSTPReid', data_root=str(tmp_path), check_images=False)


class Run(SimpleNamespace):
    """As much of a runner as the hook looks at; what it shows is in ``shown``."""

    def __init__(self, dataset: CrossDomainDataset, model: Any) -> None:
        super().__init__(
            model=model,
            train_dataloader=SimpleNamespace(dataset=dataset),
            visualizer=self,
            logger=MMLogger.get_current_instance(),
            iter=0,
            shown={},
        )

    def add_scalars(self, scalars: dict[str, float], step: int) -> None:
        self.shown[step] = scalars


class Believed(nn.Module):
    """Stands in for the pseudo-labels: gives those that it is told to."""

    def forward(self, *given: Any) -> dict[str, SoftLabels]:
        *_, believed = given
        return {'text_to_image': believed}


def start(target: dict[str, Any], **options: Any) -> tuple[PseudoPairProbeHook, Run]:
    dataset = CrossDomainDataset(source=dict(target), target=dict(target))
    run = Run(dataset, SimpleNamespace(labels=Believed()))
    hook = PseudoPairProbeHook(target, **options)
    hook.before_train(run)
    return hook, run


def follow(
    hook: PseudoPairProbeHook, run: Run, pairs: list[tuple[str, str, bool]] | None
) -> None:
    """One iteration, whose model believes in these (caption, image, kept)."""
    dataset = run.train_dataloader.dataset
    images = [Path(path).name for path in dataset.target_images]
    if pairs is not None:
        captions = [dataset.target_captions.index(caption) for caption, _, _ in pairs]
        # The memory of the images has another order than the data.
        order = torch.arange(len(images)).flip(0)
        rows = [len(images) - 1 - images.index(image) for _, image, _ in pairs]
        labels = 0.6 * F.one_hot(torch.tensor(rows), len(images)) + 0.1
        weights = torch.tensor([0.5 * kept for _, _, kept in pairs])
        # That of the captions holds the batch in its last rows, the last one first.
        keys = torch.tensor([99, *reversed(captions)])
        slots = {'captions': torch.arange(len(captions), 0, -1)}
        run.model.labels(
            {},
            {'images': order, 'captions': keys},
            None,
            slots,
            SoftLabels(labels, weights),
        )
    hook.after_train_iter(run, run.iter)
    run.iter += 1


def test_right_pairs_are_counted_since_the_last_look(target: dict[str, Any]) -> None:
    hook, run = start(target, interval=2)

    follow(hook, run, [('a red coat', 'a.jpg', True), ('green shoes', 'c.jpg', False)])
    # Another image of the same person is right, and so is either man.
    follow(hook, run, [('a red coat', 'b.jpg', False), ('a man', 'a.jpg', True)])
    follow(hook, run, [('a man', 'd.jpg', False), ('a woman', 'a.jpg', False)])
    follow(hook, run, [('green shoes', 'a.jpg', False)])

    assert run.shown == {
        2: {'probe/pair_precision': 3 / 4, 'probe/gated_pair_precision': 1.0},
        4: {'probe/pair_precision': pytest.approx(1 / 3)},  # none passed the gate
    }
    hook.after_train(run)
    for _ in range(2):
        follow(hook, run, [('a woman', 'a.jpg', True)])
    assert list(run.shown) == [2, 4]


def test_the_source_stage_has_nothing_to_show(target: dict[str, Any]) -> None:
    hook, run = start(target, interval=1)

    follow(hook, run, None)
    follow(hook, run, [('a woman', 'a.jpg', True)])

    assert list(run.shown) == [2]


def test_a_model_without_pseudo_pairs_is_refused(target: dict[str, Any]) -> None:
    run = Run(CrossDomainDataset(dict(target), dict(target)), SimpleNamespace())

    with pytest.raises(InputError, match='pseudo-labels of GCKD'):
        PseudoPairProbeHook(target).before_train(run)


def test_the_labels_of_another_target_are_refused(
    target: dict[str, Any], miniature: Path
) -> None:
    other = dict(type='RSTPReid', data_root=str(miniature / 'rstpreid'))
    _, run = start(target)

    with pytest.raises(InputError, match=r"the run's has 4 and 6"):
        PseudoPairProbeHook(other).before_train(run)


def _run(data: Path, work_dir: Path, probe: bool) -> None:
    sources = dict(type='CrossDomainSampler')
    cfg = small_config(data, work_dir)
    cfg.train_cfg = dict(type='TwoStageTrainLoop', source_iters=1, adapt_iters=2)
    cfg.param_scheduler = None
    pairs = cfg.train_dataloader.dataset.to_dict()
    target = {**pairs, 'type': 'RSTPReid', 'data_root': str(data / 'rstpreid')}
    cfg.train_dataloader.dataset = dict(
        type='CrossDomainDataset', source=pairs, target=target
    )
    cfg.train_dataloader.sampler = sources
    cfg.model.update(
        type='GCKD',
        embedding_size=16,
        memory_size=64,
        labels=dict(type='PseudoLabels', candidates=8),
        distill=dict(type='MomentumDistillHead'),
    )
    cfg.default_hooks.adaptation = dict(type='AdaptationHook')
    if probe:
        cfg.custom_hooks.append(
            dict(type='PseudoPairProbeHook', target=target, interval=1)
        )
    train(cfg)


def test_a_run_with_the_probe_ends_with_identical_weights(
    miniature: Path, tmp_path: Path
) -> None:
    plain, probed = tmp_path / 'plain', tmp_path / 'probed'
    assert in_process(_run, miniature, plain, False) == 0
    assert in_process(_run, miniature, probed, True) == 0
    expected, found = (
        read_checkpoint(folder / 'iter_3.pth') for folder in (plain, probed)
    )
    for name, value in expected['state_dict'].items():
        assert torch.equal(found['state_dict'][name], value), name
    # It did look, and what it saw reached the log and not the checkpoint.
    (scalars,) = probed.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    steps = [row['step'] for row in rows if 'probe/pair_precision' in row]
    assert steps == [2, 3]
    for part in ('log_scalars', 'runtime_info'):
        assert not [name for name in found['message_hub'][part] if 'probe/' in name]
