"""The names of IRRA, and of the codes that build on it, such as RDE."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gckd_mm.errors import CheckpointError
from gckd_mm.interop.keys import Mapped
from gckd_mm.interop.openai_clip import map_openai_clip

_WRAPPER = 'module.'
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
    names = {key.removeprefix(_WRAPPER): key for key in state_dict}
    towers = {
        name.removeprefix(_CLIP): state_dict[key]
        for name, key in names.items()
        if name.startswith(_CLIP)
    }
    if not towers:
        raise CheckpointError(
            f'{where}: no key begins with {_CLIP!r}, as all of IRRA and RDE do: name '
            f'the right family with --from'
        )
    mapped = map_openai_clip(towers, where)
    others = [name for name in names if not name.startswith(_CLIP)]
    ignored = [_CLIP + name for name in mapped.ignored] + [
        name for name in others if name.split('.')[0] in _IGNORED
    ]
    unused = [_CLIP + name for name in mapped.unused] + [
        name for name in others if name.split('.')[0] not in _IGNORED
    ]
    return Mapped(
        mapped.weights, [names[name] for name in ignored], [names[n] for n in unused]
    )
