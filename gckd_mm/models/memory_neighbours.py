"""Which memory rows are neighbours of which: the relations of the target's graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from gckd_mm.models.functional.neighbours import Neighbours
from gckd_mm.models.memory import EmbeddingMemory
from gckd_mm.models.neighbour_lists import NeighbourLists

OTHER_MODALITY = {'images': 'captions', 'captions': 'images'}
#: relation -> domain and, relative to the target row, modality of its neighbours
SEARCHED_RELATIONS = ('near', 'cross_domain', 'cross_modal')


class MemoryNeighbours(nn.Module):
    """Top-K lists of every row of the target memories, by modality and relation.

    - ``near``: the same modality of the target itself;
    - ``cross_domain``: the same modality of the source;
    - ``cross_modal``: the other modality of the target, by the teacher's similarity.

    Args:
        size: Rows of a memory.
        k: (modality, relation) -> neighbours to keep; 0 leaves the relation out.
    """

    def __init__(self, size: int, k: Mapping[tuple[str, str], int]) -> None:
        super().__init__()
        self.lists = nn.ModuleDict(
            {
                f'{modality}_{relation}': NeighbourLists(
                    size, count, exclude_self=relation == 'near'
                )
                for (modality, relation), count in k.items()
                if count
            }
        )

    def update(self, memories: nn.ModuleDict, written: Mapping[str, Tensor]) -> None:
        """Follow what was pushed into the memories.

        Args:
            memories: ``<domain>_<modality>`` -> memory.
            written: The same keys -> slots that were written since the last update.
        """
        for name, lists in self.lists.items():
            rows, columns = _ends(*name.split('_', 1))
            cast(NeighbourLists, lists).update(
                cast(EmbeddingMemory, memories[rows]).feats,
                cast(EmbeddingMemory, memories[columns]).feats,
                written[rows],
                written[columns],
            )

    def of(
        self,
        modality: str,
        relation: str,
        rows: Tensor | None = None,
        k: int | None = None,
    ) -> Neighbours:
        """Return the neighbours of some rows of a target memory.

        Args:
            modality: ``'images'`` or ``'captions'``: which target memory.
            relation: See the class.
            rows: Slots, shape (N,). Defaults to None: all filled ones.
            k: At most this many of each row. Defaults to None: all that are kept.
        """
        lists = cast(NeighbourLists, self.lists[f'{modality}_{relation}'])
        index, similarity = lists.neighbours(rows)
        return Neighbours(index[:, :k], similarity[:, :k])

    def reset(self) -> None:
        """Forget everything."""
        for lists in self.lists.values():
            cast(NeighbourLists, lists).reset()


def _ends(modality: str, relation: str) -> tuple[str, str]:
    if relation == 'near':
        return f'target_{modality}', f'target_{modality}'
    if relation == 'cross_domain':
        return f'target_{modality}', f'source_{modality}'
    return f'target_{modality}', f'target_{OTHER_MODALITY[modality]}'
