"""The names of IRRA, and of the codes that build on it, such as RDE."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gckd_mm.errors import CheckpointError
from gckd_mm.interop.keys import Mapped
from gckd_mm.interop.openai_clip import map_openai_clip

_CLIP = 'base_model.'
#: parts that these codes train beside the two towers, and that ranking leaves aside
_IGNORED = (
    'classifier',
    'cross_attn',
    'cross_modal_transformer',
    'ln_post',
    'ln_pre_i',
    'ln_pre_t',
    'logit_scale',
    'mlm_head',
    'texual_emb_layer',
    'visul_emb_layer',
)


def map_irra(state_dict: Mapping[str, Tensor], where: str) -> Mapped:
    """Map the two towers of an IRRA or RDE model.

    The identity classifier, the cross-modal transformer with its masked language
    modelling, and RDE's token selection are ignored: what is left ranks by the global
    embeddings.

    Source: the names of Jiang and Ye, *Cross-Modal Implicit Relation Reasoning and
    Aligning for Text-to-Image Person Retrieval*, CVPR 2023,
    https://github.com/anosorae/IRRA, and of Qin et al., *Noisy-Correspondence
    Learning for Text-to-Image Person Re-identification*, CVPR 2024,
    https://github.com/QinYang79/RDE.
    """
    towers = {
        key.removeprefix(_CLIP): value
        for key, value in state_dict.items()
        if key.startswith(_CLIP)
    }
    if not towers:
        raise CheckpointError(
            f'{where}: no key begins with {_CLIP!r}, as all of IRRA and RDE do: name '
            f'the right family with --from'
        )
    mapped = map_openai_clip(towers, where).under({key: _CLIP + key for key in towers})
    for key in state_dict:
        if not key.startswith(_CLIP):
            known = key.split('.')[0] in _IGNORED
            (mapped.ignored if known else mapped.unused).append(key)
    return mapped
