"""Plot figures: python tools/visualize.py embeddings|graph [options]."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmengine.config import Config, DictAction
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from gckd_mm.checkpoint import load_weights, read_checkpoint
from gckd_mm.engine.launch import read_config, user_errors
from gckd_mm.errors import InputError
from gckd_mm.models import GCKD
from gckd_mm.registry import MODELS, type_name
from gckd_mm.visualization.embedding_map import (
    METHODS,
    Panel,
    plot_embedding_map,
    project,
    require,
    sample_people,
)
from gckd_mm.visualization.embedding_sources import (
    CheckpointEmbeddings,
    DumpedEmbeddings,
    EmbeddingSource,
    check_same_people,
)
from gckd_mm.visualization.figure_files import check_figure_path, save_figure
from gckd_mm.visualization.graph_figure import plot_propagation_graph
from gckd_mm.visualization.propagation_graph import fill_memories, neighbourhood

TITLES = ('before the adaptation', 'after the adaptation')


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Plot figures of a model.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    _add_embeddings_command(commands)
    _add_graph_command(commands)
    return parser.parse_args(arguments)


def _add_embeddings_command(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'embeddings', help='a map of the images and captions of some test sets'
    )
    parser.add_argument(
        'sources',
        nargs='+',
        metavar='SOURCE',
        help='checkpoints, or .npz files of tools/test.py --dump: a map each, as a '
        'rule before and after an adaptation',
    )
    parser.add_argument('--titles', nargs='+', help='of the maps')
    parser.add_argument(
        '--domains', nargs='+', default=[], help='test sets (default: all)'
    )
    parser.add_argument('--method', choices=METHODS, default='tsne')
    parser.add_argument(
        '--max-points',
        type=int,
        default=1500,
        help='images and captions of all domains together (default: 1500)',
    )
    parser.add_argument(
        '--config', help='of the checkpoints; the ones in them if left out'
    )
    _add_common_options(parser)
    parser.set_defaults(run=embeddings)


def _add_graph_command(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'graph', help='the graph that GCKD propagates along, around some samples'
    )
    parser.add_argument('config', help='config file that the run was trained with')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--steps',
        type=int,
        default=10,
        help='batches that go into the memories first (default: 10)',
    )
    parser.add_argument(
        '--num-seeds',
        type=int,
        default=8,
        help='samples of the last batch whose neighbours are shown (default: 8)',
    )
    parser.add_argument(
        '--neighbours',
        type=int,
        default=4,
        help='of a sample, by each relation (default: 4)',
    )
    _add_common_options(parser)
    parser.set_defaults(run=graph)


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--out', required=True, help='.png, .svg or .pdf')
    parser.add_argument('--seed', type=int, default=0, help='of what is chosen')
    parser.add_argument('--device', help='such as cuda:0 (default: the GPU, if any)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='override config keys: a.b=1 c="[x,y]"',
    )


def embeddings(options: argparse.Namespace) -> None:
    """Plot a map of each source, of the same people."""
    titles = options.titles or _titles(options.sources)
    if len(titles) != len(options.sources):
        raise InputError(
            f'--titles: expected {len(options.sources)} of them, one for each map, got '
            f'{len(titles)}'
        )
    require(options.method)
    sources = [_source(path, options) for path in options.sources]
    check_same_people(sources)
    rows = sample_people(sources[0].pids(), options.max_points, options.seed)
    panels = [
        Panel(title, project(source.feats(rows), options.method, options.seed))
        for title, source in zip(titles, sources, strict=True)
    ]
    save_figure(plot_embedding_map(panels), options.out)


def graph(options: argparse.Namespace) -> None:
    """Plot a part of the propagation graph."""
    cfg = read_config(options.config)
    cfg.merge_from_dict(options.cfg_options)
    checkpoint = read_checkpoint(options.checkpoint)
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        model = MODELS.build(cfg.model)
        if not isinstance(model, GCKD) or model.graph.neck is None:
            raise InputError(
                f'{options.config}: its model has no graph to plot: it must be a GCKD '
                f'with model.graph'
            )
        load_weights(model, checkpoint, options.checkpoint)
        loader = Runner.build_dataloader(_adaptation_only(cfg), seed=options.seed)
    if options.device:
        model.to(options.device)
    batch = fill_memories(model, loader, options.steps)
    shown = neighbourhood(
        model, loader.dataset, batch, options.num_seeds, options.neighbours
    )
    save_figure(plot_propagation_graph(shown), options.out)


def _titles(sources: Sequence[str]) -> Sequence[str]:
    return TITLES if len(sources) == len(TITLES) else sources


def _source(path: str, options: argparse.Namespace) -> EmbeddingSource:
    if path.endswith('.npz'):
        return DumpedEmbeddings(path, options.domains)
    config = None
    if options.config:
        config = read_config(options.config)
        config.merge_from_dict(options.cfg_options)
    elif options.cfg_options:
        raise InputError('--cfg-options need a --config to override')
    return CheckpointEmbeddings(path, config, options.domains, options.device)


def _adaptation_only(cfg: Config) -> Config:
    """Return the training loader's config, without the source stage."""
    loader = cfg.get('train_dataloader')
    if loader is None or type_name(loader.sampler.get('type')) != 'CrossDomainSampler':
        raise InputError(
            'the config has no train_dataloader with a CrossDomainSampler: name the '
            'one that the run was trained with'
        )
    loader.sampler.source_iters = 0
    loader.num_workers = 0
    loader.persistent_workers = False
    return loader


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Plot."""
    options = parse_arguments(arguments)
    check_figure_path(options.out)
    options.run(options)
    print(options.out)


if __name__ == '__main__':
    main()
