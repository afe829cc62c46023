"""The contrastive heads: temperature, weight, and which loss they are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gckd_mm.errors import InputError
from gckd_mm.models.heads import InfoNCEHead, SDMHead
from gckd_mm.models.heads.contrastive_head import (
    ContrastiveHead,
    head_losses,
    sdm_loss,
)
from gckd_mm.models.heads.info_nce_head import info_nce

HEADS = ((InfoNCEHead, info_nce), (SDMHead, sdm_loss))


@pytest.mark.parametrize(('head', 'function'), HEADS)
def test_a_head_is_its_function_times_its_weight(head, function) -> None:
    images, captions = F.normalize(torch.randn(2, 6, 8), dim=-1)
    pids = torch.tensor([1, 1, 2, 3, 2, 1])

    loss = head(temperature=0.1, loss_weight=0.25).loss(images, captions, pids)

    torch.testing.assert_close(loss, 0.25 * function(images, captions, pids, 0.1))
    # The two losses must not be each other's.
    assert not torch.isclose(loss, 0.25 * function(images, captions, pids, 0.2))


@pytest.mark.parametrize(('head', '_'), HEADS)
@pytest.mark.parametrize('temperature', [0, -0.1])
def test_a_temperature_that_is_not_positive_is_refused(head, _, temperature) -> None:
    with pytest.raises(ValueError, match=f'must be positive, got {temperature}'):
        head(temperature=temperature)


@pytest.mark.parametrize(('head', '_'), HEADS)
def test_a_head_has_no_weights(head, _) -> None:
    assert not head().state_dict()


@pytest.mark.parametrize(('head', '_'), HEADS)
def test_a_single_pair_has_nothing_to_contrast_it_with(head, _) -> None:
    images, captions = F.normalize(torch.randn(2, 4, 8), dim=-1)
    pids = torch.arange(4)
    one = (images[:1], captions[:1], pids[:1])
    built = head()
    with pytest.raises(InputError, match='a batch of 1 pair has nothing to contrast'):
        built.loss(*one)
    built.loss(images, captions, pids)
    assert built.loss(*one).isfinite()  # the last batch of a pass may be that short


@pytest.mark.parametrize(('head', '_'), HEADS)
def test_a_temperature_that_is_no_number_is_refused(head, _) -> None:
    for temperature in ('0.02', None, float('nan')):
        with pytest.raises(InputError, match='must be positive'):
            head(temperature=temperature)


class Lopsided(ContrastiveHead):
    """A head to which images and captions are not the same, as to those of ours."""

    @staticmethod
    def objective(image_feats, caption_feats, pids, temperature):
        return (image_feats[:, 0] * pids).sum() - 3 * caption_feats[:, 1].sum()


def test_every_head_is_given_images_and_then_captions() -> None:
    images, captions = torch.randn(2, 6, 8)
    pids = torch.arange(6)
    heads = {'one': Lopsided(), 'other': Lopsided(loss_weight=0.5)}

    found = head_losses(heads, {'captions': captions, 'images': images}, pids, 'loss_x')

    expected = Lopsided.objective(images, captions, pids, 0)
    assert found.keys() == {'loss_x_one', 'loss_x_other'}
    torch.testing.assert_close(found['loss_x_one'], expected)
    torch.testing.assert_close(found['loss_x_other'], 0.5 * expected)
