"""What keeps the vectors of a gallery and finds the nearest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from gckd_mm.search.gallery.conditions import Condition
from gckd_mm.search.gallery.damage import Checked
from gckd_mm.search.gallery.items import Item, Match


class Engine(Protocol):
    """Items and their embeddings, by path: in this folder, or on a server."""

    def __len__(self) -> int:
        """Return how many items there are."""

    def items(self) -> Iterator[Item]:
        """Yield every item, in no order."""

    def upsert(self, items: Sequence[Item], feats: np.ndarray) -> None:
        """Add items, or replace those of the same path: all of them or none.

        More than 16 MB may be written in parts, each whole or not at all.

        Args:
            items: N of them, of different paths.
            feats: L2-normalised, shape (N, D), float32.

        Raises:
            InputError: If one is not finite or not of length 1.
        """

    def delete(self, paths: Sequence[str]) -> None:
        """Remove items; what is not there is no error."""

    def prepare(self) -> None:
        """Make ready for changes, if that takes anything."""
        return

    def damaged(self) -> list[str]:
        """Verify everything; return the paths of items whose embeddings are damaged.

        Raises:
            DamagedGalleryError: If more is damaged, which cannot be repaired.
        """
        return []

    def check(self, fully: bool = False) -> None:
        """Compare what is stored with its checksums.

        Args:
            fully: Whether to compare all of it, whatever the time.

        Raises:
            DamagedGalleryError: If something is damaged that searches need.
        """
        return

    def verify(self, progress: Callable[[int, int], None]) -> list[Checked]:
        """Compare all of it with its checksums; return what was verified.

        Args:
            progress: Called with the number of images verified, and in all.
        """

    def finish(self) -> None:
        """Make ready for searching, after changes."""

    def search(
        self,
        queries: np.ndarray,
        top_k: int,
        where: Sequence[Condition],
        exact: bool = False,
    ) -> list[list[Match]]:
        """Find the nearest items that fulfil all conditions.

        Args:
            queries: L2-normalised, shape (Q, D), float32.
            top_k: At most as many for each.
            where: Conditions.
            exact: Whether to compare with all items, whatever the index.

        Returns:
            Q lists, best first; among equal scores the lower path comes first. (Which
            of equal ones are left out, where there are more than ``top_k``, is open.)
        """

    def get(self, paths: Sequence[str]) -> list[Item | None]:
        """Return items by their paths, None for those that are not there."""

    def feats_of(self, paths: Sequence[str]) -> np.ndarray:
        """Return the embeddings of items; shape (N, D), float32.

        Raises:
            InputError: If one is not there, or no longer.
        """

    def field_values(self, limit: int) -> dict[str, list[Any]]:
        """Return the fields and, of those with at most ``limit`` values, these."""

    def describe(self) -> dict[str, Any]:
        """Return what people want to know: kind of index, bytes, …."""

    def close(self) -> None:
        """Let go of files and connections."""
