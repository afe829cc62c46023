"""Turn a config to another direction: from which source domain, to which target.

A config that can be turned has a table ``domains``: short name -> ``dataset`` (the keys
that tell its datasets from others), ``test_set`` (its name among the test sets, if not
the short one), and what depends on it: ``epoch`` (iterations, of schedules that count
``source_epochs``) and ``memory_size``.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from mmengine.config import Config

from gckd_mm.engine.error_messages import nearest
from gckd_mm.errors import InputError

#: where datasets and test sets are used; what is only defined stays as it is
_USES = (
    'train_dataloader',
    'val_dataloader',
    'test_dataloader',
    'default_hooks',
    'custom_hooks',
    'param_scheduler',
)
#: keys of dicts of test sets, by their names
_OF_TEST_SETS = ('val_dataloader', 'test_dataloader', 'test_sets')
#: keys whose value is ``<test set>/<metric>``
_OF_METRICS = ('save_best', 'monitor')


def add_direction_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--source`` and ``--target``."""
    for role in ('source', 'target'):
        parser.add_argument(
            f'--{role}',
            metavar='DOMAIN',
            help=f'another {role} than that of the config: a name of its `domains`',
        )


def turned(cfg: Config, source: str | None = None, target: str | None = None) -> Config:
    """Return a config turned to another source and target.

    Lengths and sizes that the config sets otherwise than its domains do are kept.

    Args:
        cfg: Stays as it is.
        source: Key of ``cfg.domains``; that of the config if None.
        target: The same.

    Returns:
        The config of that direction, whose file name tells it; ``cfg`` itself if
        neither is given.

    Raises:
        InputError: If there is no such domain, or the config cannot be turned to it.
    """
    if source is target is None:
        return cfg
    fields = cfg.to_dict()
    domains = _domains_of(fields)
    for role, name in (('source', source), ('target', target)):
        if name is not None and name not in domains:
            raise InputError(
                f'--{role} {name}: '
                + (
                    f'must be one of {", ".join(domains)}{nearest(name, domains)}'
                    if domains
                    else 'the config has no `domains` to choose from'
                )
            )
    turn = _Turn(fields, source, target)
    turn.apply()
    filename = cfg.filename and Path(cfg.filename)
    if filename:
        filename = filename.with_stem(turn.name(filename.stem))
    return Config(fields, cfg_text=cfg.text, filename=filename)


def _domains_of(fields: dict[str, Any]) -> dict[str, dict[str, Any]]:
    domains = fields.get('domains') or {}
    for name, domain in domains.items():
        if not (isinstance(domain, dict) and isinstance(domain.get('dataset'), dict)):
            raise InputError(
                f'domains.{name}: must be dict(dataset=dict(type=…, data_root=…)), got '
                f'{domain!r}'
            )
    return domains


