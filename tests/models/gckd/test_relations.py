"""The table of relations: whose memory holds the neighbours."""

from __future__ import annotations

import itertools

import pytest

from gckd_mm.models.gckd.relations import (
    DIRECTIONS,
    DOMAINS,
    MEMORIES,
    MODALITIES,
    RELATIONS,
    Relation,
)


@pytest.mark.parametrize('relation', RELATIONS)
def test_the_sender_is_as_far_as_the_relation_says(relation: str) -> None:
    same_domain, same_modality, excludes_self = RELATIONS[relation]
    for domain, modality in itertools.product(DOMAINS, MODALITIES):
        sender = RELATIONS[relation].sender(domain, modality)

        assert sender in MEMORIES
        sent_domain, sent_modality = sender.split('_')
        assert (sent_domain == domain) == same_domain
        assert (sent_modality == modality) == same_modality
        # Only a row of the own memory can be the row itself.
        assert excludes_self == (sender == f'{domain}_{modality}')


def test_a_memory_of_no_domain_or_modality_is_an_error() -> None:
    relation = Relation(False, False, False)
    for wrong in (('image', 'images'), ('source', 'image')):
        with pytest.raises(ValueError, match='not in'):
            relation.sender(*wrong)


def test_the_names_agree() -> None:
    assert tuple(f'{d}_{m}' for d in DOMAINS for m in MODALITIES) == MEMORIES
    for direction, (query, key) in DIRECTIONS.items():
        names = {'text': 'captions', 'image': 'images'}
        assert [names[part] for part in direction.split('_to_')] == [query, key]
