"""Measure a search: indexing, searching exactly and among a million, the web page.

    python benchmarks/search.py [--parts index exact large web] [--json PATH]

- ``index``: 10,000 drawn JPEG crops with the default model, in turn with a bare loop
  that decodes and encodes the same files; then 100 more.
- ``exact``: one query among 50,000 embeddings of 256 numbers, in turn with a bare
  product of matrix and vector and the choice of the largest ten; then among those that
  are left after one in a hundred was deleted.
- ``large``: one query at a time among 200,000 (HNSW and IVF, between which a gallery's
  size chooses) and 1,000,000 (IVF), and exactly: time, recall of the true nearest ten,
  memory, files. The embeddings are those of random people (:func:`clustered`), and for
  comparison uniform ones.
- ``web``: the demo: how soon it is there, the first search in its page, and 20 users of
  its JSON interface at the same time for 30 s.

Every figure has its reference in the same run. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.gallery import Gallery, Item
from gckd_mm.search.gallery.files import find_images
from gckd_mm.search.gallery.indexing import update
from gckd_mm.search.gallery.items import Stamp
from gckd_mm.search.gallery.vector_index import MAX_HNSW

sys.path.insert(0, str(Path(__file__).parent))
from data import draw_dataset
from evaluation import _status_bytes as status_bytes
from report import add_json_option, write_report

MODEL = 'gckd_mm://synthclip_tiny_web'
PARTS = ('index', 'exact', 'large', 'web')
DIM, TOP_K = 256, 10
#: numbers that tell people apart, and pictures of one person
INTRINSIC, PICTURES = 24, 20
CHUNK = 50_000

MAX_INDEX_RATIO = 1.1
MAX_EXACT_RATIO = 1.2
MIN_RECALL, MIN_SPEEDUP, MAX_BUILD_SECONDS = 0.95, 20.0, 900.0
MAX_FIRST_MS, MAX_READY_SECONDS = 300.0, 60.0

QUERIES = (
    'a woman in a red coat with a white backpack',
    'a man wearing a blue shirt and black trousers',
    'someone with a hat and a green bag',
    'a girl in a yellow dress',
    'an old man with a grey umbrella',
)

Figures = dict[str, Any]


def clustered(count: int, seed: int, dim: int = DIM) -> Iterator[np.ndarray]:
    """Yield embeddings of random people, in chunks.

    A person is a point of a sphere in 24 dimensions, turned into ``dim`` by a matrix
    that all have in common. A picture adds to it what changes from picture to picture,
    on the same 24 directions by a third as much, and noise on all of them by a tenth.
    A person has 20 pictures, which lie scattered over the gallery.

    Args:
        count: How many.
        seed: Of the pictures. The people and the matrix are the same for all seeds, so
            that another seed gives other pictures of them.
        dim: Numbers of an embedding.

    Yields:
        L2-normalised, each of shape (at most 50,000, dim), float32.
    """
    common = np.random.default_rng(0)
    basis = np.linalg.qr(common.normal(size=(dim, INTRINSIC)))[0].T.astype(np.float32)
    num_people = max(1, count // PICTURES)
    people = _unit(common.normal(size=(num_people, INTRINSIC)))
    rng = np.random.default_rng([1, seed])
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        who = rng.integers(num_people, size=size)
        view = _unit(rng.normal(size=(size, INTRINSIC))) / 3
        noise = _unit(rng.normal(size=(size, dim))) / 10
        yield _unit((people[who] + view) @ basis + noise)


def uniform(count: int, seed: int, dim: int = DIM) -> Iterator[np.ndarray]:
    """Yield embeddings of every direction alike, in chunks, as :func:`clustered`."""
    rng = np.random.default_rng([2, seed])
    for start in range(0, count, CHUNK):
        yield _unit(rng.normal(size=(min(CHUNK, count - start), dim)))


KINDS_OF_DATA: dict[str, Callable[..., Iterator[np.ndarray]]] = {
    'clustered': clustered,
    'uniform': uniform,
}


def _unit(feats: np.ndarray) -> np.ndarray:
    feats = feats.astype(np.float32)
    return feats / np.linalg.norm(feats, axis=1, keepdims=True)


def measure_index(count: int, more: int, folder: Path) -> Figures:
    """Index crops, in turn with decoding and encoding them in a bare loop."""
    draw_dataset(folder / 'crops', count, seed=0)
    crops = folder / 'crops' / 'imgs'
    inferencer = PersonSearchInferencer(MODEL, device='cpu', show_progress=False)
    encoder = inferencer.encoder
    files = [str(path) for path in sorted(crops.iterdir())]
    inferencer.encode_images(files[:128])  # the first calls load kernels

    def bare() -> float:
        began = time.perf_counter()
        for start in range(0, count, 64):
            some = [encoder.prepare(file) for file in files[start : start + 64]]
            encoder.embed_images(some)
        return time.perf_counter() - began

    def index(name: str) -> float:
        began = time.perf_counter()
        with inferencer.new_gallery(folder / name, crops) as gallery:
            update(gallery, inferencer, find_images(crops))
        return time.perf_counter() - began

    # in turn, so that a machine that grows slower is so for both
    bare_seconds = [bare()]
    seconds = [index('first'), index('second')]
    bare_seconds += [bare(), bare()]
    seconds += [index('third')]
    with Gallery.open(folder / 'third') as gallery:
        size = len(gallery)
        draw_dataset(folder / 'more', more, seed=1)
        for path in (folder / 'more' / 'imgs').iterdir():
            path.rename(crops / f'more_{path.name}')
        began = time.perf_counter()
        then = update(gallery, inferencer, find_images(crops))
        more_seconds = time.perf_counter() - began
    return {
        'images': size,
        'seconds': statistics.mean(seconds),
        'bare_seconds': statistics.mean(bare_seconds),
        'ratio': sum(seconds) / sum(bare_seconds),
        'more_encoded': then.added + then.changed,
        'more_kept': then.unchanged,
        'more_seconds': more_seconds,
    }


def fill(folder: Path, chunks: Iterator[np.ndarray], index: str) -> Gallery:
    """Make a gallery of embeddings whose pictures there are none of."""
    model = {'model': 'random', 'source': None}
    gallery = Gallery.create(folder, model, 'random', DIM, None, index)
    count = 0
    for feats in chunks:
        items = [
            Item(f'{n:08d}.jpg', Stamp(0, 0), {})
            for n in range(count, count + len(feats))
        ]
        gallery.engine.upsert(items, feats)
        count += len(feats)
    return gallery


def measure_exact(count: int, repeats: int, folder: Path) -> Figures:
    """Search with one query, in turn with a bare product and choice."""
    feats = np.concatenate(list(clustered(count, seed=0)))
    queries = next(clustered(count, seed=1))[:repeats]
    with fill(folder / 'exact', iter([feats]), 'exact') as gallery:
        gallery.engine.finish()
        ours, bare = search_in_turn(gallery, feats, queries)
        dead = np.arange(0, count, 100)
        gallery.engine.delete([f'{row:08d}.jpg' for row in dead])
        feats[dead] = 0  # never among the largest
        after, bare_after = search_in_turn(gallery, feats, queries)
    return {
        'images': count,
        'ms': 1000 * ours,
        'bare_ms': 1000 * bare,
        'ratio': ours / bare,
        'ratio_after_deletions': after / bare_after,
    }


def search_in_turn(
    gallery: Gallery, feats: np.ndarray, queries: np.ndarray
) -> tuple[float, float]:
    """Return the median seconds of a search with one query, ours and the bare one.

    Raises:
        RuntimeError: If they find different pictures.
    """
    ours, bare = [], []
    for query in queries:
        began = time.perf_counter()
        (found,) = gallery.search(query[None], TOP_K)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        expected = bare_search(feats, query)
        bare.append(time.perf_counter() - began)
        rows = [int(match.item.path[:8]) for match in found]
        if rows != expected.tolist():
            raise RuntimeError(f'found {rows} in place of {expected.tolist()}')
    return statistics.median(ours), statistics.median(bare)


def bare_search(feats: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return the rows of the largest inner products, shape (10,)."""
    scores = feats @ query
    rows = np.argpartition(scores, -TOP_K)[-TOP_K:]
    return rows[np.argsort(-scores[rows])]


