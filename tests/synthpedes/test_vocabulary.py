from collections import defaultdict

import pytest

from gckd_mm.synthpedes.vocabulary import (
    COARSE,
    CONFUSED,
    PLURAL,
    UNCOUNTABLE,
    VOCABULARY,
    indefinite,
)
from gckd_mm.synthpedes.wardrobe import HAIR_SHADES, SHADES, WARDROBE


def kinds(part):
    """All that the wardrobe has for a part, of men and women."""
    return {
        kind
        for attribute, options in WARDROBE.items()
        if attribute.split('.')[0] == part
        for kind in options
    } - {'none', 'plain'}


@pytest.mark.parametrize(
    'part', ['gender', 'hair', 'hat', 'upper', 'lower', 'pattern', 'shoes', 'bag',
             'held']
)  # fmt: skip
def test_every_kind_has_a_concept(part):
    assert kinds(part)
    assert all(f'{part}.{kind}' in VOCABULARY for kind in kinds(part))


@pytest.mark.parametrize('part', ['beard', 'glasses', 'scarf'])
def test_every_thing_of_a_single_kind_has_a_concept(part):
    assert kinds(part) <= set(VOCABULARY)


def test_every_pattern_of_legwear_has_a_concept():
    assert {f'pattern.{kind}' for kind in kinds('lower pattern')} <= set(VOCABULARY)


def test_every_shade_has_a_concept_and_no_concept_is_without_a_shade():
    expected = {f'shade.{shade}' for shade in SHADES}
    expected |= {f'hair shade.{shade}' for shade in HAIR_SHADES}
    assert {concept for concept in VOCABULARY if 'shade.' in concept} == expected


def test_a_word_belongs_to_one_concept_of_a_family():
    owners = defaultdict(set)
    for concept, synonyms in VOCABULARY.items():
        family = concept.split('.')[0]
        if concept in ('glasses', 'sunglasses'):
            family = 'eyewear'
        for word in synonyms:
            owners[family, word].add(concept)
    assert {key: who for key, who in owners.items() if len(who) > 1} == {}


def test_synonyms_are_several_and_distinct():
    for concept, synonyms in VOCABULARY.items():
        assert len(set(synonyms)) == len(synonyms) >= 3, concept


def test_words_fit_a_small_tokenizer():
    words = {
        word
        for synonyms in VOCABULARY.values()
        for phrase in synonyms
        for word in phrase.replace('-', ' ').split()
    }
    assert len(words) < 400
    assert all(word == word.lower() for word in words)


def test_coarse_words_are_the_names_of_shades_that_nobody_says_otherwise():
    for shade, base in COARSE.items():
        assert shade in SHADES
        assert base in SHADES
        assert base not in COARSE
        assert base in VOCABULARY[f'shade.{base}']


def test_things_are_confused_with_others_of_their_family():
    for concept, options in CONFUSED.items():
        family, true = concept.split('.')
        assert options
        assert true not in options
        assert {f'{family}.{option}' for option in (*options, true)} <= set(VOCABULARY)
    assert {f'shade.{shade}' for shade in SHADES} <= set(CONFUSED)


def test_plural_concepts_have_plural_words_only():
    garments = ('upper', 'lower', 'shoes', 'bag', 'hat', 'held')
    for concept, synonyms in VOCABULARY.items():
        if concept in PLURAL:
            assert all(word.endswith('s') for word in synonyms), concept
        elif concept.split('.')[0] in garments:
            assert not any(word.endswith(('es', 'ts')) for word in synonyms), concept


def test_uncountable_words_are_said_of_hair():
    assert {'hair', *VOCABULARY['beard']} >= UNCOUNTABLE


@pytest.mark.parametrize(
    ('phrase', 'expected'),
    [
        ('orange coat', 'an orange coat'),
        ('umbrella', 'an umbrella'),
        ('updo', 'an updo'),
        ('red umbrella', 'a red umbrella'),
        ('woman', 'a woman'),
    ],
)
def test_the_article_follows_the_next_letter(phrase, expected):
    assert indefinite(phrase) == expected


def test_letters_decide_on_articles_rightly():
    sounds_otherwise = ('hour', 'hono', 'heir', 'uni', 'use', 'eu', 'one-', 'one ')
    exceptions = {'one-piece dress'}
    for synonyms in VOCABULARY.values():
        for phrase in set(synonyms) - exceptions:
            assert not phrase.startswith(sounds_otherwise)
    assert indefinite('one-piece dress') == 'a one-piece dress'
