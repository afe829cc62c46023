"""Measure what a training step of GCKD costs, and where its time goes.

    python benchmarks/step_time.py [--vit] [--json PATH]

Memory growth: the adaptation without its encoders, on small and on large memories.
Paired: a step of the adaptation on B source pairs, B target images and B target
captions against a source-only step on 2B pairs, which embeds as many samples, in turn,
so that a busy machine slows both; and the parts of GCKD's steps. ``--vit`` adds it for
CLIP ViT-B/16, and a source-only step of it against one on captions of 77 tokens with
plain attention, as public codes take it. (That needs the extra ``clip``.)

All memories that the config uses are full. A time is the mean over the steps from one
renewal of graph and potentials to the next. Images and token ids are random: untrained
encoders embed them all alike, and no list of neighbours could sort that. So the
encoders run, but the memories get a random train set.

Exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config, DictAction
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor

from gckd_mm.registry import MODELS

sys.path.insert(0, str(Path(__file__).parent))
from clip_step import (
    MAX_STEP_RATIO,
    MAX_TEXT_RATIO,
    TOWERS,
    clip_config,
    measure_clip,
)
from report import add_json_option, write_report

CONFIG = Path(__file__).parents[1] / 'configs/gckd/gckd_street2mall.py'
MAX_RATIO, MAX_VIT_RATIO, MAX_GROWTH, MAX_MEMORIES_MB = 1.6, 1.45, 20.0, 300.0

MEMORIES = ('source_images', 'source_captions', 'target_images', 'target_captions')
TOKENS = 20  # of a caption
CLIP_BATCH = 8
TINY_SIZE = (64, 32)  # height, width
GROWTH_DIM = 256
#: offsets and people are coprime: every sample has its own pair of them
PEOPLE, OFFSETS = 1200, 4093
#: cosines of 0.6 within a person, and of 0.9 between a sample and itself, seen again
SPREAD, DRIFT = 0.65, 0.4


class TrainSet:
    """Embeddings of random samples, people being clusters; none of them is kept."""

    def __init__(self, dim: int) -> None:
        self._centres = {domain: _unit(PEOPLE, dim) for domain in ('source', 'target')}
        self._offsets = {memory: _unit(OFFSETS, dim) for memory in MEMORIES}

    def embed(self, memory: str, keys: Tensor) -> Tensor:
        """Embed the samples of a memory anew: L2-normalised, shape (N, D)."""
        centres = self._centres[memory.partition('_')[0]][keys % PEOPLE]
        offsets = self._offsets[memory][keys % OFFSETS]
        noise = _unit(*centres.shape)
        return F.normalize(centres + SPREAD * offsets + DRIFT * noise, dim=1)


def _unit(count: int, dim: int) -> Tensor:
    return F.normalize(torch.randn(count, dim), dim=1)


class Stopwatch:
    """Wall-clock time by name, in laps of several steps."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._laps: list[dict[str, float]] = []

    def steps(self, model: Any, repeats: int) -> Iterator[int]:
        """Count steps; a lap goes from one renewal to the next, the first warms up."""
        lap = math.lcm(model.graph.refresh, model.labels.refresh)
        for start in range(0, (1 + repeats) * lap, lap):
            yield from range(start, start + lap)
            self._laps.append({k: 1000 * v / lap for k, v in self._seconds.items()})
            self._seconds.clear()

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Add what the body takes."""
        began = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - began

    def watch(self, name: str, owner: Any, method: str) -> None:
        """Add what every call of an object's method takes from now on."""
        function = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.time(name):
                return function(*args, **kwargs)

        setattr(owner, method, timed)

    def times(self) -> dict[str, list[float]]:
        """Return the milliseconds that a step took in each lap that counts."""
        return {name: [lap[name] for lap in self._laps[1:]] for name in self._laps[0]}


def fill(model: Any, train_set: TrainSet) -> None:
    """Fill the memories in parts, and the neighbour lists with them.

    The list of a row is fresh when the row is pushed, and loses entries until it is
    pushed again. Pushing everything once more, to let the lists age, changed no time by
    more than these vary, and takes twice as long.
    """
    model.set_stages(source_iters=0, adapt_iters=1000)
    model.start_adaptation()
    used = MEMORIES if model.needs_source_memory else MEMORIES[2:]
    parts = torch.arange(model.memories['target_images'].size).chunk(16)
    for keys in parts:
        for name in used:
            feats = train_set.embed(name, keys)
            model.memories[name].push(feats, keys)
        model.graph.edges(model.memories)


def pairs_of(inputs: dict[str, Any], keys: Tensor) -> dict[str, Any]:
    """Return a batch of labelled pairs, as a model's loss takes it."""
    samples = [BaseDataElement(pid=k % PEOPLE, sample_idx=k) for k in keys.tolist()]
    return {'inputs': inputs, 'data_samples': samples}


