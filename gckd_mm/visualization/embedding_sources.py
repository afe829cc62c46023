"""Where the embeddings of a map come from: a dump of a test, or a checkpoint."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope

from gckd_mm.checkpoint import built_from, config_of, read_checkpoint
from gckd_mm.errors import InputError
from gckd_mm.registry import DATASETS
from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.visualization.embedding_map import Group

MODALITIES = {'images': 'gallery', 'captions': 'query'}


class EmbeddingSource(Protocol):
    """Images and captions of some test sets, as one model embeds them."""

    name: str

    def pids(self) -> dict[Group, np.ndarray]:
        """Return the person id of every image and caption, each of shape (N,)."""

    def feats(self, rows: Mapping[Group, np.ndarray]) -> dict[Group, np.ndarray]:
        """Return the embeddings of some rows, each of shape (n, D), float32."""


class DumpedEmbeddings:
    """What ``tools/test.py --dump`` has written.

    Args:
        path: The ``.npz`` file.
        domains: Test sets to read. Defaults to all that it has.
    """

    def __init__(self, path: str, domains: Sequence[str] = ()) -> None:
        self.name = path
        self._arrays = _read_arrays(path)
        found = dict.fromkeys(key.rpartition('/')[0] for key in self._arrays)
        test_sets = dict.fromkeys(name.rpartition('/')[0] for name in found)
        self._groups = [
            (domain, modality)
            for domain in _chosen(domains, test_sets, path)
            for modality in MODALITIES
        ]
        for group in self._groups:
            self._check(group)

    def pids(self) -> dict[Group, np.ndarray]:
        """See :class:`EmbeddingSource`."""
        return {group: self._array(group, 'pids') for group in self._groups}

    def feats(self, rows: Mapping[Group, np.ndarray]) -> dict[Group, np.ndarray]:
        """See :class:`EmbeddingSource`."""
        return {group: self._array(group, 'feats')[rows[group]] for group in rows}

    def _array(self, group: Group, field: str) -> np.ndarray:
        key = '/'.join((*group, field))
        if key not in self._arrays:
            raise InputError(
                f'{self.name}: has no array {key!r}: write it with tools/test.py --dump'
            )
        return self._arrays[key]

    def _check(self, group: Group) -> None:
        feats, pids = self._array(group, 'feats'), self._array(group, 'pids')
        if (
            feats.ndim != 2
            or not np.issubdtype(feats.dtype, np.floating)
            or pids.shape != feats.shape[:1]
            or not np.isfinite(feats).all()
        ):
            raise InputError(
                f'{self.name}: {"/".join(group)} must hold finite feats of shape '
                f'(N, D) and pids of shape (N,), got {feats.dtype} of shape '
                f'{feats.shape} and shape {pids.shape}'
            )


class CheckpointEmbeddings:
    """What a checkpoint makes of the test sets of a config.

    Args:
        checkpoint: The file, or ``gckd_mm://<name>``.
        config: Names the test sets. Defaults to the one in the checkpoint.
        domains: Those of its test sets that are wanted. Defaults to all of them.
        device: Such as ``'cuda:0'``. Defaults to the GPU if there is one.
    """

    def __init__(
        self,
        checkpoint: str,
        config: Config | None = None,
        domains: Sequence[str] = (),
        device: str | None = None,
    ) -> None:
        self.name = checkpoint
        if config is None:
            stored = read_checkpoint(checkpoint)
            with built_from(stored, checkpoint):
                self._build(config_of(stored, checkpoint), checkpoint, domains, device)
        else:
            self._build(config, checkpoint, domains, device)

    def _build(
        self,
        config: Config,
        checkpoint: str,
        domains: Sequence[str],
        device: str | None,
    ) -> None:
        test_sets = config.get('test_dataloader') or {}
        # Read first: a missing data set is known before a model is built.
        self._datasets: dict[Group, Any] = {}
        with DefaultScope.overwrite_default_scope('gckd_mm'):
            for domain in _chosen(domains, test_sets, checkpoint):
                for modality, role in MODALITIES.items():
                    dataset = DATASETS.build(test_sets[domain][role]['dataset'])
                    self._datasets[domain, modality] = dataset
        self._inferencer = PersonSearchInferencer(config, checkpoint, device)

    def pids(self) -> dict[Group, np.ndarray]:
        """See :class:`EmbeddingSource`."""
        return {group: dataset.pids for group, dataset in self._datasets.items()}

    def feats(self, rows: Mapping[Group, np.ndarray]) -> dict[Group, np.ndarray]:
        """See :class:`EmbeddingSource`."""
        feats = {}
        for group, chosen in rows.items():
            items = [self._datasets[group].get_data_info(int(row)) for row in chosen]
            if group[1] == 'images':
                paths = [item['img_path'] for item in items]
                feats[group] = self._inferencer.encode_images(paths)
            else:
                captions = [item['caption'] for item in items]
                feats[group] = self._inferencer.encode_texts(captions)
        return feats


def check_same_people(sources: Sequence[EmbeddingSource]) -> None:
    """Refuse sources of other test sets: their maps could not be compared."""
    first, *others = sources
    expected = first.pids()
    for source in others:
        found = source.pids()
        if found.keys() != expected.keys():
            raise InputError(
                f'{source.name}: shows {_names(found)}, but {first.name} shows '
                f'{_names(expected)}: name the test sets that both have'
            )
        for group, pids in expected.items():
            if not np.array_equal(found[group], pids):
                raise InputError(
                    f'{source.name}: the {group[1]} of {group[0]} are not those of '
                    f'{first.name}: both must come from the same test set'
                )


def _read_arrays(path: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError as error:
        raise InputError(
            f'{path}: does not exist: write it with tools/test.py --dump'
        ) from error
    # A file of one array, of pickles, cut short, or of something else.
    except (TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f'{path}: is no .npz file of tools/test.py --dump ({error})'
        ) from error


def _chosen(wanted: Sequence[str], there: Iterable[str], where: str) -> list[str]:
    known = list(there)
    if not known:
        raise InputError(f'{where}: has no test sets')
    missing = [domain for domain in wanted if domain not in known]
    if missing:
        raise InputError(
            f'{where}: has no test set {missing[0]!r}, only {", ".join(known)}'
        )
    return list(dict.fromkeys(wanted)) or known


def _names(pids: Mapping[Group, Any]) -> str:
    return ', '.join(dict.fromkeys(domain for domain, _ in pids))
