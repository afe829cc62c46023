"""The matching head: its scores, its negatives, and that it learns to match."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.heads.image_text_matching_head import ImageTextMatchingHead
from gckd_mm.registry import MODELS

IMAGES, CAPTIONS, LENGTH = 6, 5, 7


def small_head(**options: Any) -> ImageTextMatchingHead:
    settings: dict[str, Any] = {'channels': 16, 'num_heads': 2, 'grid': (4, 2)}
    head = ImageTextMatchingHead(12, 10, **{**settings, **options})
    # At their initial values gains of 1 and biases of 0 could hide what they do.
    for weight in head.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    return head


def tokens(head: ImageTextMatchingHead) -> dict[str, Tensor]:
    lengths = torch.tensor([7, 3, 1, 5, 7])
    return {
        'image_tokens': head.tokens_of_images((torch.randn(IMAGES, 12, 8, 4),)),
        'caption_tokens': head.tokens_of_captions(torch.randn(CAPTIONS, LENGTH, 10)),
        'caption_mask': torch.arange(LENGTH) < lengths[:, None],
    }


def people(same_person: list[tuple[int, int]]) -> Tensor:
    same = torch.zeros(CAPTIONS, IMAGES, dtype=torch.bool)
    for caption, image in same_person:
        same[caption, image] = True
    return same


POSITIVES = torch.tensor([[0, 0], [1, 1], [2, 3]])
SAME = people([(0, 0), (1, 1), (2, 3), (1, 2), (3, 4), (4, 5)])


class Recorder(ImageTextMatchingHead):
    """Notes which pairs are scored; its tokens are the row numbers themselves."""

    def __init__(self) -> None:
        super().__init__(1, 1, channels=1, num_heads=1, grid=(1, 1))
        self.calls: list[list[tuple[int, int]]] = []

    def score(
        self, image_tokens: Tensor, caption_tokens: Tensor, caption_mask: Tensor
    ) -> Tensor:
        captions, images = caption_tokens[:, 0, 0], image_tokens[:, 0, 0]
        assert torch.equal(caption_mask[:, 0], captions % 2 == 0)
        self.calls.append(
            list(zip(captions.int().tolist(), images.int().tolist(), strict=True))
        )
        return super().score(image_tokens, caption_tokens, caption_mask | True)

    def pairs(self, similarity: Tensor, positives: Tensor, same: Tensor) -> list:
        """Return the pairs that the loss scores after the positives."""
        captions = torch.arange(float(similarity.shape[0]))[:, None, None]
        self.loss(
            torch.arange(float(similarity.shape[1]))[:, None, None],
            captions,
            captions[..., 0] % 2 == 0,
            similarity,
            positives,
            torch.ones(len(positives)),
            same,
        )
        scored = self.calls[-1]
        assert scored[: len(positives)] == [tuple(row) for row in positives.tolist()]
        return scored[len(positives) :]


@pytest.mark.parametrize('num_layers', [1, 2])
def test_padding_never_changes_a_score(num_layers: int) -> None:
    head = small_head(num_layers=num_layers)
    batch = tokens(head)
    images, mask = batch['image_tokens'][:CAPTIONS], batch['caption_mask']
    together = head.score(images, batch['caption_tokens'], mask)

    junk = batch['caption_tokens'].masked_fill(~mask[..., None], 1e4)
    junk = F.pad(junk, (0, 0, 0, 4), value=-50.0)
    torch.testing.assert_close(
        head.score(images, junk, F.pad(mask, (0, 4))), together, rtol=1e-4, atol=1e-5
    )
    for row in range(CAPTIONS):
        length = int(mask[row].sum())
        caption = batch['caption_tokens'][row : row + 1, :length]
        alone = head.score(images[row : row + 1], caption, mask[row : row + 1, :length])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-5)


def test_permuting_the_batch_permutes_the_scores() -> None:
    head = small_head()
    batch = tokens(head)
    batch['image_tokens'] = batch['image_tokens'][:CAPTIONS]
    order = torch.tensor([3, 0, 4, 1, 2])

    permuted = head.score(**{key: value[order] for key, value in batch.items()})

    torch.testing.assert_close(permuted, head.score(**batch)[order])
    assert len(permuted.unique()) == CAPTIONS


def test_a_score_depends_on_image_caption_and_position() -> None:
    head = small_head()
    batch = tokens(head)
    batch['image_tokens'] = batch['image_tokens'][:CAPTIONS]
    scores = head.score(**batch)

    for key in ('image_tokens', 'caption_tokens'):
        changed = head.score(**{**batch, key: batch[key].roll(1, 0)})
        assert not torch.isclose(changed, scores).any()
    # The same content in the other half of the picture.
    feature_map = torch.randn(CAPTIONS, 12, 4, 2)
    one, other = (
        head.score(
            head.tokens_of_images((half,)),
            batch['caption_tokens'],
            batch['caption_mask'],
        )
        for half in (feature_map, feature_map.flip(2))
    )
    assert not torch.isclose(one, other).any()


def test_image_tokens_are_the_cells_of_the_last_map() -> None:
    head = small_head()
    maps = (torch.randn(3, 5, 16, 8), torch.randn(3, 12, 8, 4))

    found = head.tokens_of_images(maps)

    assert found.shape == (3, 8, 16)
    for row in range(4):
        for column in range(2):
            cell = maps[-1][:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            expected = head.image_projection(cell.mean(dim=(2, 3)))
            expected = expected + head.image_position[2 * row + column]
            torch.testing.assert_close(found[:, 2 * row + column], expected)


@pytest.mark.parametrize('size', [(4, 2), (3, 3), (12, 5)])
def test_feature_maps_of_any_size_will_do(size: tuple[int, int]) -> None:
    assert small_head().tokens_of_images((torch.randn(2, 12, *size),)).shape == (
        2,
        8,
        16,
    )


def test_the_patches_of_a_transformer_are_a_map() -> None:
    maps = torch.randn(3, 12, 8, 4)
    corner = torch.randn(3, 1, 12)
    patches = torch.stack(
        [maps[:, :, row, column] for row in range(8) for column in range(4)], dim=1
    )
    head = small_head()
    of_tokens = small_head(patch_grid=(8, 4))
    of_tokens.load_state_dict(head.state_dict())

    for features in (torch.cat((corner, patches), dim=1), patches):
        torch.testing.assert_close(
            of_tokens.tokens_of_images((features,)), head.tokens_of_images((maps,))
        )


def test_tokens_without_their_grid_are_refused() -> None:
    features = torch.randn(3, 33, 12)

    for head in (small_head(), small_head(patch_grid=(9, 4))):
        with pytest.raises(InputError, match=r'shape \(3, 33, 12\).*patch_grid='):
            head.tokens_of_images((features,))
    with pytest.raises(InputError, match=r'maps .* need patch_grid=None'):
        small_head(patch_grid=(8, 4)).tokens_of_images((torch.randn(3, 12, 8, 4),))


def test_the_loss_against_a_loop() -> None:
    head = small_head()
    batch = tokens(head)
    # So far apart that the draw has no choice: captions 0, 1 and 2 are taken in by
    # images 5, 4 and 1, images 0 and 1 by captions 4 and 2. Image 3 may be anyone.
    similarity = torch.full((CAPTIONS, IMAGES), -50.0)
    for caption, image in ((0, 5), (1, 4), (2, 1), (4, 0)):
        similarity[caption, image] = 50.0
    same = SAME.clone()
    same[:, 3] = True
    weights = torch.tensor([1.0, 0.3, 0.6])

    result = head.loss(
        **batch, similarity=similarity, positives=POSITIVES, weights=weights, same=same
    )

    judged = [
        (0, 0, True, 1.0),
        (1, 1, True, 0.3),
        (2, 3, True, 0.6),
        (0, 5, False, 1.0),
        (1, 4, False, 0.3),
        (2, 1, False, 0.6),
        (4, 0, False, 1.0),
        (2, 1, False, 0.3),
    ]
    total, right = 0.0, 0
    for caption, image, match, weight in judged:
        logit = head.score(
            batch['image_tokens'][[image]],
            batch['caption_tokens'][[caption]],
            batch['caption_mask'][[caption]],
        ).item()
        total += weight * math.log(1 + math.exp(-logit if match else logit))
        right += (logit > 0) == match
    expected = total / sum(weight for *_, weight in judged)
    assert result['loss'].item() == pytest.approx(expected, rel=1e-5)
    assert result['num_negatives'].item() == 5
    assert result['accuracy'].item() == pytest.approx(right / len(judged))


def test_no_pair_of_maybe_the_same_person_is_ever_a_negative() -> None:
    recorder = Recorder()
    drawn = set()
    for seed in range(80):
        torch.manual_seed(seed)
        same = torch.rand(CAPTIONS, IMAGES) < 0.4
        positives = (torch.rand(CAPTIONS, IMAGES) < 0.3).nonzero()
        # What must not be drawn is the most similar of all.
        similarity = 2 * torch.rand(CAPTIONS, IMAGES) - 1 + 2 * same

        negatives = recorder.pairs(similarity, positives, same)

        listed = {tuple(row) for row in positives.tolist()}
        for pair in negatives:
            assert not same[pair]
            # Even where the caller forgot to say so of the positives.
            assert pair not in listed
        drawn.update(negatives)
    assert len(drawn) == CAPTIONS * IMAGES


def test_a_positive_gets_a_negative_of_each_kind_wherever_one_is_permitted() -> None:
    recorder = Recorder()
    for seed in range(30):
        torch.manual_seed(seed)
        same = torch.rand(CAPTIONS, IMAGES) < 0.7
        positives = same.nonzero()

        negatives = recorder.pairs(torch.rand(CAPTIONS, IMAGES), positives, same)

        captions = [k for k, _ in positives.tolist() if not same[k].all()]
        images = [j for _, j in positives.tolist() if not same[:, j].all()]
        assert [k for k, _ in negatives[: len(captions)]] == captions
        assert [j for _, j in negatives[len(captions) :]] == images


def test_the_negative_may_come_from_the_other_domain() -> None:
    # Captions 0 to 2 and images 0 to 2 are the source's, the rest the target's.
    similarity = torch.eye(CAPTIONS, IMAGES)
    similarity[0, 4] = similarity[3, 1] = 0.95
    positives = torch.tensor([[0, 0], [3, 3], [1, 1]])

    negatives = Recorder().pairs(50 * similarity, positives, similarity == 1)

    assert negatives[:2] == [(0, 4), (3, 1)]
    assert negatives[-1] == (3, 1)


def test_all_pairs_are_scored_in_one_call() -> None:
    recorder = Recorder()

    recorder.pairs(torch.zeros(CAPTIONS, IMAGES), POSITIVES, SAME)

    assert [len(call) for call in recorder.calls] == [9]


def test_without_permitted_negatives_the_positives_count_alone() -> None:
    head = small_head()
    batch = tokens(head)

    result = head.loss(
        **batch,
        similarity=torch.zeros(CAPTIONS, IMAGES),
        positives=POSITIVES,
        weights=torch.tensor([1.0, 2.0, 1.0]),
        same=torch.ones(CAPTIONS, IMAGES, dtype=torch.bool),
    )

    captions, images = POSITIVES.t()
    logits = head.score(
        batch['image_tokens'][images],
        batch['caption_tokens'][captions],
        batch['caption_mask'][captions],
    )
    expected = -(F.logsigmoid(logits) * torch.tensor([0.25, 0.5, 0.25])).sum()
    torch.testing.assert_close(result['loss'], expected)
    assert result['num_negatives'] == 0


def whole_loss(
    head: ImageTextMatchingHead, positives: Tensor = POSITIVES, weight: float = 1.0
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The loss from the backbones' features on, and those features."""
    feature_map = torch.randn(IMAGES, 12, 8, 4, requires_grad=True)
    features = torch.randn(CAPTIONS, LENGTH, 10, requires_grad=True)
    result = head.loss(
        head.tokens_of_images((feature_map,)),
        head.tokens_of_captions(features),
        torch.ones(CAPTIONS, LENGTH, dtype=torch.bool),
        torch.rand(CAPTIONS, IMAGES),
        positives,
        torch.full((len(positives),), weight),
        SAME,
    )
    return result, [feature_map, features]