def remember(model: Any, train_set: TrainSet) -> None:
    """Let every memory hold the random embeddings of the samples pushed into it."""
    for name, memory in model.memories.items():
        push = partial(_push_random, memory.push, partial(train_set.embed, name))
        memory.push = push


def _push_random(
    push: Callable[..., Tensor],
    embed: Callable[[Tensor], Tensor],
    feats: Tensor,
    keys: Tensor,
) -> Tensor:
    return push(embed(keys), keys)


def cross_domain(
    size: int, batch_size: int, draw: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return a batch of the adaptation; ``draw`` gives the inputs of either domain."""
    pairs, images, captions = torch.randint(size, (3, batch_size))
    target = {
        'inputs': draw(),
        'image_index': images.tolist(),
        'caption_index': captions.tolist(),
    }
    return {**pairs_of(draw(), pairs), 'target': target}


def random_inputs(cfg: Config, image_size: Sequence[int], count: int) -> dict[str, Any]:
    """Return images and token ids as the data preprocessor gives them."""
    text = cfg.model.text_backbone
    sizes = text.get('config', text)
    ids = torch.randint(sizes.vocab_size, (count, TOKENS))
    captions = {'input_ids': ids, 'attention_mask': torch.ones_like(ids).bool()}
    return {'images': torch.randn(count, 3, *image_size), 'captions': captions}


def measure_growth(cfg: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Time forward and backward of the adaptation alone, with memories of each size."""
    train_set, watch, models = TrainSet(GROWTH_DIM), Stopwatch(), {}
    for size in args.sizes:
        print(f'filling memories of {size:,} rows ...', flush=True)
        changes = {'embedding_size': GROWTH_DIM, 'memory_size': size, 'heads': None}
        models[size] = model = MODELS.build({**cfg.model, **changes})
        fill(model, train_set)
        remember(model, train_set)
        # Their own would be encoders'; any embeddings with a gradient will do.
        embed = partial(_random_feats, args.batch_size)
        model.extract_feat = model.teacher.module.extract_feat = embed
    for step in watch.steps(model, args.repeats):
        for size, model in models.items():
            batch = cross_domain(size, args.batch_size, dict)
            model.set_iteration(step)
            with watch.time(f'{size} rows'):
                model.parse_losses(model.loss(**batch))[0].backward()
    times, largest = watch.times(), models[max(args.sizes)]
    return {
        'batch_size': args.batch_size,
        'step_ms': times,
        'ratio': _ratio(times, f'{max(args.sizes)} rows', f'{min(args.sizes)} rows'),
        'memories_mb': sum(b.nbytes for b in largest.memories.buffers()) / 1e6,
        # given in KiB, on Linux
        'peak_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }


def _random_feats(count: int, inputs: dict[str, Any]) -> dict[str, Tensor]:
    names = ('images', 'captions')
    return {name: _unit(count, GROWTH_DIM).requires_grad_() for name in names}


def measure_steps(
    cfg: Config, image_size: Sequence[int], batch_size: int, repeats: int
) -> dict[str, Any]:
    """Time a source-only model and GCKD in turn, and the parts of GCKD's steps."""
    shared = {name: cfg.model[name] for name in (*TOWERS, 'heads', 'data_preprocessor')}
    source_only = MODELS.build({'type': 'DualEncoder', **shared})
    gckd = MODELS.build(cfg.model)
    source_only_optim, gckd_optim = (
        Runner.build_optim_wrapper(argparse.Namespace(model=model), cfg.optim_wrapper)
        for model in (source_only, gckd)
    )
    train_set, watch = TrainSet(cfg.model.embedding_size), Stopwatch()
    size, twice = cfg.model.memory_size, 2 * batch_size
    fill(gckd, train_set)
    remember(gckd, train_set)
    watch_parts(watch, gckd, gckd_optim)
    draw = partial(random_inputs, cfg, image_size)
    for step in watch.steps(gckd, repeats):
        pairs = pairs_of(draw(twice), torch.randint(size, (twice,)))
        batch = cross_domain(size, batch_size, partial(draw, batch_size))
        with watch.time('source-only'):
            _train(source_only, source_only_optim, pairs)
        gckd.set_iteration(step)
        with watch.time('GCKD'):
            _train(gckd, gckd_optim, batch)
            gckd.update_teacher()
    times = watch.times()
    ratio = _ratio(times, 'GCKD', 'source-only')
    return {'batch_size': batch_size, 'step_ms': times, 'ratio': ratio}


def watch_parts(watch: Stopwatch, model: Any, optim_wrapper: Any) -> None:
    """Time the parts of GCKD's steps."""
    for name, owner, method in (
        ('student forward', model, 'extract_feat'),
        ('teacher forward', model.teacher.module, 'extract_feat'),
        *(('push', memory, 'push') for memory in model.memories.values()),
        ('neighbour lists', model.graph, 'edges'),
        ('propagation', model.graph, 'propagate'),
        ('soft labels', model.labels, 'forward'),
        ('distillation loss', model.distill, 'loss'),
        ('distillation loss', model.distill, 'describe'),
        ('consistency loss', model.consistency, 'loss'),
        *(('source loss', head, 'loss') for head in model.heads.values()),
        ('backward', optim_wrapper, 'backward'),
        ('optimiser', optim_wrapper, 'step'),
        ('optimiser', optim_wrapper, 'zero_grad'),
        ('teacher update', model, 'update_teacher'),
    ):
        watch.watch(name, owner, method)


def _ratio(times: dict[str, list[float]], name: str, other: str) -> float:
    return statistics.median(times[name]) / statistics.median(times[other])


def _train(model: Any, optim_wrapper: Any, batch: dict[str, Any]) -> None:
    # mmengine's train_step, without the preparation of the batch
    optim_wrapper.update_params(model.parse_losses(model.loss(**batch))[0])


def use_vit(cfg: Config) -> Sequence[int]:
    """Change the towers to those of CLIP ViT-B/16; return the size of its images."""
    clip = clip_config().model
    for name in (*TOWERS, 'data_preprocessor'):
        cfg.model[name] = clip[name]
    cfg.model.embedding_size = clip.image_neck.out_channels
    return clip.image_backbone.image_size


def print_table(times: dict[str, list[float]], whole: str) -> None:
    """Print times in Markdown, with the share that the medians have of one of them."""
    print('\n| | ms a step | lowest – highest | % |\n|---|---|---|---|')
    for name, values in times.items():
        middle, low, high = statistics.median(values), min(values), max(values)
        share = f'{100 * _ratio(times, name, whole):.0f}'
        print(f'| {name} | {middle:.1f} | {low:.1f} – {high:.1f} | {share} |')


def print_clip(clip: dict[str, Any]) -> bool:
    """Print what padding and attention cost; return whether the targets are met."""
    print(f'\nCLIP ViT-B/16, source-only, {clip["batch_size"]} pairs')
    met = True
    for name, aim in (('text', MAX_TEXT_RATIO), ('step', MAX_STEP_RATIO)):
        print_table(clip[f'{name}_ms'], 'padded, eager')
        ratio = clip[f'{name}_ratio']
        print(f'{name}: ratio {ratio:.2f} (target: at most {aim:g})', flush=True)
        met = met and ratio <= aim
    return met


@DefaultScope.overwrite_default_scope('gckd_mm')
def main() -> int:
    """Measure and print; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--batch-size', type=int, default=64, help='B')
    parser.add_argument('--vit', type=int, nargs='?', const=4, metavar='B')
    parser.add_argument('--repeats', type=int, default=5, help='blocks that count')
    parser.add_argument('--sizes', type=int, nargs='+', default=[4096, 65536])
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    add_json_option(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(args.cfg_options)
    # There is nothing to learn: weights that move far would diverge.
    cfg.optim_wrapper.optimizer.lr = 1e-6
    # First, while the peak of the process is its own.
    growth = measure_growth(cfg, args)
    print_table(growth['step_ms'], f'{max(args.sizes)} rows')
    print(
        f'ratio {growth["ratio"]:.1f} (target: at most {MAX_GROWTH:g}); the four '
        f'memories {growth["memories_mb"]:.0f} MB (at most {MAX_MEMORIES_MB:g}), '
        f'the process at its peak {growth["peak_mb"]:.0f} MB'
    )
    met = growth['ratio'] <= MAX_GROWTH and growth['memories_mb'] <= MAX_MEMORIES_MB
    figures: dict[str, Any] = {'threads': args.threads, 'growth': growth}
    runs = {'tiny': (args.batch_size, MAX_RATIO)}
    if args.vit:
        runs['ViT-B/16'] = (args.vit, MAX_VIT_RATIO)
    for name, (batch_size, aim) in runs.items():
        image_size = use_vit(cfg) if name == 'ViT-B/16' else TINY_SIZE
        print(f'\n{name}, B = {batch_size}', flush=True)
        figures[name] = steps = measure_steps(cfg, image_size, batch_size, args.repeats)
        print_table(steps['step_ms'], 'GCKD')
        print(f'ratio {steps["ratio"]:.2f} (target: at most {aim:g})', flush=True)
        met = met and steps['ratio'] <= aim
    if args.vit:
        figures['clip'] = clip = measure_clip(clip_config(), CLIP_BATCH, args.repeats)
        met = print_clip(clip) and met
    print(f'\ntargets {"met" if met else "MISSED"}')
    if args.json:
        write_report(args.json, figures)
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main())
