"""OpenAI's archives, read without TorchScript, and judged by it."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.checkpoint.archive import verify_archive
from gckd_mm.errors import CheckpointError
from gckd_mm.interop import convert
from gckd_mm.interop.script_archive import is_script_archive, read_script_archive
from gckd_mm.interop.weight_files import read_weights
from tests.interop.openai_model import TinyOpenAIClip

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')


class _Encoder(nn.Module):
    """All that an archive of weights may hold: types, views, nesting, plain values."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(2, 3).half(), nn.LayerNorm(3))
        self.proj = nn.Parameter(torch.randn(4, 3).t())
        self.register_buffer('input_resolution', torch.tensor(224))
        self.sizes = [1, 2]
        self.name = 'ViT'

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / 'ViT-B-16.pt'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.save(torch.jit.script(_Encoder()), str(path))
    return path


def test_the_tensors_are_those_that_torch_reads(archive: Path) -> None:
    expected = torch.jit.load(str(archive)).state_dict()

    found = read_script_archive(str(archive))

    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
        assert found[key].dtype == value.dtype


def test_it_is_told_from_a_checkpoint(archive: Path, tmp_path: Path) -> None:
    torch.save({'a': torch.zeros(1)}, tmp_path / 'x.pth')

    assert is_script_archive(str(archive))
    assert not is_script_archive(str(tmp_path / 'x.pth'))
    assert not is_script_archive(__file__)
    assert 'proj' in read_weights(str(archive)).state_dict


def _with_pickle(archive: Path, path: Path, data: bytes) -> str:
    """Write a copy of an archive with another pickle in it."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, 'w') as new:
        for name in old.namelist():
            new.writestr(name, data if name.endswith('/data.pkl') else old.read(name))
    return str(path)


@pytest.mark.parametrize(
    'data',
    [
        b'\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.',
        b'\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.',
        b'\x80\x02ctorch.jit._pickle\nrestore_type_tag\n)R.',
        pickle.dumps(Path('x'), protocol=2),
    ],
)
def test_no_other_class_is_touched(archive: Path, tmp_path: Path, data: bytes) -> None:
    path = _with_pickle(archive, tmp_path / 'evil.pt', data)

    with pytest.raises(CheckpointError, match=r'refused .*Nothing was executed'):
        read_script_archive(path)


def test_a_damaged_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        name = next(n for n in file.namelist() if n.endswith('/data.pkl'))
        data = file.read(name)
    path = _with_pickle(archive, tmp_path / 'cut.pt', data[: len(data) // 2])

    with pytest.raises(CheckpointError, match=r'cut\.pt: truncated'):
        read_script_archive(path)


def test_a_flipped_bit_of_a_weight_is_noticed(archive: Path) -> None:
    with open(archive, 'rb') as file:
        entries = verify_archive(file, 'it').entries
    entry = next(v for k, v in entries.items() if '/data/' in k and v.size > 8)
    data = bytearray(archive.read_bytes())
    data[entry.start] ^= 1
    archive.write_bytes(data)
    with pytest.raises(CheckpointError, match='checksum'):
        read_weights(str(archive))


@pytest.mark.parametrize('part', ['/data.pkl', '/data/0'])
def test_compressed_weights_are_refused(
    archive: Path, tmp_path: Path, part: str
) -> None:
    path = tmp_path / 'packed.pt'
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, 'w') as new:
        for name in old.namelist():
            kind = zipfile.ZIP_DEFLATED if name.endswith(part) else zipfile.ZIP_STORED
            new.writestr(name, old.read(name), compress_type=kind)
    with pytest.raises(CheckpointError, match=f'{part} is compressed'):
        read_weights(str(path))


def test_the_reader_of_checkpoints_says_how_to_convert(archive: Path) -> None:
    with pytest.raises(CheckpointError, match='--from openai-clip') as error:
        read_checkpoint(archive)
    assert 'weights_only' not in str(error.value)


def test_a_fifo_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'fifo.pt')
    with pytest.raises(CheckpointError, match='no regular file'):
        read_weights(str(tmp_path / 'fifo.pt'))


def test_masks_of_attention_are_no_weights() -> None:
    state_dict = TinyOpenAIClip().state_dict()
    key = 'transformer.resblocks.0.attn_mask'

    found = convert({**state_dict, key: torch.zeros(2, 2)}, 'openai-clip', 'x.pt')

    assert sorted(found.ignored) == ['logit_scale', key]
