"""A map of embeddings: images and captions of some domains in the plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from matplotlib.figure import Figure

from gckd_mm.errors import InputError

#: domain (a test set) and modality (``'images'`` or ``'captions'``) of some points
Group: TypeAlias = tuple[str, str]

METHODS = ('tsne', 'umap')
# Of Okabe and Ito: distinct with any of the common colour deficiencies.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7')
MARKERS = {'images': 'o', 'captions': '^'}
_PERPLEXITY = 30.0
_FEWEST = 5
_PANEL = 5.0  # inches


class Panel(NamedTuple):
    """One map, such as that of the embeddings before an adaptation."""

    title: str
    positions: Mapping[Group, np.ndarray]  # each of shape (N, 2)


def sample_people(
    pids: Mapping[Group, np.ndarray], max_points: int, seed: int = 0
) -> dict[Group, np.ndarray]:
    """Choose people, with all of their images and captions.

    Every domain may show as many points. The choice depends on the ids and the seed
    alone: two models are shown with the same people.

    Args:
        pids: Domain and modality -> person ids, shape (N,).
        max_points: Of all domains together; a domain shows at least one person.
        seed: Of the choice.

    Returns:
        Domain and modality -> rows that were chosen, ascending, shape (n,), int64.
    """
    if max_points < 1:
        raise InputError(f'a map needs at least 1 point, got max_points={max_points}')
    domains = list(dict.fromkeys(domain for domain, _ in pids))
    most = max_points // len(domains)
    chosen = {}
    for number, domain in enumerate(domains):
        groups = [group for group in pids if group[0] == domain]
        people, counts = np.unique(
            np.concatenate([pids[group] for group in groups]), return_counts=True
        )
        order = np.random.default_rng([seed, number]).permutation(len(people))
        fitting = int((counts[order].cumsum() <= most).sum())
        shown = people[order[: max(1, fitting)]]
        for group in groups:
            chosen[group] = np.flatnonzero(np.isin(pids[group], shown))
    return chosen


def project(
    feats: Mapping[Group, np.ndarray], method: str = 'tsne', seed: int = 0
) -> dict[Group, np.ndarray]:
    """Place embeddings in the plane, all groups together, those near each other near.

    Neither numpy's nor torch's global generators are used. t-SNE runs on one thread,
    with which equal embeddings give equal positions.

    Args:
        feats: Domain and modality -> embeddings, shape (N, D); only their directions
            count.
        method: ``'tsne'``, of scikit-learn, or ``'umap'``, of umap-learn.
        seed: Of the method; t-SNE begins with the principal components and hardly
            needs it.

    Returns:
        Domain and modality -> positions, shape (N, 2), float32.

    Source: van der Maaten and Hinton, *Visualizing Data using t-SNE*, JMLR 2008;
    McInnes et al., *UMAP*, arXiv 1802.03426, 2018. What is near on a map was near in
    the embeddings; distances between groups, and their sizes, mean little.
    """
    if method not in METHODS:
        raise InputError(f'method must be one of {METHODS}, got {method!r}')
    rows = np.concatenate(list(feats.values())).astype(np.float32)
    if len(rows) < _FEWEST:
        raise InputError(f'a map needs at least {_FEWEST} points, got {len(rows)}')
    rows /= np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-12)
    place = _tsne if method == 'tsne' else _umap
    positions = place(rows, seed).astype(np.float32)
    ends = np.cumsum([len(part) for part in feats.values()])[:-1]
    return dict(zip(feats, np.split(positions, ends), strict=True))


def plot_embedding_map(panels: Sequence[Panel]) -> Figure:
    """Plot maps side by side: colours are domains, shapes are modalities.

    Args:
        panels: At least one, all with the same groups.
    """
    if not panels:
        raise ValueError('there are no maps to plot')
    domains = list(dict.fromkeys(domain for domain, _ in panels[0].positions))
    if len(domains) > len(COLOURS):
        raise InputError(
            f'a map has colours for {len(COLOURS)} domains, got {len(domains)} '
            f'({", ".join(domains)}): choose some of them'
        )
    size = (_PANEL * len(panels), _PANEL + 0.6)
    figure = Figure(figsize=size, layout='constrained')
    axes_of_panels = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(axes_of_panels, panels, strict=True):
        for (domain, modality), positions in panel.positions.items():
            axes.scatter(
                *positions.T,
                s=14,
                marker=MARKERS[modality],
                color=COLOURS[domains.index(domain)],
                alpha=0.65,
                linewidths=0,
                label=f'{domain}, {modality}',
            )
        axes.set_title(panel.title, parse_math=False)
        # Positions have no unit, and only their distances mean anything.
        axes.set(xticks=[], yticks=[], aspect='equal', adjustable='datalim')
    handles, labels = axes_of_panels[0].get_legend_handles_labels()
    legend = figure.legend(
        handles,
        labels,
        loc='outside lower center',
        ncols=len(domains) if len(domains) > 1 else len(labels),
        frameon=False,
        markerscale=2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def require(method: str) -> None:
    """Refuse a method that is not installed, before what it is needed for."""
    if method == 'umap':
        _import_umap()
    else:
        _import_tsne()


def _tsne(rows: np.ndarray, seed: int) -> np.ndarray:
    tsne, threadpool_limits = _import_tsne()
    perplexity = min(_PERPLEXITY, (len(rows) - 1) / 3)
    with threadpool_limits(1):
        return tsne(perplexity=perplexity, init='pca', random_state=seed).fit_transform(
            rows
        )


def _umap(rows: np.ndarray, seed: int) -> np.ndarray:
    neighbours = min(15, len(rows) - 1)
    umap = _import_umap()
    return umap(
        n_neighbors=neighbours, metric='cosine', random_state=seed, n_jobs=1
    ).fit_transform(rows)


def _import_tsne() -> tuple[Any, Any]:
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise InputError(
            "t-SNE needs scikit-learn: pip install 'gckd-mm[cluster]'"
        ) from error
    return TSNE, threadpool_limits


def _import_umap() -> Any:
    try:
        from umap import UMAP
    except ImportError as error:
        raise InputError(
            "UMAP needs umap-learn: pip install umap-learn, or use method='tsne'"
        ) from error
    return UMAP
