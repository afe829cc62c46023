"""The wheel, the sdist and the editable install, built and used as a user would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = (
    'CHANGELOG.md',
    'LICENSE',
    'MANIFEST.in',
    'README.md',
    'configs',
    'gckd_mm',
    'model-index.yml',
    'pyproject.toml',
    'setup.py',
    'tools',
)
NOT_SOURCE = shutil.ignore_patterns('__pycache__', '.mim', '*.egg-info')
DEMO_CONFIG = 'gckd_street2mall.py'


def run(*command: str | Path, cwd: Path, site: str | Path | None = None) -> str:
    """Run a command in `cwd`, with `site` alone as PYTHONPATH."""
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    if site is not None:
        env['PYTHONPATH'] = str(site)
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f'{command}\n{done.stdout}'
    return done.stdout


def pip_wheel(source: Path, folder: Path) -> Path:
    run(
        *(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-index'),
        *('--no-deps', '--no-build-isolation', '--wheel-dir', folder, source),
        cwd=folder.parent,
    )
    (wheel,) = folder.glob('*.whl')
    return wheel


def build(hook: str, tree: Path, folder: Path) -> Path:
    """Call a PEP 517 hook of the build backend in `tree`."""
    code = f'import setuptools.build_meta as b; b.{hook}({str(folder)!r})'
    folder.mkdir()
    run(sys.executable, '-c', code, cwd=tree)
    (built,) = folder.iterdir()
    return built


def contents(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


def source_files(name: str) -> Iterator[str]:
    for path in (ROOT / name).rglob('*'):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(('.', '__pycache__')) for part in parts)
        if path.is_file() and not hidden:
            yield '/'.join(parts)


def shipped_configs() -> set[str]:
    """All below `configs` but the files at the names of earlier versions."""
    return {
        name
        for name in source_files('configs')
        if name.count('/') > 1 or not name.endswith('.py')
    }


def assert_unique_configs(names: Iterable[str]) -> None:
    """`mim` finds a config by its file's name alone."""
    found = Counter(Path(name).name for name in names if name.endswith('.py'))
    assert found['gckd_cuhk2rstp.py'] == 1
    assert set(found.values()) == {1}


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources: building leaves files beside setup.py."""
    tree = tmp_path_factory.mktemp('tree')
    for name in SHIPPED:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, tree / name, ignore=NOT_SOURCE)
        elif path.exists():
            shutil.copyfile(path, tree / name)
    return tree


@pytest.fixture(scope='module')
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pip_wheel(tree, tmp_path_factory.mktemp('wheel') / 'dist')


@pytest.fixture(scope='module')
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that holds the installed wheel and nothing else."""
    site = tmp_path_factory.mktemp('installed') / 'site'
    run(
        *(sys.executable, '-m', 'pip', 'install', '--quiet', '--no-index'),
        *('--no-deps', '--target', site, wheel),
        cwd=site.parent,
    )
    return site


def test_wheel_holds_every_source_config_and_tool(wheel: Path) -> None:
    held = set(contents(wheel))
    modules = {name for name in source_files('gckd_mm') if name.endswith('.py')}
    assert modules <= held
    assert 'gckd_mm/py.typed' in held
    mim = {*shipped_configs(), *source_files('tools'), 'model-index.yml'}
    assert 'tools/train.py' in mim
    assert {f'gckd_mm/.mim/{name}' for name in mim} == {
        name for name in held if name.startswith('gckd_mm/.mim/')
    }
    assert_unique_configs(name for name in mim if name.startswith('configs/'))


def test_wheel_holds_no_top_level_but_the_package(wheel: Path) -> None:
    held = contents(wheel)
    top_level = {name.split('/')[0] for name in held}
    assert {name for name in top_level if not name.endswith('.dist-info')} == {
        'gckd_mm',
        '+gckd_mm',
    }
    # for mim, and for nobody else
    copies = {name: crc for name, crc in held.items() if name.startswith('+gckd_mm/')}
    assert copies == {
        f'+{name}': crc for name, crc in held.items() if name.startswith('gckd_mm/.mim')
    }


def test_the_wheel_brings_the_command(site: Path) -> None:
    output = run(
        *(sys.executable, site / 'bin' / 'gckd-search', '--help'), cwd=site, site=site
    )
    assert output.startswith('usage: gckd-search')


def test_sdist_builds_the_same_wheel(tree: Path, wheel: Path, tmp_path: Path) -> None:
    sdist = build('build_sdist', tree, tmp_path / 'sdist')
    rebuilt = pip_wheel(sdist, tmp_path / 'dist')
    assert contents(rebuilt) == contents(wheel)


