"""Hard negatives: never a forbidden one, and the similar ones more often."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gckd_mm.models.functional.hard_negatives import hard_negatives


def problem(seed: int, rows: int = 7, columns: int = 5) -> tuple[Tensor, Tensor]:
    """Random similarities; some rows have one permitted column, one has none."""
    generator = torch.Generator().manual_seed(seed)
    similarity = 2 * torch.rand(rows, columns, generator=generator) - 1
    forbidden = torch.rand(rows, columns, generator=generator) < 0.6
    forbidden[0] = True
    forbidden[1] = True
    forbidden[1, seed % columns] = False
    return similarity, forbidden


@pytest.mark.parametrize('sample', [True, False])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
def test_a_forbidden_column_is_never_chosen(dtype: torch.dtype, sample: bool) -> None:
    for seed in range(300):
        similarity, forbidden = problem(seed)
        # The forbidden ones are the most similar, as they are in training.
        similarity = (similarity + 2 * forbidden).to(dtype)

        chosen = hard_negatives(
            similarity, forbidden, torch.Generator().manual_seed(seed), 0.01, sample
        )

        assert chosen.dtype == torch.int64
        for column, row in zip(chosen.tolist(), forbidden, strict=True):
            assert column == -1 if row.all() else not row[column]
        assert chosen[:2].tolist() == [-1, seed % 5]


def test_the_hardest_against_a_loop() -> None:
    for seed in range(50):
        similarity, forbidden = problem(seed)

        chosen = hard_negatives(similarity, forbidden, sample=False)

        for row, column in enumerate(chosen.tolist()):
            permitted = [j for j in range(5) if not forbidden[row, j]]
            hardest = max(
                permitted, key=similarity[row].tolist().__getitem__, default=-1
            )
            assert column == hardest


@pytest.mark.parametrize('temperature', [0.05, 0.2, 1.0])
def test_columns_are_drawn_with_the_softmaxs_frequencies(temperature: float) -> None:
    similarity = torch.tensor([0.3, 0.25, 0.9, 0.1, 0.32], dtype=torch.float64)
    forbidden = torch.tensor([False, False, True, False, False])
    weights = (similarity / temperature).exp() * ~forbidden
    expected = weights / weights.sum()
    draws = 50_000

    chosen = hard_negatives(
        similarity.expand(draws, 5),
        forbidden.expand(draws, 5),
        torch.Generator().manual_seed(0),
        temperature,
    )

    counts = chosen.bincount(minlength=5).double()
    deviation = (draws * expected * (1 - expected)).sqrt()
    assert ((counts - draws * expected).abs() <= 4 * deviation).all()


def test_rows_are_drawn_independently() -> None:
    draws = 20_000
    similarity = torch.zeros(draws, 2)

    chosen = hard_negatives(
        similarity, similarity > 1, torch.Generator().manual_seed(0)
    )

    changes = (chosen[1:] != chosen[:-1]).float().mean().item()
    assert changes == pytest.approx(0.5, abs=4 * 0.5 / draws**0.5)


def test_the_generator_decides() -> None:
    similarity, forbidden = torch.zeros(20, 30), torch.zeros(20, 30) > 0

    def draw(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return hard_negatives(similarity, forbidden, generator).tolist()

    state = torch.get_rng_state()
    assert draw(1) == draw(1) != draw(2)
    assert torch.equal(torch.get_rng_state(), state)


def test_extreme_similarities_choose_the_hardest_that_is_permitted() -> None:
    similarity = torch.tensor([[1e4, 1.0, -1.0], [-1e4, -1e4, 1e4]])
    forbidden = torch.tensor([[True, False, False], [True, False, True]])

    assert hard_negatives(similarity, forbidden, temperature=1e-3).tolist() == [1, 1]


def test_half_precision_does_not_overflow() -> None:
    # In float16 both quotients are infinite, and the first column would win.
    similarity = torch.tensor([[0.5, 1.0]], dtype=torch.float16).repeat(50, 1)

    chosen = hard_negatives(similarity, similarity > 2, temperature=1e-6)

    assert chosen.unique().tolist() == [1]


def test_nothing_is_kept_for_a_gradient() -> None:
    similarity = torch.zeros(3, 4, requires_grad=True)
    kept: list[Tensor] = []

    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda _: similarity):
        hard_negatives(similarity, similarity > 1)

    assert not kept
