"""Read what Hugging Face's transformers saves, and say what is wrong with it."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import nn

from gckd_mm.errors import InputError, MissingDataError

#: what a folder must have one of, for a tokenizer to be in it
TOKENIZER_FILES = (
    'tokenizer.json',
    'vocab.json',
    'vocab.txt',
    'sentencepiece.bpe.model',
    'spiece.model',
    'spm.model',
    'tokenizer.model',
)
#: letters of another package's message that are passed on
_REASON = 120


def import_transformers() -> ModuleType:
    """Import transformers, when something is first built on it: it is an extra.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        if error.name != 'transformers':
            raise
        raise InputError(
            'this needs transformers, which is not installed: pip install '
            "'gckd-mm[clip]'"
        ) from error
    return transformers


def make_config(kind: type, sizes: Mapping[str, Any], where: str) -> Any:
    """Make a config out of the sizes that a user states.

    Args:
        kind: transformers' class of the config.
        sizes: Its fields, those that differ from the class's defaults.
        where: Named in the error.

    Raises:
        InputError: If there is no such field (transformers would keep it and go on with
            the default), or a value is none.
    """
    unknown = set(sizes) - set(kind().to_dict())
    if unknown:
        raise InputError(
            f'{where}: {kind.__name__} has no {", ".join(sorted(unknown))}'
        )
    try:
        return kind(**sizes)
    # transformers' validation has classes of its own, which differ with its version
    except Exception as error:
        raise InputError(f'{where}: {_one_line(error)}') from error


def read_config(name: str) -> Any:
    """Read the sizes of a pretrained model.

    Args:
        name: A folder, or a name on the hub.

    Returns:
        transformers' config of the whole model.

    Raises:
        InputError: If there is no model.
    """
    transformers = import_transformers()
    with _explained(name):
        return transformers.AutoConfig.from_pretrained(
            _path(name), trust_remote_code=False
        )


def read_model(name: str) -> tuple[nn.Module, set[str]]:
    """Read a pretrained model, in float32 whatever it was stored in.

    Args:
        name: A folder, or a name on the hub.

    Returns:
        The model, and the names of the weights that its files lack: those are random.

    Raises:
        InputError: If there is no model, or it is damaged.
    """
    transformers = import_transformers()
    with _explained(name):
        model, report = transformers.AutoModel.from_pretrained(
            _path(name), output_loading_info=True, trust_remote_code=False
        )
    return model.float(), set(report['missing_keys'])


def read_tokenizer(name: str) -> Any:
    """Read a tokenizer.

    Args:
        name: A folder, or a name on the hub. A folder with nothing but ``vocab.json``
            and ``merges.txt`` is taken for CLIP's.

    Returns:
        transformers' tokenizer.

    Raises:
        InputError: If there is none.
    """
    transformers = import_transformers()
    path = _path(name)
    if os.path.isdir(path):
        files = set(os.listdir(path))
        if files.isdisjoint(TOKENIZER_FILES):
            # transformers would make an empty vocabulary of the model's family
            raise MissingDataError(
                f'{name}: holds no tokenizer, it must have one of '
                f'{", ".join(TOKENIZER_FILES)}'
            )
        if files.isdisjoint(('config.json', 'tokenizer_config.json')):
            if {'vocab.json', 'merges.txt'} <= files:
                with _explained(name):
                    return transformers.CLIPTokenizerFast.from_pretrained(path)
            if 'tokenizer.json' in files:
                with _explained(name):
                    return transformers.PreTrainedTokenizerFast.from_pretrained(path)
    with _explained(name):
        return transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)


def _path(name: str) -> str:
    return os.path.expanduser(name)


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split()) or type(error).__name__


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    # transformers, safetensors, pickle and the hub's client have a class each
    except Exception as error:
        reason = textwrap.shorten(_one_line(error), _REASON, placeholder=' …')
        path = _path(name)
        if os.path.isdir(path):
            raise InputError(
                f'{name}: cannot be read as a folder of transformers ({reason}); it '
                f'must hold what save_pretrained writes: config.json beside '
                f'model.safetensors, and the files of the tokenizer'
            ) from error
        if os.path.isfile(path):
            raise InputError(
                f'{name}: is a file; name the folder of a transformers model, or '
                f'convert a checkpoint of another family with '
                f'tools/convert_checkpoint.py and set load_from'
            ) from error
        if name.startswith(('/', '.', '~')) or name.count('/') > 1:
            raise MissingDataError(f'folder {name} does not exist') from error
        raise MissingDataError(
            f"{name}: no folder of this name, not in Hugging Face's cache, and not to "
            f'be had from the hub ({reason}). Where there is a network, run '
            f"'hf download {name} --local-dir {name}', and copy that folder to "
            f'./{name} here, or elsewhere and name it in `pretrained`'
        ) from error
