"""The memory of recent embeddings of one domain and modality."""

from __future__ import annotations

import torch
from mmengine.dist import all_gather
from torch import Tensor, nn

from gckd_mm.errors import InputError


class EmbeddingMemory(nn.Module):
    """The most recent embeddings of one domain and modality, one a sample.

    A sample that is pushed again replaces its own older embedding. A memory at least as
    large as the train set therefore comes to hold all of it, each sample as it was last
    seen; a smaller one holds the ``size`` samples that were pushed last.

    Slots fill from 0 upwards, and the filled ones are what :attr:`feats`, :attr:`keys`
    and :attr:`pids` show: views, which the next push changes. A loss that multiplies by
    :attr:`feats` must run its backward pass before that push, or clone them.

    Everything is a persistent buffer, so that a resumed run goes on exactly.

    Args:
        size: Embeddings held at most. Takes 4 · size · dim + 24 · size bytes: 69 MB for
            65,536 embeddings of 256 numbers.
        dim: Numbers an embedding.

    Raises:
        InputError: If the size or the dimension is below 1.

    Source: Luo et al., *GCKD*, AAAI 2025 (first-in-first-out memories of each domain
    and modality); one embedding a sample, and any batch size, are ours.
    """

    slot_feats: Tensor
    slot_keys: Tensor
    slot_pids: Tensor
    slot_stamps: Tensor
    num_pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise InputError(
                f'a memory must hold at least 1 embedding, got size={size}'
            )
        if dim < 1:
            raise InputError(f'embeddings have at least 1 number, got dim={dim}')
        self.size = size
        self.dim = dim
        self.register_buffer('slot_feats', torch.zeros(size, dim))
        self.register_buffer('slot_keys', torch.full((size,), -1))
        self.register_buffer('slot_pids', torch.full((size,), -1))
        # The number of rows pushed before the one in the slot. Those of empty slots are
        # negative and ascend: "the smallest first" is then the order of filling, too.
        self.register_buffer('slot_stamps', torch.arange(-size, 0))
        self.register_buffer('num_pushed', torch.tensor(0))

    def __len__(self) -> int:
        """Return the number of filled slots."""
        return int((self.slot_stamps >= 0).sum())

    @property
    def fill(self) -> float:
        """The share of the slots that is filled, 0 … 1."""
        return len(self) / self.size

    @property
    def feats(self) -> Tensor:
        """The embeddings held, shape (M, D), float32: a view, without gradient."""
        return self.slot_feats[: len(self)]

    @property
    def keys(self) -> Tensor:
        """Which sample each embedding is of, shape (M,), int64: a view."""
        return self.slot_keys[: len(self)]

    @property
    def pids(self) -> Tensor:
        """Person ids, shape (M,), int64, -1 where unknown: a view."""
        return self.slot_pids[: len(self)]

    @torch.no_grad()
    def push(self, feats: Tensor, keys: Tensor, pids: Tensor | None = None) -> Tensor:
        """Store the embeddings of all W ranks, in rank order, on every rank.

        A sample that is held already is replaced in place, the others take the empty
        slots in order, then those of the samples pushed longest ago. Of several rows
        with one key the last is stored; of more samples than slots, those that come
        last. The values are not checked: NaN goes in like any number.

        Args:
            feats: Shape (N, D), any floating-point dtype, stored in float32; N is the
                same on all ranks.
            keys: Which sample each row is of, an index from 0, shape (N,), int64.
            pids: Person ids, shape (N,), int64. Defaults to unknown.

        Returns:
            The slot of each row of each rank, shape (W·N,), int64, equal on all ranks:
            the same slot for rows of one key, -1 for samples that did not stay.

        Raises:
            InputError: If the embeddings have another dimension than the memory.
            ValueError: If there are not as many keys or pids as embeddings.
        """
        if feats.shape[1] != self.dim:
            raise InputError(
                f'the memory holds {self.dim} numbers an embedding, got '
                f'{feats.shape[1]}: the two towers, and the memory, must agree'
            )
        if pids is None:
            pids = torch.full_like(keys, -1)
        if not len(feats) == len(keys) == len(pids):
            raise ValueError(
                f'got {len(feats)} embeddings, {len(keys)} keys and {len(pids)} pids'
            )
        feats, keys, pids = (_gather(each) for each in (feats, keys, pids))
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
        self.slot_pids[slots] = pids[rows]
        self.slot_stamps[slots] = self.num_pushed + rows
        self.num_pushed += len(keys)
        slot_of_sample = torch.full_like(samples, -1)
        slot_of_sample[kept] = slots
        return slot_of_sample[sample_of_row]

    def written_since(self, num_pushed: Tensor) -> Tensor:
        """Return the slots written after a moment, ascending, shape (W,), int64.

        Args:
            num_pushed: What :attr:`num_pushed` was then.
        """
        return (self.slot_stamps >= num_pushed).nonzero().squeeze(1)

    def reset(self) -> None:
        """Forget everything."""
        self.slot_feats.zero_()
        self.slot_keys.fill_(-1)
        self.slot_pids.fill_(-1)
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


def _gather(tensor: Tensor) -> Tensor:
    return torch.cat(all_gather(tensor.detach().contiguous()))