class _Turn:
    """The old and the new direction of a config.

    Args:
        fields: The config, changed in place by :meth:`apply`.
        source: Of the new direction; None for the old one's.
        target: The same.

    Raises:
        InputError: If the config cannot be turned to that.
    """

    def __init__(
        self, fields: dict[str, Any], source: str | None, target: str | None
    ) -> None:
        self.fields = fields
        self.domains: dict[str, dict[str, Any]] = fields['domains']
        trained, tested = self._trained_on(), self._tested_on()
        alone = len(trained) == 1
        old_target = next((name for name in tested if name not in trained), trained[0])
        self.old = (trained[0], old_target if alone else trained[1])
        if self.old[0] == self.old[1]:  # an oracle: one domain for both
            source, target = source or target, target or source
        self.new = (source or self.old[0], target or self.old[1])
        if self.new[0] == self.new[1] and not alone:
            raise InputError(
                f'--source {self.new[0]} --target {self.new[1]}: must differ: this '
                f'config trains on both'
            )
        if self.old[0] == self.old[1] and self.new[0] != self.new[1]:
            raise InputError(
                f'--source {self.new[0]} --target {self.new[1]}: must be the same: '
                f'this config is trained and tested on one domain'
            )

    def _trained_on(self) -> list[str]:
        dataset = (self.fields.get('train_dataloader') or {}).get('dataset') or {}
        if 'source' in dataset:
            parts = [dataset['source'], dataset.get('target')]
        else:
            parts = dataset.get('datasets', [dataset])
        names = [self._domain_of(part) for part in parts]
        found = [name for name in names if name is not None]
        if len(found) != len(parts) or len(found) not in (1, 2):
            raise InputError(
                '--source, --target: cannot tell the direction of the config: '
                'train_dataloader.dataset must be of one or two of its `domains` ('
                f'{", ".join(self.domains)})'
            )
        return found

    def _tested_on(self) -> list[str]:
        domain_of = {self._test_set(name): name for name in self.domains}
        test_sets = self.fields.get('test_dataloader') or {}
        return [domain_of[name] for name in test_sets if name in domain_of]

    def _domain_of(self, dataset: Any) -> str | None:
        """Return the domain that a config of a dataset is of, if it is of one."""
        if not isinstance(dataset, dict):
            return None
        for name, domain in self.domains.items():
            if domain['dataset'].items() <= dataset.items():
                return name
        return None

    def _test_set(self, name: str) -> str:
        return self.domains[name].get('test_set', name)

    def name(self, stem: str) -> str:
        """Return the name of the turned config: ``gckd_mall2street``."""
        any_of = '|'.join(map(re.escape, self.domains))
        source, target = self.new
        new = target if source == target else f'{source}2{target}'
        for old in (f'({any_of})2({any_of})', any_of):
            turned_stem, count = re.subn(rf'(?<=_)({old})(?=_|$)', new, stem, count=1)
            if count:
                return turned_stem
        return f'{stem}_{new}'

    def apply(self) -> None:
        """Turn the config."""
        for key in _USES:
            if key in self.fields:
                self.fields[key] = self._part(self.fields[key], key)
        self._set_source_length()
        self._set_memory_size()

    def _part(self, node: Any, key: str) -> Any:
        """Return what stands under a key, with the new datasets and test sets."""
        if isinstance(node, list | tuple):
            return type(node)(self._part(part, key) for part in node)
        if isinstance(node, str) and key in _OF_METRICS:
            test_set, slash, metric = node.partition('/')
            return self._renamed(test_set) + slash + metric
        if not isinstance(node, dict):
            return node
        changed = {name: self._part(part, name) for name, part in node.items()}
        if key in _OF_TEST_SETS:
            return {self._renamed(name): part for name, part in changed.items()}
        old = self._domain_of(node)
        if old in self.old:
            new = self.new[self.old.index(old)]
            for name in self.domains[old]['dataset']:
                del changed[name]
            changed.update(self.domains[new]['dataset'])
        return changed

    def _renamed(self, test_set: str) -> str:
        for old, new in zip(self.old, self.new, strict=True):
            if test_set == self._test_set(old):
                return self._test_set(new)
        return test_set

    def _set_source_length(self) -> None:
        epochs = self.fields.get('source_epochs')
        old, new = (
            self.domains[name].get('epoch') for name in (self.old[0], self.new[0])
        )
        if not (epochs and old and new):
            return
        lengths = self.fields.get('train_cfg') or {}
        key = 'source_iters' if 'source_iters' in lengths else 'max_iters'
        if lengths.get(key) != epochs * old:
            return
        lengths[key] = epochs * new
        if key == 'max_iters':  # else bounds are fractions
            for scheduler in self.fields.get('param_scheduler') or ():
                for bound in scheduler.keys() & {'begin', 'end'}:
                    scheduler[bound] = scheduler[bound] * new // old

    def _set_memory_size(self) -> None:
        old, new = (
            self.domains[name].get('memory_size') for name in (self.old[1], self.new[1])
        )
        model = self.fields.get('model') or {}
        for part in (model, model.get('adaptation') or {}):
            if new and part.get('memory_size') == old:
                part['memory_size'] = new
