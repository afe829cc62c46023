"""What is said where there is no model."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gckd_mm.errors import InputError
from gckd_mm.models.hugging_face import (
    import_transformers,
    read_config,
    read_model,
    read_tokenizer,
)

pytest.importorskip('transformers')

READERS = [read_config, read_model, read_tokenizer]


@pytest.mark.parametrize('read', READERS)
def test_a_name_without_a_hub(read: Any, offline: None) -> None:
    with pytest.raises(InputError) as error:
        read('openai/clip-vit-base-patch16')

    message = str(error.value)
    assert 'hf download openai/clip-vit-base-patch16' in message
    assert 'copy that folder to ./openai/clip-vit-base-patch16 here' in message
    assert '\n' not in message


@pytest.mark.parametrize('read', READERS)
@pytest.mark.parametrize('name', ['/nowhere/clip', './clip', '~/no/clip', 'a/b/clip'])
def test_a_folder_that_does_not_exist(read: Any, name: str, offline: None) -> None:
    with pytest.raises(InputError, match=f'folder {name} does not exist'):
        read(name)


@pytest.mark.parametrize('read', READERS)
def test_a_folder_without_a_model(read: Any, tmp_path: Path) -> None:
    (tmp_path / 'readme.txt').write_text('not here')

    with pytest.raises(InputError, match=rf'{tmp_path}: (cannot be read|holds no)'):
        read(str(tmp_path))


@pytest.mark.parametrize('content', ['', '{', '{}', '{"model_type": "unheard-of"}'])
def test_a_config_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / 'config.json').write_text(content)

    for read in (read_config, read_model):
        with pytest.raises(InputError, match='cannot be read as a folder'):
            read(str(tmp_path))


def test_truncated_weights(clip_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(clip_folder, tmp_path / 'clip'))
    file = folder / 'model.safetensors'
    file.write_bytes(file.read_bytes()[:5_000])

    with pytest.raises(InputError, match='clip: cannot be read as a folder'):
        read_model(str(folder))


@pytest.mark.parametrize('read', READERS)
def test_a_file(read: Any, tmp_path: Path, offline: None) -> None:
    file = tmp_path / 'ViT-B-16.pt'
    file.write_bytes(b'PK')

    with pytest.raises(InputError, match=r'is a file.*convert_checkpoint'):
        read(str(file))


def test_code_in_a_folder_is_not_run(clip_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(clip_folder, tmp_path / 'clip'))
    (folder / 'evil.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")')
    own = {'AutoConfig': 'evil.C', 'AutoModel': 'evil.M'}
    config = {'model_type': 'own', 'auto_map': own}
    (folder / 'config.json').write_text(json.dumps(config))

    for read in (read_config, read_model):
        with pytest.raises(InputError, match='cannot be read'):
            read(str(folder))
    assert not (tmp_path / 'ran').exists()


def test_transformers_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == 'transformers':
            raise ModuleNotFoundError(name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(InputError, match=r"pip install 'gckd-mm\[clip\]'"):
        import_transformers()
