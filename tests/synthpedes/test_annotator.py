import pytest

from gckd_mm.errors import InputError
from gckd_mm.synthpedes.annotator import (
    MENTIONS,
    ORDERS,
    WEB_RANGE,
    AnnotatorRange,
    sample_annotators,
    sample_web_annotator,
)
from gckd_mm.synthpedes.caption import VISIBLE
from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.vocabulary import COARSE, VOCABULARY
from gckd_mm.synthpedes.wardrobe import Person

DOMAINS = ('street', 'mall', 'campus')


@pytest.mark.parametrize('world', range(5))
def test_without_divergence_all_domains_prefer_the_same_words(world):
    ranges = dict.fromkeys(DOMAINS, AnnotatorRange(divergence=(0.0, 0.0)))
    annotators = sample_annotators(ranges, RandomStream('world', world))
    assert list(annotators) == list(DOMAINS)
    street, mall, campus = (annotators[domain].words for domain in DOMAINS)
    assert street == mall == campus
    assert set(street) == set(VOCABULARY)


@pytest.mark.parametrize('world', range(5))
def test_with_full_divergence_all_domains_prefer_different_words(world):
    ranges = dict.fromkeys(DOMAINS, AnnotatorRange(divergence=(1.0, 1.0)))
    annotators = sample_annotators(ranges, RandomStream('world', world))
    for concept, synonyms in VOCABULARY.items():
        words = {annotators[domain].words[concept] for domain in DOMAINS}
        assert len(words) == min(3, len(synonyms))
        assert words <= set(synonyms)


def test_divergence_is_the_share_of_concepts_that_diverge():
    ranges = dict.fromkeys(DOMAINS, AnnotatorRange(divergence=(0.5, 0.5)))
    differ = 0
    for world in range(20):
        annotators = sample_annotators(ranges, RandomStream('world', world))
        street, mall, _ = (annotators[domain].words for domain in DOMAINS)
        differ += sum(street[concept] != mall[concept] for concept in VOCABULARY)
    assert differ / (20 * len(VOCABULARY)) == pytest.approx(0.5, abs=0.05)


def test_other_worlds_have_other_words():
    ranges = {'street': AnnotatorRange()}
    first, second = (
        sample_annotators(ranges, RandomStream('world', world))['street'].words
        for world in range(2)
    )
    differ = sum(first[concept] != second[concept] for concept in VOCABULARY)
    assert differ > len(VOCABULARY) / 2


def test_habits_lie_in_their_ranges():
    limits = AnnotatorRange(
        styles=('sentences',),
        orders=('bag first',),
        loyalty=(0.3, 0.4),
        coarse=(1.0, 1.0),
        mistakes=(0.1, 0.2),
        mentions={'shoes': (0.0, 0.1)},
    )
    for world in range(20):
        drawn = sample_annotators({'mall': limits}, RandomStream(world))['mall']
        assert drawn.style == 'sentences'
        assert drawn.order == ORDERS['bag first']
        assert 0.3 <= drawn.loyalty <= 0.4
        assert drawn.coarse == set(COARSE)
        assert 0.1 <= drawn.mistakes <= 0.2
        assert drawn.mentions['shoes'] <= 0.1
        for attribute in set(MENTIONS) - {'shoes'}:
            low, high = MENTIONS[attribute]
            assert low <= drawn.mentions[attribute] <= high


def test_web_annotators_have_words_of_their_own():
    first, second = (
        sample_web_annotator(WEB_RANGE, RandomStream(number)) for number in range(2)
    )
    differ = sum(
        first.words[concept] != second.words[concept] for concept in VOCABULARY
    )
    assert differ > len(VOCABULARY) / 2
    assert first.loyalty == second.loyalty == 1.0


def test_what_an_order_names_is_a_part_of_people():
    for order in ORDERS.values():
        assert set(order) == VISIBLE - {'second'}
        assert len(set(order)) == len(order)
        assert set(order) <= set(Person._fields)


@pytest.mark.parametrize(
    'wrong',
    [
        {'styles': ('poetic',)},
        {'orders': ('inside out',)},
        {'mentions': {'upper color': (0.0, 1.0)}},
    ],
)
def test_unknown_names_in_a_range_are_told(wrong):
    name = next(iter(next(iter(wrong.values()))))
    with pytest.raises(InputError, match=name):
        sample_annotators({'street': AnnotatorRange(**wrong)}, RandomStream(0))