def test_gradients_reach_every_parameter_and_both_backbones() -> None:
    head = small_head(num_layers=2)

    result, features = whole_loss(head)
    result['loss'].backward()

    for name, weight in head.named_parameters():
        assert weight.grad.abs().sum() > 0, name
    for feature in features:
        # A positive pair is always scored, whatever negatives are drawn.
        assert feature.grad.flatten(1).abs().sum(1)[:2].min() > 0
    assert not result['accuracy'].requires_grad


@pytest.mark.parametrize(('count', 'weight'), [(0, 1.0), (3, 0.0)])
def test_without_positives_the_loss_and_all_gradients_are_zero(
    count: int, weight: float
) -> None:
    head = small_head()

    result, features = whole_loss(head, POSITIVES[:count], weight)
    result['loss'].backward()

    assert result['loss'].item() == 0
    assert result['num_negatives'].item() == 2 * count
    assert result['accuracy'].isfinite()
    for leaf in [*head.parameters(), *features]:
        assert leaf.grad is not None
        assert not leaf.grad.any()


def test_under_autocast_logits_and_loss_are_float32_and_near() -> None:
    head = small_head()
    torch.manual_seed(1)
    outside, _ = whole_loss(head)

    torch.manual_seed(1)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        batch = tokens(head)
        assert batch['caption_tokens'].dtype == torch.bfloat16
        logits = head.score(
            batch['image_tokens'][:1].expand(CAPTIONS, -1, -1),
            batch['caption_tokens'],
            batch['caption_mask'],
        )
        torch.manual_seed(1)
        inside, features = whole_loss(head)
    inside['loss'].backward()

    # Not bfloat16 numbers in a float32 tensor: those tie.
    assert not torch.equal(logits.bfloat16().float(), logits)
    assert {value.dtype for value in inside.values()} == {torch.float32}
    assert logits.dtype == torch.float32
    torch.testing.assert_close(inside['loss'], outside['loss'], rtol=0.05, atol=0.05)
    assert all(feature.grad.isfinite().all() for feature in features)


