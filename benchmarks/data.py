"""Measure whether the loader keeps up: it alone, against the default training step.

    python benchmarks/data.py [--json PATH]

Draws a dataset in CUHK-PEDES' schema, with JPEG crops of the size of real ones, loads
it as the default config does, and takes training steps of the default model on batches
that are already there. Exits with 1 if the loader feeds less than the target.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
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
from gckd_mm.registry import MODELS

sys.path.insert(0, str(Path(__file__).parent))
from report import add_json_option, write_report

TARGET = 4.0  # samples loaded for each sample that training consumes
CROP = (256, 100)  # height and width of a crop, in pixels
CONFIG = Path(__file__).parents[1] / 'configs/baselines/source_only_tiny_cuhk2rstp.py'
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


def main() -> int:
    """Measure and print; return 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--images', type=int, default=2000)
    parser.add_argument('--batches', type=int, default=60, help='loaded in a repeat')
    parser.add_argument('--repeats', type=int, default=5)
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
    if options.json:
        write_report(options.json, figures)
    return int(figures['ratio'] < TARGET)


if __name__ == '__main__':
    sys.exit(main())