def test_files_deleted_since_an_earlier_build_are_not_shipped(
    tree: Path, tmp_path: Path
) -> None:
    work = shutil.copytree(tree, tmp_path / 'tree')
    stale = work / 'build' / 'lib' / 'gckd_mm' / '.mim' / 'configs' / 'stale.py'
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.touch()
    assert not any('stale.py' in name for name in contents(pip_wheel(work, tmp_path)))


def test_package_and_base_configs_come_from_the_wheel(
    site: Path, tmp_path: Path
) -> None:
    config = tmp_path / 'user_config.py'
    config.write_text("_base_ = 'gckd_mm::_base_/default_runtime.py'\nmine = 1\n")
    code = """if True:
        import json
        from importlib import metadata

        import gckd_mm
        from mmengine import Config
        from mmengine.utils import get_installed_path

        config = Config.fromfile('user_config.py')
        print(json.dumps(dict(
            imported=gckd_mm.__file__,
            package=get_installed_path('gckd_mm'),
            versions=[gckd_mm.__version__, metadata.version('gckd-mm')],
            keys=list(config),
        )))
    """
    output = run(sys.executable, '-c', code, cwd=tmp_path, site=site)
    seen = json.loads(output.splitlines()[-1])
    assert Path(seen['imported']).parent == site / 'gckd_mm'
    assert Path(seen['package']) == site / 'gckd_mm'
    assert seen['versions'][0] == seen['versions'][1]
    assert 'mine' in seen['keys']
    assert len(seen['keys']) > 1


HUB = """if True:
    import json
    import warnings
    from pathlib import Path

    import gckd_mm
    import torch
    from mmengine import Config
    from mmengine.hub import get_config, get_model
    from gckd_mm.checkpoint import read_checkpoint

    name = 'gckd/gckd_street2mall.py'
    Path('user_config.py').write_text(f"_base_ = 'gckd_mm::{name}'")
    cfg = get_config(f'gckd_mm::{name}', pretrained=True)
    based = Config.fromfile('user_config.py').to_dict()
    warnings.simplefilter('error')  # of missing scopes
    torch.manual_seed(0)
    plain = get_model(f'gckd_mm::{name}')
    model = get_model(f'gckd_mm::{name}', pretrained=True).eval()
    shipped = read_checkpoint(cfg.model_path)['state_dict']
    loaded = model.state_dict()
    tokens = model.data_preprocessor.tokenizer(['a man in red'])
    print(json.dumps(dict(
        file=cfg.filename,
        weights=cfg.model_path,
        based=based['model'] == {**cfg.model.to_dict(), '_scope_': 'gckd_mm'},
        ablation=get_config('gckd_mm::ablations/gmp_street2mall.py').model.type,
        kinds=[type(plain).__name__, type(model).__name__],
        initialised=[getattr(plain, '_is_init', False), model._is_init],
        same=all(torch.equal(v, loaded[k]) for k, v in shipped.items()
                 if isinstance(v, torch.Tensor)),
        plain_differs=not torch.equal(
            plain.image_neck.projection.weight, model.image_neck.projection.weight
        ),
        tokens=tokens['input_ids'].shape[1],
    )))
"""


def check_hub(root: Path, tmp_path: Path, path: str | Path) -> None:
    """Let mmengine's hub find configs and shipped weights, from a folder of a user."""
    output = run(sys.executable, '-c', HUB, cwd=tmp_path, site=path)
    seen = json.loads(output.splitlines()[-1])
    file = Path(root, 'gckd_mm/.mim/configs/gckd/gckd_street2mall.py')
    assert Path(seen.pop('file')) == file
    assert seen.pop('tokens') > 3
    assert seen == {
        'weights': 'gckd_mm://gckd_street2mall',
        'based': True,
        'ablation': 'GCKD',
        'kinds': ['GCKD', 'GCKD'],
        'initialised': [False, True],
        'same': True,
        'plain_differs': True,
    }


def test_the_hub_finds_the_configs_of_a_wheel(site: Path, tmp_path: Path) -> None:
    check_hub(site, tmp_path, site)


def small_data(root: Path, folder: Path, path: str | Path) -> None:
    """Write a few synthetic pedestrians below `folder`, as the configs expect them."""
    tool = root / 'gckd_mm' / '.mim' / 'tools' / 'make_synthpedes.py'
    sizes = ('--train', '6', '--val', '0', '--test', '4', '--images', '2')
    run(sys.executable, tool, 'street', 'mall', *sizes, cwd=folder, site=path)


