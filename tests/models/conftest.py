"""Folders of tiny pretrained models, written once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of random weights with its tokenizer, as transformers saves them."""
    from tests.models.tiny_clip import write_clip

    return write_clip(tmp_path_factory.mktemp('hub') / 'tiny-clip')


@pytest.fixture(scope='session')
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights with its tokenizer."""
    from tests.models.tiny_clip import write_bert

    return write_bert(tmp_path_factory.mktemp('hub') / 'tiny-bert')


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, and nothing in its cache."""
    constants = pytest.importorskip('huggingface_hub.constants')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