def test_dropout_belongs_to_training_alone() -> None:
    head = small_head(dropout=0.5)
    batch = tokens(head)
    batch['image_tokens'] = batch['image_tokens'][:CAPTIONS]

    assert not torch.equal(head.score(**batch), head.score(**batch))
    head.eval()
    assert torch.equal(head.score(**batch), head.score(**batch))


def colours(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Images and captions of people of one colour, somewhere among noise.

    Returns:
        Feature maps, caption features, mask, colours of the images and of the captions.
    """
    generator = torch.Generator().manual_seed(seed)
    worn, told = torch.randint(4, (2, count), generator=generator)
    maps = 0.3 * torch.randn(count, 12, 2, 2, generator=generator)
    features = 0.3 * torch.randn(count, LENGTH, 10, generator=generator)
    cells = torch.randint(4, (count,), generator=generator)
    lengths = torch.randint(1, LENGTH + 1, (count,), generator=generator)
    words = (torch.rand(count, generator=generator) * lengths).long()
    everyone = torch.arange(count)
    maps.flatten(2)[everyone, worn, cells] += 3
    features[everyone, words, told] += 3
    return maps, features, torch.arange(LENGTH) < lengths[:, None], worn, told


def test_it_learns_whether_colours_agree() -> None:
    head = ImageTextMatchingHead(12, 10, channels=32, num_heads=2, grid=(2, 2))
    steps = 200
    optimiser = torch.optim.AdamW(head.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps)
    for step in range(steps):
        maps, features, mask, worn, told = colours(32, seed=step)
        same = told[:, None] == worn[None, :]
        positives = same.nonzero()[torch.randperm(int(same.sum()))[:32]]
        result = head.loss(
            head.tokens_of_images((maps,)),
            head.tokens_of_captions(features),
            mask,
            torch.zeros(32, 32),
            positives,
            torch.ones(len(positives)),
            same,
        )
        optimiser.zero_grad()
        result['loss'].backward()
        optimiser.step()
        schedule.step()

    head.eval()
    maps, features, mask, worn, told = colours(1000, seed=10**6)
    logits = head.score(
        head.tokens_of_images((maps,)), head.tokens_of_captions(features), mask
    )
    agree = worn == told
    hits = (logits > 0) == agree
    # Each answer on its own: a head that always says no is right 3 times out of 4.
    assert hits[agree].float().mean() > 0.9
    assert hits[~agree].float().mean() > 0.9
    assert result['accuracy'] > 0.9


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'channels': 10, 'num_heads': 4}, 'must divide channels, got 4 and 10'),
        ({'num_layers': 0}, 'num_layers must be at least 1, got 0'),
        ({'grid': (8, 0)}, r'at least 1, got \(8, 0\)'),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageTextMatchingHead(8, 8, **options)


def test_it_is_built_from_a_config() -> None:
    head = MODELS.build(
        {
            'type': 'ImageTextMatchingHead',
            'image_channels': 12,
            'caption_channels': 10,
            'grid': [2, 3],
        }
    )

    assert head.tokens_of_images((torch.randn(1, 12, 8, 4),)).shape == (1, 6, 128)
    assert head.tokens_of_captions(torch.randn(1, 4, 10)).shape == (1, 4, 128)
