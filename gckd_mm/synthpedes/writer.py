"""Write a synthetic domain to disk, in the schema of the real dataset it resembles."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from gckd_mm.datasets.image_hashes import Track
from gckd_mm.errors import InputError
from gckd_mm.fileio import write_atomically
from gckd_mm.synthpedes.domain import Shot, SynthDomain
from gckd_mm.synthpedes.rendering_processes import available_processors, rendering

DESCRIPTION = 'synthpedes.json'
IMAGE_FOLDER = 'imgs'
ANNOTATION_FILES: Mapping[str, str] = {
    'CUHKPEDES': 'reid_raw.json',
    'RSTPReid': 'data_captions.json',
    'ICFGPEDES': 'ICFG-PEDES.json',
}
_FILE_NAMES: Mapping[str, Callable[[Shot], str]] = {
    'CUHKPEDES': lambda shot: f'cam_a/{shot.pid:04d}_{shot.number}.jpg',
    'RSTPReid': lambda shot: f'{shot.pid:04d}_c1_{shot.number:04d}.jpg',
    'ICFGPEDES': lambda shot: (
        f'{shot.split}/{shot.pid:04d}/{shot.pid:04d}_{shot.number:03d}.jpg'
    ),
}
_TYPICAL_BYTES = 8192  # of an image of 160 x 80 pixels, in whole blocks of a disk


def write_domain(
    domain: SynthDomain,
    folder: str | os.PathLike[str],
    processes: int | None = None,
    redraw: bool = False,
    track: Track = lambda items, total: items,
) -> Path:
    """Render a domain into a folder that the loader of its real dataset can read.

    The files do not depend on the number of processes. ``synthpedes.json`` says what is
    being rendered and whether all of it is there; what was stopped at any moment is
    continued by the next call, and a whole one is left as it is.

    Args:
        domain: What to render.
        folder: Made if needed; what lies there must be a rendering of the same domain.
        processes: How many render. Defaults to the number of processors.
        redraw: Whether to delete the images, annotations and description that a
            generator wrote there, of whatever version and domain. Defaults to False.
        track: Shows the progress over the images that were not there yet. Defaults
            to no progress bar.

    Returns:
        The folder.

    Raises:
        InputError: If something else lies in the folder, if it cannot be written, or
            if a process was killed.
    """
    folder = Path(folder)
    if processes is None:
        processes = available_processors()
    if processes < 1:
        raise InputError(f'processes must be at least 1, got {processes}')
    with _disk_errors(domain, folder, redraw):
        if redraw:
            _delete_drawing(folder)
        elif _is_complete(domain, folder):
            return folder
        _write_description(domain, folder, complete=False)
        # Before the processes start: what the domain remembers is theirs as well.
        annotations = _write_annotations(domain)
        missing = _missing_shots(domain, folder)
        for parent in {_image_path(domain, folder, shot).parent for shot in missing}:
            parent.mkdir(parents=True, exist_ok=True)
        try:
            render = partial(_render, domain, folder)
            with rendering(render, missing, processes) as done:
                for _ in track(done, len(missing)):
                    pass
        finally:
            _delete_partial_images(folder)
        write_atomically(folder / ANNOTATION_FILES[domain.dataset_type], annotations)
        checksum = hashlib.sha256(annotations).hexdigest()
        _write_description(domain, folder, complete=True, sha256=checksum)
    return folder


def is_complete(domain: SynthDomain, folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder holds the whole rendering of a domain.

    Raises:
        InputError: If something else lies there, or a rendering whose annotations were
            changed.
    """
    with _disk_errors(domain, Path(folder)):
        return _is_complete(domain, Path(folder))


def file_name(domain: SynthDomain, shot: Shot) -> str:
    """Return where an image lies below ``imgs/``, named as in the real dataset."""
    return _FILE_NAMES[domain.dataset_type](shot)


def _is_complete(domain: SynthDomain, folder: Path) -> bool:
    found = _read_description(folder)
    if found is None:
        return False
    _check_same_drawing(domain, folder, found)
    if not found.get('complete'):
        return False
    path = folder / ANNOTATION_FILES[domain.dataset_type]
    if not path.is_file():
        return False
    if hashlib.sha256(path.read_bytes()).hexdigest() != found.get('sha256'):
        raise InputError(
            f'{path}: is not what was drawn, its sha256 differs from that in '
            f'{DESCRIPTION}. Move it away to keep it: then what is missing is rendered'
        )
    return not _missing_shots(domain, folder)


def _image_path(domain: SynthDomain, folder: Path, shot: Shot) -> Path:
    return folder / IMAGE_FOLDER / file_name(domain, shot)


def _missing_shots(domain: SynthDomain, folder: Path) -> list[Shot]:
    """Return the images without a file, or with an empty one, as power cuts leave."""

    def is_there(path: Path) -> bool:
        try:
            return path.stat().st_size > 0
        except FileNotFoundError:
            return False

    return [
        shot
        for shot in domain.shots()
        if not is_there(_image_path(domain, folder, shot))
    ]


