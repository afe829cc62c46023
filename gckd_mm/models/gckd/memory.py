"""Memories of embeddings, and the nearest neighbours of their rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmengine.dist import all_gather
from torch import Tensor, nn

from gckd_mm.errors import InputError

# Similarities that exist at a time: 64 MiB, enough for matrix products at full speed.
_CHUNK_SIZE = 2**24


class EmbeddingMemory(nn.Module):
    """The most recent embeddings of one domain and modality, one a sample.

    A sample that is pushed again replaces its own older embedding: a memory as large as
    the train set comes to hold all of it. All state is in persistent buffers.

    Args:
        size: Embeddings held at most, of 4 · dim + 16 bytes each.
        dim: Numbers an embedding. Neither may be below 1.

    Source: Luo et al., *GCKD*, AAAI 2025 (first-in-first-out memories of each domain
    and modality); one embedding a sample, and any batch size, are ours.
    """

    slot_feats: Tensor
    slot_keys: Tensor
    slot_stamps: Tensor
    num_pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise InputError(
                f'a memory holds at least 1 embedding of at least 1 number, got '
                f'size={size}, dim={dim}'
            )
        self.size = size
        self.dim = dim
        self.register_buffer('slot_feats', torch.zeros(size, dim))
        self.register_buffer('slot_keys', torch.full((size,), -1))
        # The number of rows pushed before the one in the slot. Those of empty slots are
        # negative and ascend: "the smallest first" is then the order of filling, too.
        self.register_buffer('slot_stamps', torch.arange(-size, 0))
        self.register_buffer('num_pushed', torch.tensor(0))

    def __len__(self) -> int:
        """Return the number of filled slots."""
        return int((self.slot_stamps >= 0).sum())

    @property
    def feats(self) -> Tensor:
        """The M embeddings held, shape (M, D), float32: a view of the slots."""
        return self.slot_feats[: len(self)]

    @property
    def keys(self) -> Tensor:
        """Which sample each embedding is of, shape (M,), int64: a view."""
        return self.slot_keys[: len(self)]

    @torch.no_grad()
    def push(self, feats: Tensor, keys: Tensor) -> Tensor:
        """Store the embeddings of all W ranks, in rank order, on every rank.

        A sample that is held already is replaced in place, the others take the empty
        slots in order, then those of the samples pushed longest ago. Of several rows
        with one key, and of more samples than slots, the last are stored.

        Args:
            feats: Shape (N, D), any floating-point dtype; N is the same on all ranks.
            keys: Which sample each row is of, an index from 0, shape (N,), int64.

        Returns:
            The slot of each row of each rank, shape (W·N,); -1 if it did not stay.

        Raises:
            InputError: If the embeddings have another dimension than the memory.
        """
        if feats.shape[1] != self.dim:
            raise InputError(
                f'the memory holds {self.dim} numbers an embedding, got '
                f'{feats.shape[1]}: the two towers, and the memory, must agree'
            )
        if len(feats) != len(keys):
            raise ValueError(f'got {len(feats)} embeddings and {len(keys)} keys')
        feats, keys = (
            torch.cat(all_gather(each.detach().contiguous())) for each in (feats, keys)
        )
        if len(keys) == 0:
            return keys
        samples, sample_of_row = keys.unique(return_inverse=True)
        last_rows = torch.zeros_like(samples).scatter_reduce_(
            0, sample_of_row, torch.arange(len(keys), device=keys.device), 'amax'
        )
        kept = last_rows.argsort()[-self.size :]
        slots = self._choose_slots(samples, kept)

        rows = last_rows[kept]
        self.slot_feats[slots] = feats[rows].float()
        self.slot_keys[slots] = keys[rows]
        self.slot_stamps[slots] = self.num_pushed + rows
        self.num_pushed += len(keys)
        slot_of_sample = torch.full_like(samples, -1)
        slot_of_sample[kept] = slots
        return slot_of_sample[sample_of_row]

    def written_since(self, num_pushed: Tensor) -> Tensor:
        """Return the slots written since :attr:`num_pushed` was that, ascending."""
        return (self.slot_stamps >= num_pushed).nonzero().squeeze(1)

    def reset(self) -> None:
        """Forget everything."""
        self.slot_feats.zero_()
        self.slot_keys.fill_(-1)
        self.slot_stamps.copy_(torch.arange(-self.size, 0))
        self.num_pushed.zero_()

    def _choose_slots(self, samples: Tensor, kept: Tensor) -> Tensor:
        # samples are ascending and pairwise different, kept indexes at most `size` of
        # them. Looking the slots up among the samples, not the other way round, needs
        # no order among the slots.
        place = torch.searchsorted(samples, self.slot_keys).clamp(max=len(samples) - 1)
        held = samples[place] == self.slot_keys
        slot_of_sample = torch.full_like(samples, -1)
        slot_of_sample[place[held]] = held.nonzero().squeeze(1)

        slots = slot_of_sample[kept]
        new = slots < 0
        stamps = self.slot_stamps.clone()
        stamps[slots[~new]] = torch.iinfo(torch.int64).max
        slots[new] = stamps.topk(int(new.sum()), largest=False).indices
        return slots


class Neighbours(NamedTuple):
    """The K nearest neighbours of N rows, the most similar first; shapes (N, K).

    ``index`` is their rows, int64, -1 where there is none; ``similarity`` is their
    cosine, float32, -inf where there is none.
    """

    index: Tensor  # type: ignore[assignment] # not what tuple.index is
    similarity: Tensor


def nearest_neighbours(
    queries: Tensor,
    keys: Tensor,
    k: int,
    exclude: Tensor | None = None,
    chunk_size: int = 4096,
) -> Neighbours:
    """Find the k keys most similar to each query, by brute force: shapes (N, k).

    In float32, under autocast too, and without a gradient.

    Args:
        queries: L2-normalised, shape (N, D).
        keys: L2-normalised, shape (M, D).
        k: Neighbours a query; those that M keys cannot give are padded.
        exclude: The key that each query must not find, shape (N,); -1 for none.
        chunk_size: Queries compared at a time, in 4 · chunk_size · M bytes.
    """
    index = queries.new_full((len(queries), k), -1, dtype=torch.int64)
    best = queries.new_full((len(queries), k), -torch.inf, dtype=torch.float32)
    found = min(k, len(keys))
    if found == 0:
        return Neighbours(index, best)
    with torch.no_grad(), torch.autocast(queries.device.type, enabled=False):
        transposed = keys.float().t()
        for start in range(0, len(queries), chunk_size):
            chunk = slice(start, start + chunk_size)
            similarity = queries[chunk].float() @ transposed
            if exclude is not None:
                _exclude(similarity, exclude[chunk, None])
            torch.topk(
                similarity, found, out=(best[chunk, :found], index[chunk, :found])
            )
    return Neighbours(index.masked_fill(best == -torch.inf, -1), best)


class NeighbourLists(nn.Module):
    """The exact k nearest columns of every row, updated at a cost linear in the memory.

    Rows and columns are the embeddings of two memories, or of one. Each row keeps a
    list of up to L = 2k columns, and a bound that no column outside of its list
    exceeds: as long as the list holds k, its best k are the best of all. A list that
    has lost more is found anew by brute force. An update with B written slots compares
    B rows with all columns and B columns with all rows, and merges only the lists that
    one of them enters. All state is in persistent buffers, of 8 · L + 4 bytes a row.

    Args:
        size: Rows at most: the size of the rows' memory.
        k: Neighbours a row. Neither may be below 1.
        exclude_self: Rows and columns are one memory, and no row its own neighbour.

    Attributes:
        num_repaired: How many lists were found anew although their row was not written.
    """

    index: Tensor
    similarity: Tensor
    bound: Tensor
    num_rows: Tensor

    def __init__(self, size: int, k: int, exclude_self: bool = False) -> None:
        super().__init__()
        if size < 1 or k < 1:
            raise InputError(
                f'lists need at least 1 row, and a row at least 1 neighbour, got '
                f'size={size}, k={k}'
            )
        self.size = size
        self.k = k
        self.length = 2 * k
        self.exclude_self = exclude_self
        self.num_repaired = 0
        empty = (size, self.length)
        self.register_buffer('index', torch.full(empty, -1, dtype=torch.int32))
        self.register_buffer('similarity', torch.full(empty, -torch.inf))
        # Nothing is known of a row before its first search.
        self.register_buffer('bound', torch.full((size,), torch.inf))
        self.register_buffer('num_rows', torch.tensor(0))

    @torch.no_grad()
    def update(
        self, rows: Tensor, columns: Tensor, new_rows: Tensor, new_columns: Tensor
    ) -> None:
        """Take in what was written to the memories since the last update.

        Args:
            rows: The rows' memory, L2-normalised, shape (N, D), N at most ``size``.
            columns: The columns' memory, L2-normalised, shape (M, D).
            new_rows: Slots of the rows written, in any order; -1 is ignored.
            new_columns: The same of the columns.
        """
        if len(rows) > self.size:
            raise ValueError(f'got {len(rows)} rows for {self.size} lists')
        self.num_rows.fill_(len(rows))
        new_rows, new_columns = (
            slots[slots >= 0].unique() for slots in (new_rows, new_columns)
        )
        # Their lists are found anew in any case, so that nothing need enter them.
        self.bound[new_rows] = torch.inf
        if len(new_columns):
            self._drop(len(columns), new_columns)
            with torch.autocast(rows.device.type, enabled=False):
                self._insert(rows.float(), columns[new_columns].float(), new_columns)
        possible = len(columns) - self.exclude_self
        held = (self.index[: len(rows)] >= 0).sum(dim=1)
        wanted = held < min(self.k, possible)
        wanted[new_rows] = True
        wanted_rows = wanted.nonzero().squeeze(1)
        self.num_repaired += len(wanted_rows) - len(new_rows)
        self._search(rows, columns, wanted_rows)

    @torch.no_grad()
    def neighbours(self, rows: Tensor | None = None) -> Neighbours:
        """Return the k nearest columns of R rows, shapes (R, k), as of the last update.

        ``rows`` are slots, shape (R,), by default all; -1 has no neighbours.
        """
        if rows is None:
            rows = torch.arange(int(self.num_rows), device=self.index.device)
        similarity = self.similarity[rows].masked_fill(rows[:, None] < 0, -torch.inf)
        best, place = similarity.topk(self.k)
        index = self.index[rows].gather(1, place).long()
        return Neighbours(index.masked_fill(best == -torch.inf, -1), best)

    def reset(self) -> None:
        """Forget everything."""
        self.index.fill_(-1)
        self.similarity.fill_(-torch.inf)
        self.bound.fill_(torch.inf)
        self.num_rows.zero_()
        self.num_repaired = 0

    def _drop(self, num_columns: int, new_columns: Tensor) -> None:
        # One column more, never written, for the empty entries' -1 to point to.
        written = torch.zeros(
            num_columns + 1, dtype=torch.bool, device=new_columns.device
        )
        written[new_columns] = True
        stale = written[self.index.long()]
        self.index.masked_fill_(stale, -1)
        self.similarity.masked_fill_(stale, -torch.inf)

    def _insert(self, rows: Tensor, feats: Tensor, new_columns: Tensor) -> None:
        chunk_size = max(1, _CHUNK_SIZE // (len(feats) + self.length))
        for start in range(0, len(rows), chunk_size):
            similarity = rows[start : start + chunk_size] @ feats.t()
            bound = self.bound[start : start + len(similarity)]
            entered = (similarity.amax(dim=1) > bound).nonzero().squeeze(1)
            self._merge(start + entered, similarity[entered], new_columns)

    def _merge(self, rows: Tensor, similarity: Tensor, new_columns: Tensor) -> None:
        bound = self.bound[rows]
        entering = similarity > bound[:, None]
        # Few of the new columns enter any one list: the rest need not be sorted.
        width = int(entering.sum(dim=1).amax()) if len(rows) else 0
        if width == 0:
            return
        new, place = similarity.masked_fill(~entering, -torch.inf).topk(width)
        held = self.similarity[rows]
        everything = torch.cat([held, new], dim=1)
        left_out = everything.topk(width, dim=1, largest=False)
        left = torch.zeros_like(everything, dtype=torch.bool)
        left.scatter_(1, left_out.indices, True)
        # As many new entries stay as old ones leave, in every row.
        hole, stays = left[:, : self.length], ~left[:, self.length :]
        index = self.index[rows]
        index[hole] = new_columns.int()[place[stays]]
        held[hole] = new[stays]
        self.similarity[rows] = held
        self.index[rows] = index.masked_fill_(held == -torch.inf, -1)
        # The best of what was left out; -inf if all found room.
        self.bound[rows] = bound.maximum(left_out.values.amax(dim=1))

    def _search(self, rows: Tensor, columns: Tensor, wanted: Tensor) -> None:
        found = nearest_neighbours(
            rows[wanted],
            columns,
            self.length,
            exclude=wanted if self.exclude_self else None,
            chunk_size=max(1, _CHUNK_SIZE // max(1, len(columns))),
        )
        self.index[wanted] = found.index.int()
        self.similarity[wanted] = found.similarity
        all_held = len(columns) - self.exclude_self <= self.length
        self.bound[wanted] = -torch.inf if all_held else found.similarity[:, -1]


def _exclude(similarity: Tensor, columns: Tensor) -> None:
    # A masked scatter instead of the index of the rows concerned, which would make an
    # accelerator wait.
    inside = columns.clamp(min=0)
    values = similarity.gather(1, inside).masked_fill(columns >= 0, -torch.inf)
    similarity.scatter_(1, inside, values)


def at_least_float32(values: Tensor) -> Tensor:
    """Return the values in float32, or in float64 if they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
