"""How many cases are tried, and from which seed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.damage import Rng, rng_of


class Cases:
    """Numbers the cases of a test, each with random numbers of its own."""

    def __init__(self, seed: int, rounds: float) -> None:
        self.seed = seed
        self.rounds = rounds

    def __call__(self, count: int, name: str) -> Iterator[tuple[int, Rng]]:
        """Yield so many cases, times the rounds."""
        for case in range(max(1, round(count * self.rounds))):
            yield case, rng_of(self.seed, name, case)

    def label(self, case: int) -> str:
        """Return what makes the case again."""
        return f'case {case} (--fuzz-seed {self.seed})'


@pytest.fixture
def cases(request: pytest.FixtureRequest) -> Cases:
    """The cases of a test."""
    return Cases(
        request.config.getoption('--fuzz-seed'),
        request.config.getoption('--fuzz-rounds'),
    )
