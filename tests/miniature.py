"""Draw miniature datasets in the three official schemas, for the tests.

python tests/miniature.py data/miniature
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np

COLOURS = {
    'red': (200, 40, 40),
    'green': (40, 150, 60),
    'blue': (40, 70, 190),
    'yellow': (225, 200, 50),
    'black': (30, 30, 34),
    'white': (235, 235, 230),
    'purple': (130, 60, 150),
    'orange': (235, 130, 40),
}
HAIR = {'blond': (215, 180, 110), 'brown': (95, 60, 35), 'black': (25, 22, 22)}

#: dataset -> split -> (ids, images an id)
SIZES = {
    'cuhk_pedes': {'train': (32, 3), 'val': (8, 2), 'test': (16, 2)},
    'icfg_pedes': {'train': (24, 3), 'test': (12, 3)},
    'rstpreid': {'train': (24, 5), 'val': (8, 5), 'test': (16, 5)},
}
#: dataset -> (words of its annotators, background, share of the light)
DOMAINS = {
    'cuhk_pedes': (('coat', 'trousers', 'wears'), (150, 160, 170), 1.0),
    'icfg_pedes': (('jacket', 'pants', 'is dressed in'), (95, 110, 95), 0.7),
    'rstpreid': (('top', 'jeans', 'has on'), (190, 180, 165), 0.85),
}


def draw_person(look: tuple[str, str, str], domain: str, rng: np.random.Generator):
    """Draw one person: RGB, uint8, shape (96, 40, 3)."""
    upper, lower, hair = look
    _, background, light = DOMAINS[domain]
    image = np.full((96, 40, 3), background, np.float64)
    image += np.linspace(-25, 25, 96)[:, None, None]
    x, y = 20 + int(rng.integers(-3, 4)), int(rng.integers(-3, 4))
    wide = int(rng.integers(8, 11))
    skin = (220, 180, 150)
    for side in (-1, 1):
        hip = (x + side * wide // 2, y + 55)
        foot = (x + side * int(rng.integers(3, 8)), y + 88)
        cv2.line(image, hip, foot, COLOURS[lower], 7)
        shoulder, hand = (x + side * wide, y + 29), (x + side * (wide + 2), y + 52)
        cv2.line(image, shoulder, hand, COLOURS[upper], 4)
        cv2.circle(image, hand, 2, skin, -1)
    cv2.rectangle(image, (x - wide, y + 27), (x + wide, y + 57), COLOURS[upper], -1)
    cv2.circle(image, (x, y + 17), 8, skin, -1)
    cv2.ellipse(image, (x, y + 14), (8, 7), 0, 180, 360, HAIR[hair], -1)
    image = image * light * rng.uniform(0.9, 1.1) + rng.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def describe(look: tuple[str, str, str], domain: str, variant: int) -> str:
    """Write one caption."""
    upper, lower, hair = look
    (top, bottom, verb), *_ = DOMAINS[domain]
    forms = (
        f'A person with {hair} hair {verb} a {upper} {top} and {lower} {bottom}.',
        f'{lower.capitalize()} {bottom}, a {upper} {top}; the hair is {hair}.',
    )
    return forms[variant % 2]


def write_dataset(root: Path, domain: str, seed: int = 0) -> Path:
    """Write one dataset in its official schema below ``root``; return its folder."""
    rng = np.random.default_rng([seed, sorted(SIZES).index(domain)])
    looks = list(itertools.product(COLOURS, COLOURS, HAIR))
    order = iter(rng.permutation(len(looks)))
    folder = root / domain
    records = []
    pid = 0 if domain == 'rstpreid' else 1
    for split, (num_ids, num_images) in SIZES[domain].items():
        for _ in range(num_ids):
            look = looks[next(order)]
            for number in range(num_images):
                image = draw_person(look, domain, rng)
                path = f'{pid:04d}_c{number}.png'
                if domain != 'rstpreid':
                    path = f'{split if domain == "icfg_pedes" else "cam_a"}/{path}'
                target = folder / 'imgs' / path
                target.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(target), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                captions = [describe(look, domain, number), describe(look, domain, 1)]
                records.append(_record(domain, pid, path, captions, split))
            pid += 1
    name = {
        'cuhk_pedes': 'reid_raw.json',
        'icfg_pedes': 'ICFG-PEDES.json',
        'rstpreid': 'data_captions.json',
    }[domain]
    (folder / name).write_text(json.dumps(records, indent=1), encoding='utf-8')
    return folder


def _record(
    domain: str, pid: int, path: str, captions: list[str], split: str
) -> dict[str, object]:
    if domain == 'rstpreid':
        return {'id': pid, 'img_path': path, 'captions': captions, 'split': split}
    if domain == 'icfg_pedes':
        captions, split = captions[:1], split.upper() if pid % 2 else split
    tokens = [caption.lower().rstrip('.').split() for caption in captions]
    return {
        'split': split,
        'captions': captions,
        'file_path': path,
        'processed_tokens': tokens,
        'id': pid,
    }


def write_all(root: Path, seed: int = 0) -> Path:
    """Write all three datasets below ``root``, which appears whole or not at all."""
    partial = root.with_name(f'.{root.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    for domain in SIZES:
        write_dataset(partial, domain, seed)
    shutil.rmtree(root, ignore_errors=True)
    os.replace(partial, root)
    return root


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('root', type=Path, help='folder to write, replaced if there')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    arguments.root.parent.mkdir(parents=True, exist_ok=True)
    print(f'wrote {", ".join(SIZES)} below {write_all(**vars(arguments))}')
