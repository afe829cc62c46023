"""open_clip's names: OpenAI's, with prefixes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gckd_mm.interop.keys import Mapped
from gckd_mm.interop.openai_clip import map_openai_clip
from gckd_mm.model_wrapper import bare_name

#: the text tower of ``CustomTextCLIP``
_TEXT = 'text.'


def map_open_clip(state_dict: Mapping[str, Tensor], where: str) -> Mapped:
    """Map the weights of an open_clip model with OpenAI's two transformers.

    Source: the names of https://github.com/mlfoundations/open_clip.
    """
    names = {bare_name(key).removeprefix(_TEXT): key for key in state_dict}
    towers = {name: state_dict[key] for name, key in names.items()}
    return map_openai_clip(towers, where).under(names)
