"""Maps show the same people, near what they are near to, in colours and shapes."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from gckd_mm.errors import InputError
from gckd_mm.visualization.embedding_map import (
    COLOURS,
    METHODS,
    Group,
    Panel,
    plot_embedding_map,
    project,
    require,
    sample_people,
)

GROUPS: list[Group] = [
    ('street', 'images'),
    ('street', 'captions'),
    ('mall', 'images'),
    ('mall', 'captions'),
]


def _pids(people: int = 40) -> dict[Group, np.ndarray]:
    """Two images and three captions of each person, in no order."""
    rng = np.random.default_rng(0)
    return {
        (domain, modality): rng.permutation(
            np.repeat(np.arange(people), 2 if modality == 'images' else 3)
        )
        for domain, modality in GROUPS
    }


def test_a_sample_has_whole_people_and_an_equal_share_of_each_domain() -> None:
    pids = _pids()
    rows = sample_people(pids, max_points=100, seed=1)
    for domain in ('street', 'mall'):
        images, captions = ((domain, modality) for modality in ('images', 'captions'))
        shown = set(pids[images][rows[images]])
        assert shown == set(pids[captions][rows[captions]])
        assert len(shown) == 10  # 50 points of 5 a person
        assert len(rows[images]) == 2 * 10
        assert len(rows[captions]) == 3 * 10
        assert (np.diff(rows[images]) > 0).all()


def test_a_sample_depends_on_ids_and_seed_alone() -> None:
    first, again, other = (
        sample_people(_pids(), max_points=60, seed=seed) for seed in (1, 1, 2)
    )
    assert all(np.array_equal(first[group], again[group]) for group in GROUPS)
    assert any(not np.array_equal(first[group], other[group]) for group in GROUPS)


def test_few_points_still_show_somebody_and_many_everybody() -> None:
    pids = _pids()
    assert [len(rows) for rows in sample_people(pids, max_points=1).values()] == [
        2,
        3,
        2,
        3,
    ]
    everybody = sample_people(pids, max_points=10**6)
    assert all(len(everybody[group]) == len(pids[group]) for group in GROUPS)
    with pytest.raises(InputError, match='at least 1 point, got max_points=0'):
        sample_people(pids, max_points=0)


def _clusters() -> dict[Group, np.ndarray]:
    """Images and captions around one direction, and another group far from them."""
    rng = np.random.default_rng(0)
    centres = {'street': np.eye(8)[0], 'mall': -np.eye(8)[0]}
    return {
        group: centres[group[0]] + 0.1 * rng.standard_normal((15, 8))
        for group in GROUPS
    }


def test_what_is_far_apart_stays_apart() -> None:
    pytest.importorskip('sklearn')
    found = project(_clusters())
    assert list(found) == GROUPS
    street = np.concatenate([found[group] for group in GROUPS[:2]])
    mall = np.concatenate([found[group] for group in GROUPS[2:]])
    assert street.shape == (30, 2)
    assert street.dtype == np.float32
    between = np.linalg.norm(street[:, None] - mall[None], axis=-1).min()
    for cluster in (street, mall):
        middle = cluster.mean(axis=0)
        assert between > np.linalg.norm(cluster - middle, axis=-1).mean()


def test_only_directions_count_and_nothing_is_drawn_at_random() -> None:
    pytest.importorskip('sklearn')
    feats = _clusters()
    state = np.random.get_state()  # noqa: NPY002
    first, again, longer = (
        project({group: scale * part for group, part in feats.items()})
        for scale in (1, 1, 4)
    )
    for group in GROUPS:
        assert np.array_equal(first[group], again[group])
        assert np.array_equal(first[group], longer[group])
    for before, after in zip(state, np.random.get_state(), strict=True):  # noqa: NPY002
        assert np.array_equal(before, after)


def test_umap_is_given_what_tsne_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class UMAP:
        def __init__(self, **options: Any) -> None:
            asked.append(options)

        def fit_transform(self, rows: np.ndarray) -> np.ndarray:
            assert np.linalg.norm(rows, axis=1) == pytest.approx(1)
            return rows[:, :2]

    monkeypatch.setitem(sys.modules, 'umap', SimpleNamespace(UMAP=UMAP))
    found = project(_clusters(), 'umap', seed=3)
    assert asked[0]['random_state'] == 3
    assert asked[0]['metric'] == 'cosine'
    assert [len(part) for part in found.values()] == [15] * 4


@pytest.mark.parametrize(
    ('method', 'module', 'message'),
    [
        ('umap', 'umap', 'UMAP needs umap-learn: pip install umap-learn'),
        ('tsne', 'sklearn.manifold', 't-SNE needs scikit-learn: pip install'),
    ],
)
def test_a_method_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, method: str, module: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=message):
        require(method)
    with pytest.raises(InputError, match=message):
        project(_clusters(), method)


def test_what_cannot_be_projected() -> None:
    with pytest.raises(InputError, match=r"one of \('tsne', 'umap'\), got 'pca'"):
        project(_clusters(), 'pca')
    with pytest.raises(InputError, match='at least 5 points, got 4'):
        project({('mall', 'images'): np.eye(4)})
    assert METHODS == ('tsne', 'umap')


def _positions(seed: int) -> dict[Group, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        group: rng.standard_normal((number + 3, 2))
        for number, group in enumerate(GROUPS)
    }


def test_colours_are_domains_and_shapes_are_modalities() -> None:
    panels = [Panel('before', _positions(0)), Panel('after', _positions(1))]
    figure = plot_embedding_map(panels)
    assert [axes.get_title() for axes in figure.axes] == ['before', 'after']
    for axes, panel in zip(figure.axes, panels, strict=True):
        assert len(axes.collections) == len(GROUPS)
        shapes, colours = {}, {}
        for group, points in zip(GROUPS, axes.collections, strict=True):
            assert np.array_equal(points.get_offsets(), panel.positions[group])
            domain, modality = group
            (colour,) = {to_hex(face) for face in points.get_facecolors()}
            assert colours.setdefault(domain, colour) == colour
            (path,) = points.get_paths()
            shape = path.vertices.tobytes()
            assert shapes.setdefault(modality, shape) == shape
        assert len(set(colours.values())) == len(set(shapes.values())) == 2
        assert set(colours.values()) == set(COLOURS[:2])


def test_nothing_is_written_over_the_points() -> None:
    figure = plot_embedding_map([Panel('a $10 coat_', _positions(0))])
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    (axes,) = figure.axes
    assert not axes.texts
    assert axes.get_legend() is None
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == [f'{domain}, {modality}' for domain, modality in GROUPS]


def test_what_cannot_be_plotted() -> None:
    with pytest.raises(ValueError, match='no maps'):
        plot_embedding_map([])
    positions = {(f'd{n}', 'images'): np.zeros((1, 2)) for n in range(5)}
    with pytest.raises(InputError, match=r'colours for 4 domains, got 5 \(d0, d1'):
        plot_embedding_map([Panel('many', positions)])
