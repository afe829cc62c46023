"""Which weights of a checkpoint embed, which teach, and which only training reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gckd_mm.errors import CheckpointError
from gckd_mm.model_wrapper import without_wrapper
from gckd_mm.registry import type_name

#: the parts of a model's config that embed, whatever else it does in training
ENCODERS = (
    'image_backbone',
    'image_neck',
    'text_backbone',
    'text_neck',
    'data_preprocessor',
)
#: in the meta of models that adapt: steps of the adaptation that the weights have seen
ADAPTATION_STEPS = 'adaptation_steps'
#: where a model with a teacher keeps it, and how often it has moved
TEACHER = 'teacher.module.'
_TEACHER_STEPS = 'teacher.steps'
#: models that adapt, and before the names of all that only training reads
_ADAPTING = (
    'AdaptedDualEncoder',
    'GCKD',
    'GCKDWithLearnedGraph',
    'GCKDWithMatching',
)
_OF_TRAINING = (
    'adaptation.',
    'consistency.',
    'distill.',
    'graph.',
    'heads.',
    'labels.',
    'matching.',
    'memories.',
    'neighbours.',  # of version 0.1
    'teacher.',
)


def encoders_alone(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a DualEncoder of a model's encoders, without what trains.

    A model of other people's making, which lacks some of them, is returned as it is.
    """
    if not all(part in model for part in ENCODERS):
        return dict(model)
    return {'type': 'DualEncoder', **{part: model[part] for part in ENCODERS}}


def weights_of_encoders(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return what :func:`encoders_alone` has weights for."""
    return {
        name: value
        for name, value in without_wrapper(state_dict).items()
        if name.startswith(ENCODERS)
    }


def as_tested(
    model: Mapping[str, Any], checkpoint: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Leave out of a config and its weights what only an adaptation reads.

    So checkpoints can be tested whose adaptation another version has written. A model
    that does not adapt is returned as it is.
    """
    if type_name(model.get('type')) not in _ADAPTING:
        return dict(model), dict(checkpoint)
    state_dict = {
        key: value
        for key, value in state_dict_of(checkpoint).items()
        if not key.startswith(_OF_TRAINING)
    }
    # built in the scope of the config, which need not be ours
    encoders = encoders_alone(model) | {'type': 'gckd_mm.DualEncoder'}
    return encoders, {**checkpoint, 'state_dict': state_dict}


def with_teacher(checkpoint: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a checkpoint with the teacher's encoders in the place of the student's.

    Raises:
        CheckpointError: If it has no teacher, as after source-only training and with
            most baselines, or one that has not begun to teach, as in the source stage.
    """
    state_dict = state_dict_of(checkpoint)
    taught = {
        key.removeprefix(TEACHER): value
        for key, value in state_dict.items()
        if key.startswith(TEACHER)
    }
    if not taught:
        raise CheckpointError(f'{where}: holds no teacher: what trained it has none')
    if steps_of_teacher(state_dict, where) == 0:
        raise CheckpointError(
            f'{where}: its teacher has not begun: the adaptation had not started'
        )
    own = {key: value for key, value in taught.items() if key in state_dict}
    return {**checkpoint, 'state_dict': {**state_dict, **own}}


def steps_of_teacher(state_dict: Mapping[str, Any], where: str) -> int:
    """Return how often a teacher has moved; 0 where there is none."""
    steps = state_dict.get(_TEACHER_STEPS, 0)
    if isinstance(steps, int):
        return steps
    if not isinstance(steps, Tensor) or steps.numel() != 1 or steps.is_floating_point():
        raise CheckpointError(f'{where}: {_TEACHER_STEPS} must be a whole number')
    return int(steps)


def ended_in_source_stage(checkpoint: Mapping[str, Any]) -> bool:
    """Return whether a model that adapts had not begun to: its heads are untrained."""
    return checkpoint.get('meta', {}).get(ADAPTATION_STEPS) == 0


def state_dict_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights of a checkpoint, which may be a bare state dict."""
    return without_wrapper(checkpoint.get('state_dict', checkpoint))
