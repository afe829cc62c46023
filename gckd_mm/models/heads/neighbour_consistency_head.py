"""Pull an embedding towards its neighbours in the teacher's graph."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.functional.distillation import (
    neighbour_labels,
    soft_cross_entropy,
)
from gckd_mm.models.functional.neighbours import Neighbours
from gckd_mm.models.schedule import Schedule
from gckd_mm.registry import MODELS

_MASKED = -1e4


@MODELS.register_module()
class NeighbourConsistencyHead(BaseModule):
    """Cross-entropy from the student to its neighbours of the same modality.

    The neighbours of sample i in the teacher's memory, weighted by similarity, are what
    the student's embedding of i should find there. Looks within one modality of the
    target alone: no pairing of images with captions is assumed.

    Args:
        k: Neighbours that count. Defaults to 6.
        neighbour_temperature: Sharpens their weights. Defaults to 0.1.
        student_temperature: Divides the student's similarities. Defaults to 0.06.
        loss_weight: A number or a schedule. Defaults to 0.5.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If a temperature is not positive or ``k`` is less than 1.

    Source: ours; related to neighbourhood consistency in source-free adaptation (Yang
    et al., *Exploiting the Intrinsic Neighborhood Structure*, NeurIPS 2021).
    """

    def __init__(
        self,
        k: int = 6,
        neighbour_temperature: float = 0.1,
        student_temperature: float = 0.06,
        loss_weight: float | dict = 0.5,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if k < 1 or neighbour_temperature <= 0 or student_temperature <= 0:
            raise InputError(
                f'NeighbourConsistencyHead: k must be at least 1 and the temperatures '
                f'positive, got {k}, {neighbour_temperature}, {student_temperature}'
            )
        self.k = k
        self.neighbour_temperature = neighbour_temperature
        self.student_temperature = student_temperature
        self.schedules = {'loss_weight': Schedule.build(loss_weight, 'loss_weight')}

    def loss(
        self,
        feats: Tensor,
        slots: Tensor,
        memory: Tensor,
        neighbours: Neighbours,
        step: int,
    ) -> Tensor:
        """Return the weighted loss of one modality.

        Args:
            feats: The student's, L2-normalised, shape (N, D).
            slots: Row of the memory that holds the teacher's embedding of the same
                sample, shape (N,).
            memory: The teacher's, shape (M, D).
            neighbours: Memory rows near each sample, shape (N, K).
            step: Step of the adaptation.

        Returns:
            Scalar; 0, with a gradient path, where no sample has a neighbour.
        """
        labels = neighbour_labels(neighbours, len(memory), self.neighbour_temperature)
        with torch.autocast(feats.device.type, enabled=False):
            logits = feats.float() @ memory.t() / self.student_temperature
        logits = logits.scatter(1, slots[:, None], _MASKED)
        found = (neighbours.index >= 0).any(dim=1).float()
        weight = self.schedules['loss_weight'].at(step)
        return weight * soft_cross_entropy(logits, labels, found)
