import itertools
import re

import pytest

from gckd_mm.errors import InputError
from gckd_mm.synthpedes.annotator import (
    MENTIONS,
    ORDERS,
    STYLES,
    WEB_RANGE,
    Annotator,
    AnnotatorRange,
    sample_annotators,
    sample_web_annotator,
)
from gckd_mm.synthpedes.caption import VISIBLE, describe
from gckd_mm.synthpedes.domain import Sizes, SynthDomain
from gckd_mm.synthpedes.figure import visible_things
from gckd_mm.synthpedes.pose import sample_pose
from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.vocabulary import COARSE, CONFUSED, VOCABULARY
from gckd_mm.synthpedes.wardrobe import (
    LAYERED,
    SHADES,
    Colour,
    Garment,
    Wardrobe,
    sample_people,
)

PEOPLE = list(itertools.islice(sample_people(RandomStream('people'), Wardrobe()), 150))
#: the concepts that sentences need, whatever is told
CONNECTING = ('wear', 'carry', 'hold', 'over')
PHRASES = re.compile(
    r'(?<![\w-])(?:{})(?![\w-])'.format(
        '|'.join(
            sorted(
                {word for words in VOCABULARY.values() for word in words},
                key=lambda word: -len(word),
            )
        )
    )
)


def said(caption):
    """The words of the vocabulary in a caption, the longest ones that fit."""
    return set(PHRASES.findall(caption.lower()))


def an_annotator(style='flowing', order='top-down', mentions=1.0, **habits):
    words = {concept: synonyms[0] for concept, synonyms in VOCABULARY.items()}
    defaults = {
        'words': words,
        'loyalty': 1.0,
        'mentions': dict.fromkeys(MENTIONS, mentions),
        'coarse': frozenset(),
        'mistakes': 0.0,
    }
    return Annotator(style=style, order=ORDERS[order], **{**defaults, **habits})


def concepts(person, visible):
    """A plain account of what is to be said about somebody."""
    named = {f'gender.{person.gender}'}
    if 'hair' in visible:
        named.add(f'hair.{person.hair.kind}')
        if person.hair.kind != 'bald':
            named.add(f'hair shade.{person.hair.colour.shade}')
    if 'beard' in visible and person.beard:
        named.add('beard')
    if 'glasses' in visible and person.glasses != 'none':
        named.add(person.glasses)
    for part in ('hat', 'upper', 'lower', 'shoes', 'bag', 'scarf', 'held'):
        garment = getattr(person, part)
        if garment is None or part not in visible:
            continue
        named.add('scarf' if part == 'scarf' else f'{part}.{garment.kind}')
        named.add(f'shade.{garment.colour.shade}')
        shows = part != 'upper' or 'second' in visible
        if garment.pattern == 'two-tone':
            named.add(f'shade.{garment.second.shade}')
        if garment.pattern == 'plain':
            if garment.second and shows and garment.kind in LAYERED:
                named |= {f'shade.{garment.second.shade}', 'inner'}
        elif garment.pattern != 'logo' or shows:
            named.add(f'pattern.{garment.pattern}')
            if shows:
                named.add(f'shade.{garment.second.shade}')
    return named


def some_visible(stream):
    return frozenset(thing for thing in sorted(VISIBLE) if stream.chance(0.7))


@pytest.mark.parametrize('order', ORDERS)
@pytest.mark.parametrize('style', STYLES)
def test_everything_visible_is_said_and_nothing_else(style, order):
    annotator = an_annotator(style, order)
    function_words = {word for key in CONNECTING for word in VOCABULARY[key]}
    for number, person in enumerate(PEOPLE):
        stream = RandomStream(style, order, number)
        visible = some_visible(stream)
        caption = describe(person, visible, annotator, stream)
        expected = {annotator.words[key] for key in concepts(person, visible)}
        assert said(caption) - function_words == expected, caption


@pytest.mark.parametrize('style', STYLES)
def test_an_annotator_who_mentions_nothing_says_the_gender(style):
    annotator = an_annotator(style, mentions=0.0)
    for number, person in enumerate(PEOPLE):
        caption = describe(person, VISIBLE, annotator, RandomStream(number))
        assert said(caption) == {person.gender}, caption


@pytest.mark.parametrize('style', STYLES)
def test_the_gender_can_be_left_out(style):
    mentions = {**dict.fromkeys(MENTIONS, 1.0), 'gender': 0.0}
    annotator = an_annotator(style)._replace(mentions=mentions)
    told = {word for key in ('man', 'woman') for word in VOCABULARY[f'gender.{key}']}
    pronouns = {'he', 'she', 'his', 'her'}
    for number, person in enumerate(PEOPLE):
        caption = describe(person, VISIBLE, annotator, RandomStream(number))
        assert not said(caption) & told, caption
        assert not set(re.findall(r'\w+', caption.lower())) & pronouns, caption


