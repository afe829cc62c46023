"""Package `gckd_mm`, with its configs and tools under `gckd_mm/.mim`."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKAGE = 'gckd_mm'
# '+' comes before '.', '/' and all letters
SORTED_FIRST = f'+{PACKAGE}'


def read_version() -> str:
    """Read the version without importing the package, which needs torch."""
    path = ROOT / PACKAGE / 'version.py'
    match = re.search(r"^__version__ = '([^']+)'$", path.read_text(), re.MULTILINE)
    if match is None:
        raise RuntimeError(f"{path}: expected a line __version__ = '...'")
    return match.group(1)


def read_long_description() -> str:
    """Read the README, or nothing where it was left out of a source tree."""
    path = ROOT / 'README.md'
    return path.read_text(encoding='utf-8') if path.exists() else ''


class BuildWithMim(build_py):
    """Add what `mim` and `_base_ = 'gckd_mm::...'` read: `gckd_mm/.mim`.

    A wheel gets copies. An editable install gets links into the source tree, so
    that an edited config is the one that runs; a new folder of configs wants a new
    install.
    """

    def run(self) -> None:
        """Build the package, then its `.mim` folder."""
        super().run()
        if self.editable_mode:
            _link_mim(ROOT / PACKAGE / '.mim')
        else:
            _copy_mim(self._mim_in_wheel())

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """List the files built, those under `.mim` included."""
        outputs = super().get_outputs(include_bytecode)
        if self.editable_mode:
            return outputs
        mim = self._mim_in_wheel()
        return outputs + [str(path) for path in mim.rglob('*') if path.is_file()]

    def _mim_in_wheel(self) -> Path:
        return Path(self.build_lib) / PACKAGE / '.mim'


class WheelWithMim(bdist_wheel):
    """Put a second copy of `.mim` into the wheel, in a folder that is sorted first.

    onedl-mim (0.5.1) takes the first folder of RECORD for the package, and installers
    sort RECORD: `../../../bin/gckd-search` would come first, which is no folder of
    ours. Ends when `mim train` reads the package's own `.mim`.
    """

    def write_wheelfile(self, wheelfile_base: str, *args: str) -> None:
        """Write WHEEL, and the copy beside its folder."""
        super().write_wheelfile(wheelfile_base, *args)
        # an editable install makes its .dist-info by this method, too
        if self.distribution.get_command_obj('editable_wheel', create=False) is None:
            _copy_mim(Path(wheelfile_base).parent / SORTED_FIRST / '.mim')


def _mim_entries() -> list[Path]:
    """List what `.mim` holds, folders as a whole, relative to the source tree.

    Of `configs`, the files at the top are left out: they have the names of those in
    `configs/gckd`, and `mim` refuses two configs of one name.
    """
    configs = [
        path.relative_to(ROOT)
        for path in sorted((ROOT / 'configs').iterdir())
        if path.suffix != '.py' and not path.name.startswith(('.', '__'))
    ]
    return [*configs, Path('tools'), Path('model-index.yml')]


def _fresh(folder: Path) -> None:
    """Make an empty folder; an earlier build may have left files deleted since."""
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _copy_mim(folder: Path) -> None:
    _fresh(folder)
    for entry in _mim_entries():
        _copy(ROOT / entry, folder / entry)


def _link_mim(folder: Path) -> None:
    _fresh(folder)
    for entry in _mim_entries():
        link = folder / entry
        link.parent.mkdir(exist_ok=True)
        try:
            link.symlink_to(os.path.relpath(ROOT / entry, link.parent))
        except OSError:  # Windows without the right to make links
            _copy(ROOT / entry, link)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    if source.is_dir():
        ignore = shutil.ignore_patterns('__pycache__', '*.py[cod]', '.*')
        shutil.copytree(source, target, ignore=ignore)
    else:
        shutil.copyfile(source, target)


# Not here but in the extra `mm`: mmengine, mmcv and mmpretrain. The maintained forks
# and the upstream packages share their import names, and whoever has the one must
# not be given the other.
INSTALL_REQUIRES = [
    'filelock>=3.12',
    'matplotlib>=3.7',
    'numpy>=1.24',
    'pillow>=9.1',
    'rich>=12',
    'tokenizers>=0.19',
    # the first whose torch.serialization.safe_globals takes (object, name) pairs, by
    # which checkpoints load without executing what they hold
    'torch>=2.6',
    'torch-geometric>=2.6',
]

EXTRAS_REQUIRE = {
    'mm': [
        'onedl-mmcv>=2.3.6',
        'onedl-mmengine>=0.10.12',
        'onedl-mmpretrain>=1.3.6',
        'torchvision>=0.21',
    ],
    'clip': ['transformers>=4.53'],  # for encoders and tokenizers from Hugging Face
    'cluster': ['scikit-learn>=1.4'],  # for a baseline that clusters, and t-SNE
    'milvus': ['milvus-lite>=2.5', 'pymilvus>=2.6'],  # for galleries in Milvus
    'onnx': ['onnx>=1.17', 'onnxruntime>=1.20', 'onnxscript>=0.5'],  # for exports
    'search': ['faiss-cpu>=1.8'],  # for galleries, and gckd-search
    'tensorboard': ['tensorboard>=2.14'],
    'timm': ['timm>=1.0'],  # for image backbones through mmpretrain's wrapper
    'umap': ['umap-learn>=0.5.6'],  # for maps of embeddings by UMAP
    'web': ['gradio>=6.31'],  # for gckd-search serve
    'test': [
        'faiss-cpu>=1.8',  # the extra `search`
        'gradio>=6.31',  # the extra `web`
        'milvus-lite>=2.5',  # the extra `milvus`
        'mypy>=1.10',
        'onnx>=1.17',  # the extra `onnx`
        'onnxruntime>=1.20',
        # pins a pandas that has no wheels for later Pythons
        "onedl-mim>=0.5.1; python_version < '3.14'",
        'onnxscript>=0.5',
        'pymilvus>=2.6',
        'pytest>=8',
        'pytest-xdist>=3.5',
        'ruff>=0.9',
        'scikit-learn>=1.4',
        'selenium>=4.15',
        'setuptools>=80',
        'timm>=1.0',
        'transformers>=4.53',  # the extra `clip`, and a judge of our losses
    ],
    'docs': [
        'mkdocs-material>=9.5',
        'mkdocstrings[python]>=0.27',
    ],
}

setup(
    name='gckd-mm',
    version=read_version(),
    description=(
        'Cross-dataset text-to-image person retrieval: graph-based cross-domain '
        'knowledge distillation (GCKD) as an OpenMMLab extension'
    ),
    long_description=read_long_description(),
    long_description_content_type='text/markdown',
    license_expression='Apache-2.0',
    license_files=['LICENSE'],
    keywords=[
        'text-to-image person retrieval',
        'unsupervised domain adaptation',
        'knowledge distillation',
        'OpenMMLab',
    ],
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    python_requires='>=3.10',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['py.typed', '**/*.json', '**/*.pth']},
    include_package_data=False,
    cmdclass={'bdist_wheel': WheelWithMim, 'build_py': BuildWithMim},
    entry_points={'console_scripts': ['gckd-search = gckd_mm.search.cli.search:main']},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    zip_safe=False,
)
