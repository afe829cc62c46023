"""Checkpoints: read without running anything in them, refused where they do not fit."""

from gckd_mm.checkpoint.building import built_from
from gckd_mm.checkpoint.foreign import refuse_foreign
from gckd_mm.checkpoint.parts import (
    ADAPTATION_STEPS,
    ENCODERS,
    as_tested,
    encoders_alone,
    ended_in_source_stage,
    steps_of_teacher,
    weights_of_encoders,
    with_teacher,
)
from gckd_mm.checkpoint.reading import (
    PACKAGED,
    PACKAGED_FOLDER,
    check_regular_file,
    local_path,
    read_checkpoint,
    use_strict_loading,
)
from gckd_mm.checkpoint.resume import check_resumable
from gckd_mm.checkpoint.stored_config import config_of
from gckd_mm.checkpoint.values import check_finite, first_non_finite
from gckd_mm.checkpoint.weights import check_state_dict, load_weights
from gckd_mm.work_dir import find_last_checkpoint

__all__ = [
    'ADAPTATION_STEPS',
    'ENCODERS',
    'PACKAGED',
    'PACKAGED_FOLDER',
    'as_tested',
    'built_from',
    'check_finite',
    'check_regular_file',
    'check_resumable',
    'check_state_dict',
    'config_of',
    'encoders_alone',
    'ended_in_source_stage',
    'find_last_checkpoint',
    'first_non_finite',
    'load_weights',
    'local_path',
    'read_checkpoint',
    'refuse_foreign',
    'steps_of_teacher',
    'use_strict_loading',
    'weights_of_encoders',
    'with_teacher',
]
