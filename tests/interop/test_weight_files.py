"""Files and folders of weights, read without running anything."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPModel

from gckd_mm.errors import CheckpointError, InputError
from gckd_mm.interop import convert, export_hf
from gckd_mm.interop.weight_files import (
    read_hf_config,
    read_weights,
    write_checkpoint,
    write_hf_folder,
)
from tests.interop.hf_model import random_hf_clip

WEIGHTS = {'a.weight': torch.randn(2, 3), 'b': torch.randn(4).half()}


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f'touch {self.marker}',)


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == WEIGHTS.keys() and all(
        torch.equal(found[key], value) and found[key].dtype == value.dtype
        for key, value in WEIGHTS.items()
    )


@pytest.mark.parametrize('nested', [None, 'state_dict', 'model'])
def test_torch_files(tmp_path: Path, nested: str | None) -> None:
    path = tmp_path / 'x.pth'
    torch.save({nested: WEIGHTS, 'epoch': 3} if nested else WEIGHTS, path)

    assert same(read_weights(str(path)).state_dict)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    path = str(tmp_path / f'x{suffix}')
    meta = {'converted_from': 'irra', 'ignored': ['a', 'b']}

    write_checkpoint(path, WEIGHTS, meta)

    found = read_weights(path)
    assert same(found.state_dict)
    assert found.meta == meta


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    marker, path = tmp_path / 'executed', tmp_path / 'evil.pth'
    torch.save({'model': WEIGHTS, 'optimizer': _Payload(marker)}, path)

    with pytest.raises(CheckpointError, match='Nothing was executed'):
        read_weights(str(path))
    assert not marker.exists()


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'x.pth'
    torch.save({'epoch': 3, 'state_dict': {}}, path)

    with pytest.raises(CheckpointError, match='holds no weights'):
        read_weights(str(path))


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    model = random_hf_clip()
    model.save_pretrained(tmp_path / 'folder')

    found = read_weights(str(tmp_path / 'folder'))

    assert found.config is not None
    assert found.config['vision_config']['num_attention_heads'] == 4
    ours = convert(found.state_dict, 'hf', 'folder', given=found.config)
    out = export_hf(ours.weights, 'x.pth', given=ours.config)
    write_hf_folder(str(tmp_path / 'again'), out.weights, out.config)
    again = CLIPModel.from_pretrained(tmp_path / 'again')
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert (
        again.config.text_config.eos_token_id == model.config.text_config.eos_token_id
    )
    assert again.config.vision_config.hidden_act == 'gelu'


def test_a_folder_in_shards_and_one_of_torch_files(tmp_path: Path) -> None:
    model = random_hf_clip()
    state_dict = model.state_dict()
    model.save_pretrained(tmp_path / 'shards', max_shard_size='20KB')
    assert len(list((tmp_path / 'shards').glob('*.safetensors'))) > 1
    old = tmp_path / 'old'
    old.mkdir()
    (old / 'config.json').write_text(json.dumps(model.config.to_dict()))
    torch.save(state_dict, old / 'pytorch_model.bin')

    for folder in ('shards', 'old'):
        found = read_weights(str(tmp_path / folder)).state_dict
        assert found.keys() == state_dict.keys()
        assert all(torch.equal(found[key], state_dict[key]) for key in found)


def test_an_index_reaches_no_other_folder(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / 'secret.safetensors')
    folder = tmp_path / 'folder'
    folder.mkdir()
    (folder / 'config.json').write_text('{"model_type": "clip"}')
    index = {'weight_map': {'a': '../secret.safetensors'}}
    (folder / 'model.safetensors.index.json').write_text(json.dumps(index))

    with pytest.raises(CheckpointError, match=r'folder/secret\.safetensors'):
        read_weights(str(folder))


def test_folders_that_are_no_clip(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'has no config\.json'):
        read_weights(str(tmp_path))
    config = tmp_path / 'config.json'
    config.write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="config of a 'bert' model"):
        read_weights(str(tmp_path))
    config.write_text('{"model_type": "clip"}')
    with pytest.raises(CheckpointError, match=r'holds none of model\.safetensors'):
        read_weights(str(tmp_path))
    for text in ('{', '[]'):
        config.write_text(text)
        with pytest.raises(CheckpointError, match='JSON'):
            read_hf_config(tmp_path)
    with pytest.raises(CheckpointError, match='cannot be read'):
        read_hf_config(tmp_path / 'nowhere.json')


def test_a_file_is_no_folder_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='is a file'):
        write_hf_folder(str(Path(__file__)), WEIGHTS, {})


@pytest.mark.parametrize(
    'index',
    [
        [],
        {},
        {'weight_map': ['a']},
        {'weight_map': {}},
        {'weight_map': {'a': 3}},
        {'weight_map': {'a': ''}},
        {'weight_map': {'a': None}},
        {'weight_map': 'text'},
    ],
)
def test_an_index_of_another_form_is_refused(tmp_path: Path, index: object) -> None:
    (tmp_path / 'config.json').write_text('{"model_type": "clip"}')
    (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r'weight_map|JSON object'):
        read_weights(str(tmp_path))


def test_a_deep_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'config.json').write_text('[' * 100_000)
    with pytest.raises(CheckpointError, match='is no JSON'):
        read_weights(str(tmp_path))
