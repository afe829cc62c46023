"""open_clip's names: OpenAI's, with prefixes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gckd_mm.interop.keys import Mapped
from gckd_mm.interop.openai_clip import map_openai_clip

_WRAPPER = 'module.'
#: the text tower of ``CustomTextCLIP``
_TEXT = 'text.'


def map_open_clip(state_dict: Mapping[str, Tensor], where: str) -> Mapped:
    """Map the weights of an open_clip model with OpenAI's two transformers.

    Source: the names of https://github.com/mlfoundations/open_clip.
    """
    names = {key.removeprefix(_WRAPPER).removeprefix(_TEXT): key for key in state_dict}
    mapped = map_openai_clip(
        {name: state_dict[key] for name, key in names.items()}, where
    )
    return Mapped(
        mapped.weights,
        [names[name] for name in mapped.ignored],
        [names[name] for name in mapped.unused],
    )
