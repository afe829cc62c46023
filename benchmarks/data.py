"""Measure whether the loader keeps up: it alone, against the default training step.

    python benchmarks/data.py [--json PATH]

Draws a dataset in CUHK-PEDES' schema, with JPEG crops of the size of real ones, loads
it as the default config does, and takes training steps of the default model on batches
that are already there. Then builds source and target out of as many records as
CUHK-PEDES has, in a process of its own: how long parsing and all checks take, and how
much memory the data and each worker of the loader need. Exits with 1 if a target is
missed.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

import gckd_mm  # noqa: F401 - opens the registries
from gckd_mm.datasets import CrossDomainDataset
from gckd_mm.datasets.samplers import CrossDomainSampler
from gckd_mm.registry import MODELS

sys.path.insert(0, str(Path(__file__).parent))
from report import add_json_option, write_report

TARGET = 4.0  # samples loaded for each sample that training consumes
RECORDS, TRAIN_RECORDS = 40206, 34054  # of CUHK-PEDES
MAX_SECONDS, MAX_MB, MAX_WORKER_MB = 3.0, 300.0, 10.0
CROP = (256, 100)  # height and width of a crop, in pixels
CONFIG = Path(__file__).parents[1] / 'configs/baselines/source_only_tiny_cuhk2rstp.py'
PACK = [dict(type='gckd_mm.PackPersonText')]
WORDS = ('man', 'woman', 'red', 'blue', 'coat', 'black', 'white', 'bag', 'trousers')


def draw_dataset(root: Path, num_images: int, seed: int) -> None:
    """Write smooth random crops, two captions of 25 words each."""
    rng = np.random.default_rng(seed)
    (root / 'imgs').mkdir(parents=True)
    records = []
    for number in range(num_images):
        coarse = rng.integers(0, 256, (16, 8, 3), dtype=np.uint8)
        crop = cv2.resize(coarse, CROP[::-1], interpolation=cv2.INTER_CUBIC)
        noisy = (crop + rng.normal(0, 8, crop.shape)).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(root / 'imgs' / f'{number}.jpg'), noisy)
        captions = [' '.join(rng.choice(WORDS, 25)) for _ in range(2)]
        records.append(
            {
                'id': number // 4,
                'file_path': f'{number}.jpg',
                'captions': captions,
                'split': 'train',
            }
        )
    (root / 'reid_raw.json').write_text(json.dumps(records))


def median_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Return the median time of a call, after one that does not count."""
    function()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def loader_rate(loader: DataLoader, num_batches: int) -> float:
    """Return the samples that the loader alone gives per second."""
    batches = iter(loader)
    for _ in islice(batches, 2 * max(1, loader.num_workers)):  # workers have started
        pass
    began = time.perf_counter()
    for _ in islice(batches, num_batches):
        pass
    seconds = time.perf_counter() - began
    return num_batches * (loader.batch_size or 1) / seconds


def training_rate(cfg: Config, loader: DataLoader, repeats: int) -> float:
    """Return the samples that training steps on a batch at hand consume per second."""
    model = MODELS.build(cfg.model)
    model.data_preprocessor.tokenizer.fit(loader.dataset.captions())  # type: ignore[attr-defined]
    optim_wrapper = Runner.build_optim_wrapper(
        argparse.Namespace(model=model), cfg.optim_wrapper
    )
    batch = next(iter(loader))
    seconds = median_seconds(lambda: model.train_step(batch, optim_wrapper), repeats)
    return (loader.batch_size or 1) / seconds


def draw_annotations(root: Path, num_records: int, seed: int) -> None:
    """Write an annotation file like CUHK-PEDES', and a small picture a record."""
    rng = np.random.default_rng(seed)
    (root / 'imgs').mkdir(parents=True)
    _, picture = cv2.imencode('.jpg', np.zeros((8, 4, 3), np.uint8))
    records = []
    for number in range(num_records):
        name = f'cam_a/{number:07d}.jpg'
        path = root / 'imgs' / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture.tobytes())
        captions = [' '.join(rng.choice(WORDS, 24)) for _ in range(2)]
        records.append(
            {
                'id': 1 + number // 3,
                'file_path': name,
                'captions': captions,
                'processed_tokens': [caption.split() for caption in captions],
                'split': 'train' if number < TRAIN_RECORDS else 'test',
            }
        )
    (root / 'reid_raw.json').write_text(json.dumps(records))


def measure_annotations(root: Path, few: Path) -> dict[str, float]:
    """Build source and target of an adaptation; return seconds and megabytes.

    Args:
        root: Of the dataset.
        few: Of one so small that its records need nothing: a worker on it needs what
            any worker does.
    """
    gc.collect()
    Path('/proc/self/clear_refs').write_text('5')  # the peak begins here
    before, peak, began = _private_mb('self'), _peak_mb(), time.perf_counter()
    dataset = _source_and_target(root)
    seconds = time.perf_counter() - began
    highest = _peak_mb() - peak
    gc.collect()
    return {
        'seconds': seconds / 2,
        'peak_mb': highest,
        'kept_mb': _private_mb('self') - before,
        'worker_mb': _worker_mb(dataset) - _worker_mb(_source_and_target(few)),
    }


