"""The words and options of ``gckd-search``; what runs them is imported later."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gckd_mm.search.choices import INDEX_KINDS, RERANK_METHODS
from gckd_mm.search.cli.any_order_parser import AnyOrderParser

EXIT_CODES = """exit codes:
  0  done; something was found
  1  nothing was found
  2  what was given is wrong; the message says what to do
  3  indexed, but some files could not be read; they are listed
  130  interrupted; what was indexed is kept
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='gckd-search',
        description='Find people in images by what they wear.',
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        dest='command', required=True, metavar='COMMAND', parser_class=AnyOrderParser
    )
    _add_index(commands)
    _add_query(commands)
    _add_info(commands)
    _add_serve(commands)
    return parser


def _add_index(commands: Any) -> None:
    parser = commands.add_parser(
        'index',
        help='make a gallery of images, or bring it up to date',
        description='Embed the images of a folder that a gallery does not have yet, '
        'or that have changed, and drop those that are gone. Start it with torchrun to '
        'divide the work: torchrun --nproc-per-node 4 -m gckd_mm.search.cli.search '
        'index …',
    )
    parser.add_argument('folder', help='of the images; of the dataset with --dataset')
    parser.add_argument('--gallery', required=True, help='folder of the gallery')
    parser.add_argument(
        '--checkpoint', help='the model; a gallery that is there knows its own'
    )
    parser.add_argument('--config', help='for a checkpoint of components of others')
    parser.add_argument(
        '--fields',
        metavar='FILE',
        help='.csv or .jsonl: path, and what else is known, such as camera and time; '
        'without it what the gallery knows stays',
    )
    parser.add_argument(
        '--list',
        metavar='FILE',
        help='index these alone: a path in the folder a line; what is not among them '
        'is dropped, unless --keep-missing',
    )
    parser.add_argument(
        '--dataset', metavar='TYPE', help='a dataset: CUHKPEDES, ICFGPEDES, RSTPReid'
    )
    parser.add_argument('--split', default='test', help='of the dataset')
    parser.add_argument(
        '--index', choices=INDEX_KINDS, default='auto', help='of a new gallery'
    )
    parser.add_argument(
        '--milvus',
        metavar='URI',
        help='keep a new gallery in Milvus: http://host:19530 (a token in the '
        'environment: MILVUS_TOKEN), or a file ending in .db',
    )
    parser.add_argument(
        '--keep-missing',
        action='store_true',
        help='drop nothing: images that are gone, or not listed, stay',
    )
    parser.add_argument('--batch-size', type=int, default=64)
    _add_device(parser)
    parser.add_argument('--json', action='store_true', help='print JSON')


def _add_query(commands: Any) -> None:
    parser = commands.add_parser('query', help='find people in a gallery')
    parser.add_argument('gallery', help='folder of the gallery')
    parser.add_argument('text', nargs='*', help='descriptions: a search each')
    parser.add_argument('--image', help='an image of someone who looks alike')
    parser.add_argument(
        '--without', default='', metavar='TEXT', help='what is unwanted: "a backpack"'
    )
    parser.add_argument('--top-k', type=int, default=10, metavar='K')
    parser.add_argument(
        '--where',
        action='append',
        default=[],
        metavar='CONDITION',
        help='camera=3, "time>=2026-11-22", …: repeat it for several, all of which '
        'must hold',
    )
    parser.add_argument('--exact', action='store_true', help='compare with every image')
    parser.add_argument(
        '--rerank',
        choices=RERANK_METHODS,
        help='order the first matches anew: by what they have in common, or by the '
        'matching head of the model',
    )
    _add_checkpoint(parser)
    _add_device(parser)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument('--json', action='store_true', help='print JSON')
    shown.add_argument(
        '--open', action='store_true', help='show the images that were found'
    )


def _add_info(commands: Any) -> None:
    parser = commands.add_parser('info', help='describe a gallery')
    parser.add_argument('gallery', help='folder of the gallery')
    parser.add_argument(
        '--recall',
        type=int,
        metavar='N',
        help='also measure how many of the true nearest 10 a search finds, with N '
        'images of the gallery as queries',
    )
    parser.add_argument(
        '--verify',
        action='store_true',
        help='also compare all that is stored with its checksums',
    )
    parser.add_argument('--json', action='store_true', help='print JSON')


def _add_serve(commands: Any) -> None:
    parser = commands.add_parser(
        'serve',
        help='search a gallery in the browser',
        description='Serve a page, and a JSON interface below /api. This machine alone '
        'can reach it, unless --host names an address; that demands a password.',
    )
    parser.add_argument('gallery', nargs='?', help='folder of the gallery')
    parser.add_argument(
        '--demo',
        action='store_true',
        help='render synthetic pedestrians and search them: needs no data',
    )
    parser.add_argument('--demo-folder', type=Path, help='where the demo is kept')
    _add_checkpoint(parser)
    _add_device(parser)
    parser.add_argument('--host', default='127.0.0.1', help='(default: this machine)')
    parser.add_argument(
        '--port', type=int, default=7860, help='0 for a free one (default: 7860)'
    )
    parser.add_argument('--user', default='gckd', help='(default: gckd)')
    parser.add_argument(
        '--password-file', type=Path, help='whose first line is the password'
    )
    parser.add_argument('--open', action='store_true', help='open the browser')


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--checkpoint', help="the gallery's model, if it was moved")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--device', help='such as cuda:0 (default: the GPU, if any)')