@pytest.mark.parametrize('style', STYLES)
def test_a_colour_is_not_said_of_a_thing_that_is_not(style):
    mentions = {key: float('colour' in key or key == 'gender') for key in MENTIONS}
    annotator = an_annotator(style)._replace(mentions=mentions)
    for number, person in enumerate(PEOPLE):
        caption = describe(person, VISIBLE, annotator, RandomStream(number))
        assert said(caption) == {person.gender}, caption


@pytest.mark.parametrize('style', STYLES)
def test_without_loyalty_the_preferred_word_is_never_used(style):
    annotator = an_annotator(style, loyalty=0.0)
    for number, person in enumerate(PEOPLE):
        caption = describe(person, VISIBLE, annotator, RandomStream(number))
        # a word may be the preferred one of a concept and another one's synonym
        allowed = {
            word for key in concepts(person, VISIBLE) for word in VOCABULARY[key][1:]
        }
        preferred = {annotator.words[key] for key in concepts(person, VISIBLE)}
        assert not said(caption) & (preferred - allowed), caption
        for key in concepts(person, VISIBLE):
            assert said(caption) & set(VOCABULARY[key][1:]), (key, caption)


@pytest.mark.parametrize('style', STYLES)
@pytest.mark.parametrize('shade', SHADES)
def test_who_always_errs_never_says_the_true_shade(style, shade):
    colour = Colour(shade, SHADES[shade])
    mentions = {'gender': 1.0, 'upper': 1.0, 'upper colour': 1.0}
    annotator = an_annotator(style, loyalty=0.5, mistakes=1.0)
    annotator = annotator._replace(mentions=mentions)
    person = PEOPLE[0]._replace(upper=Garment('coat', colour))
    true = set(VOCABULARY[f'shade.{shade}'])
    wrong = {
        word
        for other in CONFUSED[f'shade.{shade}']
        for word in VOCABULARY[f'shade.{other}']
    }
    for number in range(30):
        caption = describe(person, VISIBLE, annotator, RandomStream(number))
        assert said(caption) & wrong, caption
        assert not said(caption) & true, caption


@pytest.mark.parametrize('part', ['upper', 'lower', 'shoes', 'bag', 'hat', 'held'])
def test_who_always_errs_never_says_the_true_kind(part):
    annotator = an_annotator(mistakes=1.0)
    annotator = annotator._replace(mentions={'gender': 1.0, part: 1.0})
    tried = 0
    for number, person in enumerate(PEOPLE):
        garment = getattr(person, part)
        if garment is None or f'{part}.{garment.kind}' not in CONFUSED:
            continue
        tried += 1
        caption = describe(person, VISIBLE, annotator, RandomStream(number))
        assert annotator.words[f'{part}.{garment.kind}'] not in said(caption)
        options = CONFUSED[f'{part}.{garment.kind}']
        wrong = {annotator.words[f'{part}.{option}'] for option in options}
        assert wrong & said(caption), caption
    assert tried


@pytest.mark.parametrize('shade', COARSE)
def test_a_coarse_annotator_says_the_base_shade(shade):
    mentions = {'gender': 1.0, 'upper': 1.0, 'upper colour': 1.0}
    annotator = an_annotator(coarse=frozenset({shade}))._replace(mentions=mentions)
    coat = Garment('coat', Colour(shade, SHADES[shade]))
    person = PEOPLE[0]._replace(upper=coat)
    caption = describe(person, VISIBLE, annotator, RandomStream(0))
    assert COARSE[shade] in said(caption)
    assert not said(caption) & set(VOCABULARY[f'shade.{shade}'])


def test_two_colours_of_one_name_are_said_once():
    colours = [Colour(shade, SHADES[shade]) for shade in ('navy', 'light blue')]
    sweater = Garment('sweater', colours[0], 'two-tone', colours[1])
    annotator = an_annotator(coarse=frozenset({'navy', 'light blue'}))
    annotator = annotator._replace(
        mentions=dict.fromkeys(('upper', 'upper colour', 'pattern'), 1.0)
    )
    person = PEOPLE[0]._replace(upper=sweater)
    caption = describe(person, VISIBLE, annotator, RandomStream(0))
    assert 'a blue two-tone sweater' in caption


def a_drawn_caption(style, number):
    stream = RandomStream('any', style, number)
    annotator = sample_web_annotator(WEB_RANGE, stream.child('words'))._replace(
        style=style,
        mentions={key: stream.uniform() for key in MENTIONS},
        loyalty=0.5,
        mistakes=0.2,
    )
    person = PEOPLE[number % len(PEOPLE)]
    return describe(person, some_visible(stream), annotator, stream)