def _source_and_target(root: Path) -> CrossDomainDataset:
    part = dict(type='CUHKPEDES', data_root=str(root), pipeline=PACK)
    return CrossDomainDataset({**part, 'view': 'pairs'}, part)


def _worker_mb(dataset: CrossDomainDataset) -> float:
    """Return the private memory of a worker after as many items as CUHK-PEDES has."""
    loader: DataLoader = DataLoader(
        dataset,
        batch_size=16,
        num_workers=1,
        multiprocessing_context='fork',  # as env_cfg.mp_cfg has it
        sampler=CrossDomainSampler(dataset, seed=0),
        collate_fn=len,
    )
    batches: Any = iter(loader)
    for _ in islice(batches, 2 * RECORDS // 16):
        pass
    return _private_mb(batches._workers[0].pid)


def _peak_mb() -> float:
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(li.split()[1]) for li in lines if 'VmHWM' in li) * 1024 / 1e6


def _private_mb(process: int | str) -> float:
    """Return the memory that a process shares with no other, in megabytes."""
    lines = Path(f'/proc/{process}/smaps_rollup').read_text().splitlines()
    return sum(int(li.split()[1]) for li in lines if 'Private' in li) * 1024 / 1e6


def measure_in_own_process(num_records: int, seed: int) -> dict[str, float]:
    """Draw annotations and measure, in a process that has done nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        roots = Path(folder) / 'data', Path(folder) / 'few'
        for root, count in zip(roots, (num_records, 100), strict=True):
            draw_annotations(root, count, seed)
        with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
            return pool.submit(measure_annotations, *roots).result()


def main() -> int:
    """Measure and print; return 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--images', type=int, default=2000)
    parser.add_argument('--batches', type=int, default=60, help='loaded in a repeat')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--records', type=int, default=RECORDS)
    parser.add_argument('--seed', type=int, default=0)
    add_json_option(parser)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    DefaultScope.get_instance('benchmark', scope_name='gckd_mm')
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / 'data'
        draw_dataset(root, options.images, options.seed)
        cfg = Config.fromfile(CONFIG)
        cfg.train_dataloader.dataset.data_root = str(root)
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=options.seed)
        loaded, consumed = [], []
        for repeat in range(options.repeats):
            loaded.append(loader_rate(loader, options.batches))
            consumed.append(training_rate(cfg, loader, repeats=5))
            print(
                f'repeat {repeat + 1}/{options.repeats}: loader {loaded[-1]:.0f}, '
                f'training {consumed[-1]:.0f} samples/s',
                flush=True,
            )
    ratios = [one / other for one, other in zip(loaded, consumed, strict=True)]
    figures = {
        'loader_samples_per_second': statistics.median(loaded),
        'training_samples_per_second': statistics.median(consumed),
        'ratio': statistics.median(ratios),
        'ratios': ratios,
        'target': TARGET,
        'workers': loader.num_workers,
        'batch_size': loader.batch_size,
        'crop': CROP,
    }
    print(
        f'\nloader alone    {figures["loader_samples_per_second"]:8.0f} samples/s '
        f'({loader.num_workers} workers, JPEG crops of {CROP[0]} x {CROP[1]})\n'
        f'training step   {figures["training_samples_per_second"]:8.0f} samples/s '
        f'(batch {loader.batch_size}, {torch.get_num_threads()} threads)\n'
        f'ratio           {figures["ratio"]:8.2f} (target: at least {TARGET:.0f}; '
        f'{min(ratios):.2f} to {max(ratios):.2f})'
    )
    found = measure_in_own_process(options.records, options.seed)
    figures['annotations'] = found
    print(
        f'\n{options.records:,} records, {TRAIN_RECORDS:,} of them for training, as '
        f'source and as target:\n'
        f'parsing and checks, each   {found["seconds"]:6.2f} s (target: at most '
        f'{MAX_SECONDS:g})\n'
        f'memory at the peak, both   {found["peak_mb"]:6.0f} MB (target: at most '
        f'{MAX_MB:g})\n'
        f'memory kept, both          {found["kept_mb"]:6.0f} MB\n'
        f'memory of each worker      {found["worker_mb"]:6.0f} MB (target: at most '
        f'{MAX_WORKER_MB:g})'
    )
    if options.json:
        write_report(options.json, figures)
    missed = (
        figures['ratio'] < TARGET,
        found['seconds'] > MAX_SECONDS,
        found['peak_mb'] > MAX_MB,
        found['worker_mb'] > MAX_WORKER_MB,
    )
    return int(any(missed))


if __name__ == '__main__':
    sys.exit(main())