def _write_annotations(domain: SynthDomain) -> bytes:
    records = [_write_record(domain, shot) for shot in domain.shots()]
    return (json.dumps(records, indent=1) + '\n').encode()


def _write_record(domain: SynthDomain, shot: Shot) -> dict[str, Any]:
    captions = domain.write_captions(shot)
    if domain.dataset_type == 'RSTPReid':
        return {
            'id': shot.pid,
            'img_path': file_name(domain, shot),
            'captions': captions,
            'split': shot.split,
        }
    return {
        'split': shot.split,
        'captions': captions,
        'file_path': file_name(domain, shot),
        'processed_tokens': [
            re.findall(r"\w+(?:['-]\w+)*", caption.lower()) for caption in captions
        ],
        'id': shot.pid,
    }


def _write_description(
    domain: SynthDomain, folder: Path, complete: bool, sha256: str | None = None
) -> None:
    description = {
        **domain.describe(),
        'dataset': domain.dataset_type,
        'num_images': len(domain.shots()),
        'annotations': ANNOTATION_FILES[domain.dataset_type],
        'sha256': sha256,
        'complete': complete,
    }
    write_atomically(folder / DESCRIPTION, json.dumps(description, indent=2) + '\n')


def _read_description(folder: Path) -> dict[str, Any] | None:
    """Read what a folder says it holds; None if nothing is there.

    Raises:
        InputError: If it does not say, or is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f'{folder}: must be a folder to draw into, but it is a file. Choose '
            f'another place'
        )
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_bytes())
    except FileNotFoundError:
        # A kill during the very first write leaves its partial file alone.
        ours = f'.{DESCRIPTION}.partial'
        others = [name for name in _names(folder) if name != ours]
        if not others:
            return None
        raise InputError(
            f'{folder}: must be empty, new, or hold a drawing ({DESCRIPTION}), but it '
            f'holds {len(others)} other files or folders, such as {others[0]}. Choose '
            f'another place; nothing was touched'
        ) from None
    except ValueError as error:
        raise InputError(
            f'{path}: is no description of a drawing ({error}). Delete {folder}, or '
            f'choose another place'
        ) from error
    if not isinstance(description, dict) or 'generator' not in description:
        raise InputError(
            f'{path}: is no description of a drawing (no generator is named). Delete '
            f'{folder}, or choose another place'
        )
    return description


def _names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


def _check_same_drawing(
    domain: SynthDomain, folder: Path, found: Mapping[str, Any]
) -> None:
    expected = domain.describe()
    if found['generator'] != expected['generator']:
        raise InputError(
            f'{folder}: was drawn by generator {found["generator"]}, this is '
            f'{expected["generator"]}: results on the two cannot be compared. --redraw '
            f'draws it again'
        )
    different = [key for key in expected if found.get(key) != expected[key]]
    if different:
        raise InputError(
            f'{folder}: holds another drawing, {_show(found, different)} instead of '
            f'{_show(expected, different)}. Choose another place; --redraw replaces it'
        )


def _show(description: Mapping[str, Any], keys: Sequence[str]) -> str:
    shown = []
    for key in keys:
        value = description.get(key)
        if isinstance(value, dict):
            value = '/'.join(f'{name} {number}' for name, number in value.items())
        shown.append(f'{key} {value}')
    return ', '.join(shown)


def _delete_drawing(folder: Path) -> None:
    """Delete what a generator wrote, its description last: a kill leaves it ours."""
    if _read_description(folder) is None:
        return
    if (folder / IMAGE_FOLDER).exists():
        shutil.rmtree(folder / IMAGE_FOLDER)
    for name in (*ANNOTATION_FILES.values(), DESCRIPTION):
        (folder / name).unlink(missing_ok=True)


def _delete_partial_images(folder: Path) -> None:
    for path in (folder / IMAGE_FOLDER).rglob('.*.partial'):
        path.unlink(missing_ok=True)


def _render(domain: SynthDomain, folder: Path, shot: Shot) -> None:
    """Render an image and write it whole; its bytes may reach the disk later."""
    path = _image_path(domain, folder, shot)
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    image = Image.fromarray(domain.draw_image(shot))
    quality = domain.camera_at(shot).quality
    image.save(unfinished, 'JPEG', quality=quality, subsampling=0)
    os.replace(unfinished, path)


@contextmanager
def _disk_errors(
    domain: SynthDomain, folder: Path, redraw: bool = False
) -> Iterator[None]:
    """Tell the user what to do about a disk that is full, or closed to us."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            again = 'command without --redraw' if redraw else 'command'
            raise InputError(
                f'{folder}: there is no space left on its disk. What is missing of '
                f'{domain.name} needs about {_needed_megabytes(domain, folder)} MB: '
                f'free as much, and the same {again} continues the drawing'
            ) from error
        raise InputError(
            f'{folder}: must be a folder that can be read and written '
            f'({error.strerror or error}). Make it so and run the same command, or '
            f'choose another place'
        ) from error


def _needed_megabytes(domain: SynthDomain, folder: Path) -> int:
    return 1 + len(_missing_shots(domain, folder)) * _TYPICAL_BYTES // 10**6
