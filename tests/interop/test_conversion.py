"""Nothing is lost, nothing is made up, and what does not fit is listed."""

from __future__ import annotations

import pytest
import torch

from gckd_mm.errors import CheckpointError, InputError
from gckd_mm.interop import convert, export_hf
from gckd_mm.interop.keys import IMAGE_POSITIONS
from gckd_mm.models.functional.position_grid import resize_position_grid
from tests.interop.hf_model import hf_clip, hf_features, random_hf_clip
from tests.interop.openai_model import TinyOpenAIClip, irra_state_dict, some_captions

MISSING = 'visual.transformer.resblocks.1.ln_2.bias'


@pytest.fixture(scope='module')
def state_dict() -> dict[str, torch.Tensor]:
    return TinyOpenAIClip().state_dict()


def test_missing_keys_are_an_error_that_lists_them(
    state_dict: dict[str, torch.Tensor],
) -> None:
    less = {key: v for key, v in state_dict.items() if key != MISSING}
    ours = 'image_backbone.model.encoder.layers.1.layer_norm2.bias'

    with pytest.raises(CheckpointError) as error:
        convert(less, 'openai-clip', 'x.pt')
    assert 'x.pt: cannot be converted' in str(error.value)
    assert f'1 keys missing (--allow-missing does without):\n    {ours}' in str(
        error.value
    )
    allowed = convert(less, 'openai-clip', 'x.pt', allow_missing=True)
    assert allowed.missing == [ours]
    assert ours not in allowed.weights


def test_unknown_keys_are_an_error_that_lists_them(
    state_dict: dict[str, torch.Tensor],
) -> None:
    more = {**state_dict, 'adapter.b': torch.zeros(1), 'adapter.a': torch.zeros(1)}

    with pytest.raises(CheckpointError, match='2 keys not known') as error:
        convert(more, 'openai-clip', 'x.pt')
    assert '    adapter.b\n    adapter.a' in str(error.value)
    allowed = convert(more, 'openai-clip', 'x.pt', allow_unused=True)
    assert allowed.unused == ['adapter.b', 'adapter.a']
    assert (
        allowed.weights.keys()
        == convert(state_dict, 'openai-clip', 'x.pt').weights.keys()
    )


def test_a_weight_of_another_shape_is_refused(
    state_dict: dict[str, torch.Tensor],
) -> None:
    wrong = {**state_dict, MISSING: torch.zeros(127)}

    with pytest.raises(CheckpointError, match=r'layer_norm2\.bias: \(127,\), not'):
        convert(wrong, 'openai-clip', 'x.pt', allow_missing=True, allow_unused=True)


def test_a_config_of_another_model_is_refused() -> None:
    model = random_hf_clip()
    given = model.config.to_dict()
    given['vision_config'] = {**given['vision_config'], 'num_hidden_layers': 3}

    with pytest.raises(CheckpointError, match=r'16 keys missing'):
        convert(model.state_dict(), 'hf', 'folder', given=given)
    given['vision_config'] = {**given['vision_config'], 'num_hidden_layers': 1}
    with pytest.raises(CheckpointError, match='16 keys belonging to layers or parts'):
        convert(model.state_dict(), 'hf', 'folder', given=given)


@pytest.mark.parametrize('family', ['openai-clip', 'open-clip', 'hf', 'irra'])
def test_a_file_of_another_family_is_refused(family: str) -> None:
    bert = {'bert.embeddings.word_embeddings.weight': torch.zeros(3, 2)}

    with pytest.raises(CheckpointError, match=r'x\.pt: .*--from'):
        convert(bert, family, 'x.pt', allow_missing=True, allow_unused=True)


def test_the_grid_fits_the_images_it_is_made_for(
    state_dict: dict[str, torch.Tensor],
) -> None:
    before = convert(state_dict, 'openai-clip', 'x.pt')

    after = convert(state_dict, 'openai-clip', 'x.pt', image_size=(48, 16))

    assert torch.equal(
        after.weights[IMAGE_POSITIONS],
        resize_position_grid(before.weights[IMAGE_POSITIONS], (6, 2)),
    )
    assert before.config['vision_config']['image_size'] == 32
    assert 'image_size' not in after.config['vision_config']
    for key in before.weights.keys() - {IMAGE_POSITIONS}:
        assert torch.equal(before.weights[key], after.weights[key])


def test_a_resized_grid_is_kept_and_may_be_named() -> None:
    irra = irra_state_dict(TinyOpenAIClip(grid=(6, 2)))
    positions = irra['base_model.visual.positional_embedding']

    kept = convert(irra, 'irra', 'best.pth').weights[IMAGE_POSITIONS]
    fits = convert(irra, 'irra', 'best.pth', image_size=(48, 16))
    turned = convert(irra, 'irra', 'best.pth', grid=(6, 2), image_size=(16, 48))

    assert torch.equal(kept, positions)
    assert torch.equal(fits.weights[IMAGE_POSITIONS], positions)
    assert torch.equal(
        turned.weights[IMAGE_POSITIONS],
        resize_position_grid(positions, (2, 6), before=(6, 2)),
    )
    with pytest.raises(InputError, match='13 position embeddings are no square grid'):
        convert(irra, 'irra', 'best.pth', image_size=(32, 32))


def test_a_grid_that_is_not_square_needs_a_square_one_to_leave() -> None:
    clip = TinyOpenAIClip(grid=(6, 2)).eval()
    ours = convert(clip.state_dict(), 'openai-clip', 'x.pt')
    images, ids = torch.randn(3, 3, 32, 32), some_captions()

    with pytest.raises(InputError, match='takes square images alone'):
        export_hf(ours.weights, 'x.pth', given=ours.config)
    out = export_hf(
        ours.weights, 'x.pth', given=ours.config, grid=(6, 2), image_size=(32, 32)
    )

    _, captions = hf_features(hf_clip(out), images, ids)
    torch.testing.assert_close(captions, clip.encode_text(ids), atol=2e-5, rtol=0)


def test_mixed_precision_is_widened_by_no_one_but_the_model() -> None:
    ours = convert(irra_state_dict(TinyOpenAIClip()), 'irra', 'best.pth')

    out = export_hf(ours.weights, 'x.pth', given=ours.config)

    # What transformers makes of it is wide enough for every weight.
    assert out.config['dtype'] == 'float32'
    again = convert(out.weights, 'hf', 'folder', given=out.config).weights
    for key, value in ours.weights.items():
        assert torch.equal(again[key], value)
        assert again[key].dtype == value.dtype
