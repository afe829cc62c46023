"""The settings of pseudo-labels, as a config gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from gckd_mm.errors import InputError
from gckd_mm.models.retrievers.staged import Schedule


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


_Settings = TypeVar('_Settings', AssignmentSettings, PropagationSettings)


def read_assignment(given: Mapping[str, Any] | None) -> AssignmentSettings | None:
    """Check the arguments of the assignment; None stays None.

    Raises:
        InputError: If one is unknown or out of its range.
    """
    return _read(AssignmentSettings, 'assignment', given)


def read_propagation(given: Mapping[str, Any] | None) -> PropagationSettings | None:
    """Check the arguments of the label propagation; None stays None.

    Raises:
        InputError: If one is unknown, missing or out of its range.
    """
    settings = _read(PropagationSettings, 'propagation', given)
    if settings is not None and settings.alpha > 1:
        raise InputError(
            f'PseudoLabels: propagation.alpha must be at most 1, got {settings.alpha}'
        )
    return settings


def check_labels(
    candidates: int,
    refresh: int,
    sharpening: float,
    gate: float,
    temperature: Schedule,
) -> None:
    """Refuse arguments of :class:`PseudoLabels` that are out of their range."""
    _check_count('candidates', candidates)
    _check_count('refresh', refresh)
    _check_positive('sharpening', sharpening)
    _check_positive('temperature', min(temperature.start, temperature.end))
    if not 0 <= gate < 1:
        raise InputError(
            f'PseudoLabels: gate is the fraction of queries to drop, at least 0 and '
            f'below 1; got {gate}'
        )


def _read(
    kind: type[_Settings], name: str, given: Mapping[str, Any] | None
) -> _Settings | None:
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
            _check_count(f'{name}.{key}', value)
        elif value is not None:
            _check_positive(f'{name}.{key}', value)
    return settings


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(
            f'PseudoLabels: {name} must be a whole number of at least 1, got {value!r}'
        )


def _check_positive(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or not value > 0:
        raise InputError(f'PseudoLabels: {name} must be positive, got {value!r}')
