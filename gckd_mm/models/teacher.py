"""The teacher: a moving average of the student's encoders and necks."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from gckd_mm.errors import InputError
from gckd_mm.models.retrievers.towers import TwoTowers


class MomentumTeacher(nn.Module):
    """A copy of the student that follows it and never receives a gradient.

    It always stays in eval mode, whatever mode its parent is put into: without dropout
    its targets do not flicker from step to step, and normalisation uses the student's
    running statistics (ours; the paper's choice is not known).

    The copy is :attr:`module`; the buffer :attr:`steps` counts the updates since it
    was last synchronised. Call :meth:`synchronise` once the student has the
    weights to start from, and :meth:`update` after each optimiser step.

    Args:
        student: The encoders and necks; anything else of the model, such as memories,
            stays outside. Modules may hold extra state.

    Source: He et al., *Momentum Contrast for Unsupervised Visual Representation
    Learning* (MoCo), CVPR 2020, eq. 2.
    """

    module: Any
    steps: torch.Tensor

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(student).requires_grad_(False)
        self.register_buffer('steps', torch.tensor(0))
        self.train(False)

    def train(self, mode: bool = True) -> MomentumTeacher:
        """Stay in eval mode: see the class."""
        return super().train(False)

    @torch.no_grad()
    def synchronise(self, student: nn.Module) -> None:
        """Become an exact copy of the student: weights, buffers and extra state.

        Args:
            student: Of the same structure as the one it was built from.
        """
        self.module.load_state_dict(student.state_dict())
        self._copy_buffers(student)
        self.steps.zero_()

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """Move towards the student: θ' ← m θ' + (1 − m) θ. Buffers are copied.

        Args:
            student: Of the same structure as the one it was built from.
            momentum: m, the fraction that is kept: 0 copies the student's weights, 1
                never moves.

        Raises:
            InputError: If the momentum is outside [0, 1].
        """
        if not 0 <= momentum <= 1:
            raise InputError(
                f'teacher_momentum must be in [0, 1], the fraction of the teacher that '
                f'is kept at each step, got {momentum}'
            )
        of_student = dict(student.named_parameters())
        of_teacher = dict(self.module.named_parameters())
        torch._foreach_lerp_(
            list(of_teacher.values()),
            [of_student[name] for name in of_teacher],
            1 - momentum,
        )
        self._copy_buffers(student)
        self.steps += 1

    def _copy_buffers(self, student: nn.Module) -> None:
        # Not through the state dict, which leaves out those that are not persistent.
        of_student = dict(student.named_buffers())
        for name, buffer in self.module.named_buffers():
            buffer.copy_(of_student[name])


class TeacherTowers(TwoTowers, nn.Module):
    """The parts of a retriever that its teacher averages: encoders and necks.

    Args:
        student: Whose parts these are; they are shared, not copied.
        graph_neck: The neck of its graph, if it has one that learns.
    """

    def __init__(self, student: TwoTowers, graph_neck: nn.Module | None = None) -> None:
        super().__init__()
        self.image_backbone = student.image_backbone
        self.image_neck = student.image_neck
        self.text_backbone = student.text_backbone
        self.text_neck = student.text_neck
        self.graph_neck = graph_neck