@pytest.mark.parametrize('style', STYLES)
def test_captions_are_well_formed(style):
    for number in range(800):
        caption = a_drawn_caption(style, number)
        lower = caption.lower()
        assert not re.search(r'\ba (?!one-)[aeiou]', lower), caption
        assert not re.search(r'\ban ([^aeiou]|one-)', lower), caption
        assert not re.search(r'  | ,|,,|\.\.| \.|\b(\w+) \1\b', lower), caption
        assert caption == caption.strip(), caption
        if style in ('flowing', 'sentences'):
            starts = re.findall(r'(?:^|\. )(\w)', caption)
            assert all(start.isupper() for start in starts), caption
            assert caption.endswith('.'), caption
        if style == 'flowing':
            assert caption.count('.') == 1, caption
        assert not re.search(
            r'\b(they (is|has)|(he|she) (are|have)|a pair of (a|an))\b', lower
        ), caption


@pytest.mark.parametrize('style', ['flowing', 'sentences'])
def test_plural_things_have_no_article(style):
    stops = '(?!(?:and|with|in|has|is|wearing|of) )'
    plural = rf'\ban? (?:{stops}[\w-]+ )*(?:jeans|sneakers|trousers|shorts|glasses)\b'
    mentions = dict.fromkeys(('lower', 'lower colour', 'shoes', 'glasses'), 1.0)
    annotator = an_annotator(style)._replace(mentions=mentions)
    seen = 0
    for number, person in enumerate(PEOPLE):
        caption = describe(person, VISIBLE, annotator, RandomStream(number))
        assert not re.search(plural, caption), caption
        seen += 'a pair of' in caption
    assert re.search(plural, 'in a light blue jeans')
    assert seen


@pytest.mark.parametrize('style', STYLES)
def test_a_stream_gives_one_caption_and_another_one_another(style):
    annotator = sample_annotators({'street': AnnotatorRange()}, RandomStream('w'))
    annotator = annotator['street']._replace(style=style)
    differ = 0
    for number, person in enumerate(PEOPLE):
        first, again, other = (
            describe(person, VISIBLE, annotator, RandomStream(number, name))
            for name in ('first', 'first', 'other')
        )
        assert first == again
        differ += first != other
    assert differ > 0.9 * len(PEOPLE)


def test_a_style_has_many_frames():
    annotator = an_annotator('flowing')
    captions = {
        describe(PEOPLE[0], VISIBLE, annotator, RandomStream(number))
        for number in range(100)
    }
    assert len(captions) >= 8


def test_the_web_uses_every_word():
    web = SynthDomain('web', sizes=Sizes(train=1500, val=0, test=0, images=1))
    seen = set()
    for shot in web.shots():
        for caption in web.write_captions(shot):
            seen |= said(caption)
    assert {word for words in VOCABULARY.values() for word in words} - seen == set()
    styles = [web.annotator_at(shot, 0).style for shot in web.shots()]
    assert styles.count('web') > 1000
    assert set(styles) == set(STYLES)


def test_of_the_bald_it_is_said_where_their_head_shows():
    annotator = an_annotator()
    for number, person in enumerate(PEOPLE):
        bald = person._replace(hair=Garment('bald', Colour('black', (26, 22, 24))))
        for hat, is_said in ((None, True), ('cap', True), ('beanie', False)):
            hat = hat and Garment(hat, Colour('red', SHADES['red']))
            other = bald._replace(hat=hat)
            stream = RandomStream(number)
            visible = visible_things(other, sample_pose(stream.child('pose')))
            caption = describe(other, visible, annotator, stream)
            assert ('bald' in said(caption)) == is_said, caption


def test_an_order_is_told_in_order():
    annotator = an_annotator('telegraphic', 'bottom-up')
    mentions = dict.fromkeys(('gender', 'upper', 'lower', 'shoes'), 1.0)
    annotator = annotator._replace(mentions=mentions)
    for number, person in enumerate(PEOPLE):
        if person.lower is None:
            continue
        caption = describe(person, VISIBLE, annotator, RandomStream(number))
        words = [
            annotator.words[f'{part}.{getattr(person, part).kind}']
            for part in ('shoes', 'lower', 'upper')
        ]
        places = [caption.rindex(word) for word in words]
        assert places == sorted(places), caption


def test_an_unknown_visible_thing_is_told():
    with pytest.raises(InputError, match='socks'):
        describe(PEOPLE[0], frozenset({'socks'}), an_annotator(), RandomStream(0))


def test_an_unknown_style_is_told():
    with pytest.raises(InputError, match='poetic'):
        describe(PEOPLE[0], VISIBLE, an_annotator('poetic'), RandomStream(0))