def measure_large(
    data: str, index: str, count: int, queries: int, folder: Path
) -> Figures:
    """Build an index of many, and search it with one query at a time."""
    make = KINDS_OF_DATA[data]
    began = time.perf_counter()
    with fill(folder / f'{data}-{index}', make(count, seed=0), index) as gallery:
        filled = time.perf_counter() - began
        began = time.perf_counter()
        gallery.engine.finish()
        build = time.perf_counter() - began
        asked = next(make(count, seed=1))[:queries]
        seconds = query_seconds(gallery, asked, exact=False)
        exact = query_seconds(gallery, asked[: max(3, queries // 20)], exact=True)
        recall = gallery.measure_recall(asked[: max(10, queries // 5)], TOP_K)
        sizes = {
            path.suffix: path.stat().st_size / 1e6
            for path in gallery.folder.iterdir()
            if path.suffix in ('.f32', '.faiss', '.sqlite')
        }
    return {
        'data': data,
        'index': index,
        'images': count,
        'fill_seconds': filled,
        'build_seconds': build,
        'queries_per_second': 1 / seconds,
        'exact_queries_per_second': 1 / exact,
        'speedup': exact / seconds,
        'recall_at_10': recall,
        'peak_mb': status_bytes('VmHWM') / 1e6,
        'file_mb': sizes,
    }


def indexes_for(count: int) -> list[str]:
    """Return the approximate indexes worth building: HNSW of a million takes long."""
    return ['hnsw', 'ivf'] if count <= MAX_HNSW else ['ivf']


def query_seconds(gallery: Gallery, queries: np.ndarray, exact: bool) -> float:
    """Return the median time of a search with one query."""
    gallery.search(queries[:1], TOP_K, exact=exact)
    seconds = []
    for query in queries:
        began = time.perf_counter()
        gallery.search(query[None], TOP_K, exact=exact)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def large_in_its_own_process(*arguments: Any) -> Figures:
    """Call :func:`measure_large` in a process of its own, whose memory is its peak."""
    code = (
        'import json, sys; sys.path.insert(0, sys.argv[1]); import search; '
        'from pathlib import Path; a = json.loads(sys.argv[2]); '
        'print(json.dumps(search.measure_large(*a[:-1], Path(a[-1]))))'
    )
    found = subprocess.run(
        [
            *(sys.executable, '-c', code, str(Path(__file__).parent)),
            json.dumps([*arguments[:-1], str(arguments[-1])]),
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(found.stdout)


@contextmanager
def served_demo(folder: Path) -> Iterator[int]:
    """Serve the demo; yield its port."""
    port = _free_port()
    command = [sys.executable, '-m', 'gckd_mm.search.cli.search', 'serve', '--demo']
    options = ['--demo-folder', str(folder / 'demo'), '--port', str(port)]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if b'Ctrl+C ends it' in line:
                    break
            # what it says from here on must not fill the pipe
            threading.Thread(target=process.stderr.read, daemon=True).start()
            _wait_for(port)
            yield port
        finally:
            process.terminate()


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def _wait_for(port: int) -> None:
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection('127.0.0.1', port, timeout=5)
            connection.request('GET', '/api/info')
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError('the server does not answer')


def ask(connection: http.client.HTTPConnection, query: str) -> float:
    """Search by the JSON interface; return the seconds.

    Raises:
        RuntimeError: If the answer is none.
    """
    body = json.dumps({'queries': [query], 'top_k': 20})
    began = time.perf_counter()
    headers = {'Content-Type': 'application/json'}
    connection.request('POST', '/api/search', body, headers)
    answer = connection.getresponse()
    data = answer.read()
    seconds = time.perf_counter() - began
    if answer.status != 200 or len(json.loads(data)['results'][0]['matches']) != 20:
        raise RuntimeError(f'{answer.status}: {data[:200]!r}')
    return seconds


def measure_web(users: int, duration: float, folder: Path) -> Figures:
    """Search the demo by one user for the first time, and by many at once."""
    began = time.perf_counter()
    with served_demo(folder) as port:
        ready = time.perf_counter() - began
        page = first_search_in_a_browser(port)
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
        first = ask(connection, QUERIES[0])
        ends = time.perf_counter() + duration
        seconds: list[float] = []
        errors: list[str] = []

        def user(number: int) -> None:
            own = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
            turn = number
            while time.perf_counter() < ends:
                try:
                    seconds.append(ask(own, QUERIES[turn % len(QUERIES)]))
                except (OSError, RuntimeError, http.client.HTTPException) as error:
                    errors.append(str(error))
                    own.close()
                turn += 1

        threads = [threading.Thread(target=user, args=(n,)) for n in range(users)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {
        'ready_seconds': ready,
        'first_in_the_page_ms': page,
        'by_json_ms': 1000 * first,
        'users': users,
        'seconds': duration,
        'searches': len(seconds),
        'errors': len(errors),
        'median_ms': 1000 * statistics.median(seconds),
        'p95_ms': 1000 * float(np.percentile(seconds, 95)),
    }


def first_search_in_a_browser(port: int) -> float | None:
    """Return the milliseconds from Enter to the results, None without Chromium."""
    try:
        from selenium import webdriver
        from selenium.webdriver.common.by import By
        from selenium.webdriver.common.keys import Keys
        from selenium.webdriver.support.ui import WebDriverWait
    except ImportError:
        return None
    if not Path('/usr/bin/chromedriver').exists():
        return None
    options = webdriver.ChromeOptions()
    for option in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage'):
        options.add_argument(option)
    service = webdriver.ChromeService('/usr/bin/chromedriver')
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.get(f'http://127.0.0.1:{port}/')
        waits = WebDriverWait(driver, 60, poll_frequency=0.005)
        selector = '#text textarea, #text input'
        box: Any = waits.until(lambda d: d.find_elements(By.CSS_SELECTOR, selector))[0]
        box.send_keys(QUERIES[1])
        time.sleep(1)  # the page has settled
        began = time.perf_counter()
        box.send_keys(Keys.ENTER)
        waits.until(lambda d: d.find_elements(By.CSS_SELECTOR, '.matches figure'))
        return 1000 * (time.perf_counter() - began)
    finally:
        driver.quit()


def misses(figures: Figures) -> list[str]:
    """Return the targets that were missed."""
    found = []

    def expect(met: bool, text: str) -> None:
        if not met:
            found.append(text)

    if 'index' in figures:
        index = figures['index']
        expect(index['ratio'] <= MAX_INDEX_RATIO, f'indexing: {index["ratio"]:.2f} ×')
        expect(index['more_encoded'] == index['more'], 'others were encoded again')
    if 'exact' in figures:
        for name in ('ratio', 'ratio_after_deletions'):
            ratio = figures['exact'][name]
            expect(ratio <= MAX_EXACT_RATIO, f'exact search: {name} {ratio:.2f} ×')
    if 'large' in figures:
        most = max(row['images'] for row in figures['large'])
        for row in figures['large']:
            if row['data'] != 'clustered' or row['images'] < most:
                continue
            name = f'{row["index"]} of {most:,}'
            recall, speedup = row['recall_at_10'], row['speedup']
            seconds = row['build_seconds']
            expect(recall >= MIN_RECALL, f'{name}: recall {recall:.3f}')
            expect(speedup >= MIN_SPEEDUP, f'{name}: {speedup:.1f} × exact')
            expect(seconds <= MAX_BUILD_SECONDS, f'{name}: built in {seconds:.0f} s')
    if 'web' in figures:
        web = figures['web']
        ready, first = web['ready_seconds'], web['first_in_the_page_ms']
        expect(ready <= MAX_READY_SECONDS, f'the demo is there after {ready:.0f} s')
        expect(first is not None, 'the page was not measured: no Chromium')
        if first is not None:
            expect(first <= MAX_FIRST_MS, f'the first search takes {first:.0f} ms')
        expect(web['errors'] == 0, f'{web["errors"]} searches failed')
    return found


def show(part: str, figures: Any) -> None:
    """Print the figures of a part."""
    for row in figures if isinstance(figures, list) else [figures]:
        values = ', '.join(f'{name} {_shown(value)}' for name, value in row.items())
        print(f'{part}: {values}', flush=True)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f'{value:.3g}' if value < 100 else f'{value:,.0f}'
    if isinstance(value, dict):
        return ' + '.join(f'{name} {_shown(number)}' for name, number in value.items())
    return f'{value:,}' if isinstance(value, int) else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--images', type=int, default=10_000, help='of `index`')
    parser.add_argument('--more', type=int, default=100, help='of `index`')
    parser.add_argument('--exact', type=int, default=50_000, help='of `exact`')
    parser.add_argument(
        '--large', type=int, nargs='+', default=[200_000, 1_000_000], help='of `large`'
    )
    parser.add_argument('--data', nargs='+', default=list(KINDS_OF_DATA))
    parser.add_argument(
        '--indexes', nargs='+', help='hnsw, ivf; if not given, HNSW up to 200,000'
    )
    parser.add_argument('--queries', type=int, default=500)
    parser.add_argument('--users', type=int, default=20, help='of `web`')
    parser.add_argument('--seconds', type=float, default=30, help='of `web`')
    parser.add_argument('--folder', type=Path, help='for the files, which need 3 GB')
    add_json_option(parser)
    options = parser.parse_args(arguments)
    figures: Figures = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        if 'index' in options.parts:
            found = measure_index(options.images, options.more, folder)
            figures['index'] = {**found, 'more': options.more}
            show('index', figures['index'])
        if 'exact' in options.parts:
            figures['exact'] = measure_exact(options.exact, options.queries, folder)
            show('exact', figures['exact'])
        if 'large' in options.parts:
            figures['large'] = []
            for data, count in product(options.data, options.large):
                for index in options.indexes or indexes_for(count):
                    row = large_in_its_own_process(
                        data, index, count, options.queries, folder
                    )
                    shutil.rmtree(folder / f'{data}-{index}')
                    figures['large'].append(row)
                    show('large', row)
        if 'web' in options.parts:
            figures['web'] = measure_web(options.users, options.seconds, folder)
            show('web', figures['web'])
    if options.json is not None:
        write_report(options.json, figures)
    missed = misses(figures)
    for miss in missed:
        print(f'missed: {miss}', file=sys.stderr)
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
