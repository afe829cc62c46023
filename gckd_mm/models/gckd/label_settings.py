"""The settings of pseudo-labels, as a config gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from gckd_mm.errors import InputError


class AssignmentSettings(NamedTuple):
    """Arguments of :func:`~gckd_mm.models.functional.sinkhorn_potentials`."""

    epsilon: float = 0.06
    iterations: int = 4
    relaxation: float | None = None


class PropagationSettings(NamedTuple):
    """One step of label propagation.

    Attributes:
        alpha: The fraction of a row's labels that comes from its neighbours.
        k: Neighbours of a row.
        temperature: Of the softmax of their similarities.
    """

    alpha: float
    k: int = 6
    temperature: float = 0.1


Settings = TypeVar('Settings', AssignmentSettings, PropagationSettings)


def read_settings(
    kind: type[Settings], name: str, given: Mapping[str, Any] | None
) -> Settings | None:
    """Check the arguments of a part; None stays None.

    Raises:
        InputError: If one is unknown, missing or out of its range.
    """
    if given is None:
        return None
    unknown = sorted(set(given) - set(kind._fields))
    missing = sorted(set(kind._fields) - set(kind._field_defaults) - set(given))
    if unknown or missing:
        raise InputError(
            f'PseudoLabels: {name} has the arguments {list(kind._fields)}; unknown: '
            f'{unknown}, missing: {missing}'
        )
    settings = kind(**given)
    for key, value in settings._asdict().items():
        if key in ('iterations', 'k'):
            check_count(f'{name}.{key}', value)
        elif value is not None:
            check_positive(f'{name}.{key}', value)
    if isinstance(settings, PropagationSettings) and settings.alpha > 1:
        raise InputError(
            f'PseudoLabels: {name}.alpha must be at most 1, got {settings.alpha}'
        )
    return settings


def check_count(name: str, value: Any) -> None:
    """Refuse what is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(
            f'PseudoLabels: {name} must be a whole number of at least 1, got {value!r}'
        )


def check_positive(name: str, value: Any) -> None:
    """Refuse what is no positive number."""
    if not isinstance(value, int | float) or not value > 0:
        raise InputError(f'PseudoLabels: {name} must be positive, got {value!r}')


def check_gate(gate: float) -> None:
    """Refuse a gate that is no fraction below 1."""
    if not 0 <= gate < 1:
        raise InputError(
            f'PseudoLabels: gate is the fraction of queries to drop, at least 0 and '
            f'below 1; got {gate}'
        )