def mim(command: str, *arguments: str | Path, cwd: Path, site: str | Path) -> str:
    pytest.importorskip('mim', reason='onedl-mim is not installed')
    call = (sys.executable, '-m', 'mim', command, 'gckd_mm', *arguments)
    return run(*call, cwd=cwd, site=site)


def check_mim(config: str | Path, root: Path, tmp_path: Path, path: str | Path) -> None:
    """Train and test a shipped config by `mim`, from a folder of a user."""
    small_data(root, tmp_path, path)
    stages = ('--source-iters', '1', '--adapt-iters', '1')
    few = ('--cfg-options', 'train_dataloader.batch_size=4')
    output = mim('train', config, *stages, *few, cwd=tmp_path, site=path)
    assert 'Training finished successfully' in output
    (found,) = re.findall(r'Training command is \S+ (\S+)', output)
    assert Path(found).is_relative_to(root)
    weights = tmp_path / 'work_dirs/gckd_street2mall/iter_2.pth'
    output = mim('test', config, '--checkpoint', weights, cwd=tmp_path, site=path)
    assert 'Testing finished successfully' in output


def test_mim_trains_and_tests_a_config_of_a_wheel_by_its_name(
    site: Path, tmp_path: Path
) -> None:
    check_mim(DEMO_CONFIG, site, tmp_path, site)


def test_editable_install_links_into_the_source_tree(
    tree: Path, tmp_path: Path
) -> None:
    work = shutil.copytree(tree, tmp_path / 'tree')
    for attempt in ('first', 'again'):
        editable = build('build_editable', work, tmp_path / attempt)
        assert not any('.mim' in name for name in contents(editable))
        mim = work / 'gckd_mm' / '.mim'
        assert mim.joinpath('tools').resolve() == (work / 'tools').resolve()
        # `os.walk` and links, as mim looks
        linked = {
            os.path.relpath(os.path.join(folder, name), mim): Path(folder, name)
            for folder, _, names in os.walk(mim / 'configs', followlinks=True)
            for name in names
        }
        assert {name.replace(os.sep, '/') for name in linked} == shipped_configs()
        for name, path in linked.items():
            assert path.resolve() == (work / name).resolve()
        assert_unique_configs(linked)


def test_an_editable_install_of_an_earlier_version_loses_its_link_to_all_configs(
    tree: Path, tmp_path: Path
) -> None:
    work = shutil.copytree(tree, tmp_path / 'tree')
    mim = work / 'gckd_mm' / '.mim'
    mim.mkdir()
    for name in ('configs', 'tools', 'model-index.yml'):
        (mim / name).symlink_to(f'../../{name}')
    build('build_editable', work, tmp_path / 'built')
    assert not (mim / 'configs' / 'gckd_street2mall.py').exists()
    assert (mim / 'configs' / 'gckd' / 'gckd_street2mall.py').is_file()
    assert (work / 'configs' / 'gckd_street2mall.py').is_file()


def test_an_editable_install_serves_the_hub_and_mim(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pip makes it: metadata in a folder of their own, before the source tree."""
    work = shutil.copytree(tree, tmp_path / 'tree')
    site, user = tmp_path / 'site', tmp_path / 'user'
    with zipfile.ZipFile(build('build_editable', work, tmp_path / 'wheel')) as wheel:
        wheel.extractall(site)
    (dist_info,) = site.glob('*.dist-info')
    origin = {'dir_info': {'editable': True}, 'url': work.as_uri()}
    (dist_info / 'direct_url.json').write_text(json.dumps(origin))
    user.mkdir()
    path = f'{site}{os.pathsep}{work}'
    check_hub(work, user, path)
    # by path: onedl-mim looks for names in the whole tree, where links are found, too
    check_mim(work / 'configs/gckd' / DEMO_CONFIG, work, user, path)


def test_tested_versions_cover_every_requirement(site: Path) -> None:
    text = (ROOT / 'requirements' / 'tested.txt').read_text()
    lines = [line for line in text.splitlines() if not line.startswith('#')]
    for line in lines:
        assert re.fullmatch(
            r'[a-z0-9-]+==[0-9.]+(post[0-9]+)?(; python_version .+)?', line
        ), line
    pinned = {line.split('==')[0] for line in lines}
    (dist_info,) = site.glob('gckd_mm-*.dist-info')
    required = metadata.Distribution.at(dist_info).requires
    assert required
    names = {re.split(r'[^A-Za-z0-9_.-]', line)[0].lower() for line in required}
    assert names <= pinned
