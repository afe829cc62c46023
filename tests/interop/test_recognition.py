"""Other projects' checkpoints are recognised, and the error says how to convert."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from gckd_mm.checkpoint import check_resumable, load_weights, read_checkpoint
from gckd_mm.checkpoint.stored_config import config_of
from gckd_mm.errors import CheckpointError
from gckd_mm.interop import convert
from gckd_mm.interop.recognition import family_of
from gckd_mm.search.apis import PersonSearchInferencer
from tests.interop.openai_model import TinyOpenAIClip
from tests.training import ROOT, in_process, small_config, small_gckd_config
from tools import convert_checkpoint
from tools import test as test_tool
from tools import train as train_tool

WRAPPERS = ['', 'module.', '_orig_mod.', 'module._orig_mod.', 'model.']


def _openai() -> dict[str, Any]:
    return dict(TinyOpenAIClip().state_dict())


def _irra() -> dict[str, Any]:
    state = {f'base_model.{key}': value for key, value in _openai().items()}
    return {
        **state,
        'classifier.weight': torch.zeros(3, 4),
        'mlm_head.b': torch.ones(1),
    }


def _open_clip() -> dict[str, Any]:
    return {
        key if key.startswith(('visual.', 'logit')) else f'text.{key}': value
        for key, value in _openai().items()
    }


@pytest.mark.parametrize('wrapper', WRAPPERS)
@pytest.mark.parametrize(
    ('family', 'make'),
    [('openai-clip', _openai), ('open-clip', _open_clip), ('irra', _irra)],
)
def test_a_family_is_recognised_and_converts(
    family: str, make: Any, wrapper: str
) -> None:
    state = {wrapper + key: value for key, value in make().items()}
    assert family_of(state) == family
    assert family_of({'model': state, 'epoch': 3}) == family
    assert family_of({'state_dict': state}) == family
    assert family_of({'net': state, 'acc': 0.5}) == family

    found = convert(state, family, 'x.pth')
    expected = convert(make(), family, 'x.pth')
    assert found.weights.keys() == expected.weights.keys()
    assert all(torch.equal(found.weights[k], v) for k, v in expected.weights.items())
    assert all(key in state for key in (*found.ignored, *found.unused))


def test_our_own_are_of_no_family(trained: Path) -> None:
    for file in trained.glob('iter_*.pth'):
        assert family_of(read_checkpoint(file)) is None
    assert family_of({}) is None
    assert family_of({'state_dict': 3, 'model': [1]}) is None
    assert family_of({'a': torch.zeros(1)}) is None


def test_a_key_with_and_without_a_wrapper_is_refused() -> None:
    state = _openai()
    state['module.visual.proj'] = state['visual.proj']
    with pytest.raises(CheckpointError, match='twice'):
        convert(state, 'openai-clip', 'x.pth')


@pytest.fixture(scope='module')
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('irra') / 'best.pth'
    torch.save({'model': _irra(), 'optimizer': {}, 'epoch': 60}, path)
    return path


def _call_in(message: str) -> list[str]:
    """Return the arguments of the conversion that an error advises."""
    call = message.partition('tools/convert_checkpoint.py ')[2].partition(',')[0]
    return shlex.split(call)


def test_every_reader_advises_a_call_that_works(best: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(best)
    for use in (
        lambda: config_of(checkpoint, str(best)),
        lambda: check_resumable(checkpoint, str(best)),
        lambda: load_weights(torch.nn.Linear(1, 1), checkpoint, str(best)),
        lambda: PersonSearchInferencer(best),
    ):
        with pytest.raises(CheckpointError) as error:
            use()
        arguments = _call_in(str(error.value))
        assert arguments[:3] == ['--from', 'irra', str(best)]
    convert_checkpoint.main([*arguments[:3], str(tmp_path / 'out.pth')])
    assert read_checkpoint(tmp_path / 'out.pth')['meta']['converted_from'] == 'irra'


def _errors(out: Path, calls: list[tuple[Any, list[str]]]) -> None:
    for number, (main, arguments) in enumerate(calls):
        try:
            main(arguments)
        except SystemExit as stop:
            (out / str(number)).write_text(str(stop.code))


def test_the_tools_pass_the_advice_on(
    best: Path, miniature: Path, tmp_path: Path
) -> None:
    plain, adapting = tmp_path / 'plain.py', tmp_path / 'gckd.py'
    small_config(miniature, tmp_path / 'a').dump(plain)
    small_gckd_config(miniature, tmp_path / 'b').dump(adapting)
    calls: list[tuple[Any, list[str]]] = [
        (test_tool.main, [str(best)]),
        (test_tool.main, [str(plain), str(best)]),
        (train_tool.main, [str(plain), '--resume', str(best)]),
        (train_tool.main, [str(plain), '--cfg-options', f'load_from={best}']),
        (train_tool.main, [str(adapting), '--source-checkpoint', str(best)]),
    ]
    assert in_process(_errors, tmp_path, calls) == 0
    for number in range(len(calls)):
        text = (tmp_path / str(number)).read_text()
        assert _call_in(text)[:3] == ['--from', 'irra', str(best)], text


def test_the_tool_that_is_advised_is_there() -> None:
    assert (ROOT / 'tools/convert_checkpoint.py').is_file()
