"""The words that annotators have for people and what they wear."""

from __future__ import annotations

#: concept -> its synonyms. What stands before the dot is the concept's family: one word
#: means one thing in a family, so that a caption can be understood without knowing its
#: annotator.
VOCABULARY: dict[str, tuple[str, ...]] = {
    'gender.man': ('man', 'male', 'guy', 'gentleman'),
    'gender.woman': ('woman', 'lady', 'female', 'girl'),
    'gender.person': ('person', 'individual', 'pedestrian', 'passer-by'),
    'shade.black': ('black', 'jet black', 'pitch-black', 'ebony'),
    'shade.dark grey': ('dark grey', 'dark gray', 'charcoal', 'anthracite'),
    'shade.grey': ('grey', 'gray', 'silver', 'ash grey'),
    'shade.white': ('white', 'off-white', 'snow-white', 'ivory'),
    'shade.red': ('red', 'scarlet', 'crimson', 'bright red'),
    'shade.dark red': ('dark red', 'maroon', 'burgundy', 'wine red'),
    'shade.pink': ('pink', 'rose', 'light pink', 'rosy'),
    'shade.orange': ('orange', 'tangerine', 'bright orange', 'amber'),
    'shade.yellow': ('yellow', 'golden', 'lemon yellow', 'bright yellow'),
    'shade.beige': ('beige', 'tan', 'cream', 'khaki', 'sand-coloured'),
    'shade.brown': ('brown', 'chocolate brown', 'chestnut', 'coffee-coloured'),
    'shade.green': ('green', 'emerald', 'grass green', 'bright green'),
    'shade.olive': ('olive', 'olive green', 'dark green', 'army green'),
    'shade.teal': ('teal', 'turquoise', 'cyan', 'blue-green'),
    'shade.light blue': ('light blue', 'sky blue', 'pale blue', 'baby blue'),
    'shade.blue': ('blue', 'royal blue', 'cobalt', 'bright blue'),
    'shade.navy': ('navy', 'navy blue', 'dark blue', 'midnight blue'),
    'shade.purple': ('purple', 'violet', 'plum', 'mauve'),
    'hair shade.black': ('black', 'dark', 'jet black', 'raven'),
    'hair shade.brown': ('brown', 'brunette', 'chestnut', 'hazel'),
    'hair shade.blond': ('blond', 'blonde', 'fair', 'golden'),
    'hair shade.ginger': ('ginger', 'red', 'auburn', 'copper'),
    'hair shade.grey': ('grey', 'gray', 'silver', 'silvery'),
    'hair.short': ('short', 'cropped', 'short-cut', 'close-cut'),
    'hair.long': ('long', 'shoulder-length', 'flowing', 'loose'),
    'hair.curly': ('curly', 'curled', 'frizzy', 'wavy'),
    'hair.ponytail': ('ponytail', 'pony tail', 'horsetail', 'pigtail'),
    'hair.bun': ('bun', 'topknot', 'updo', 'chignon'),
    'hair.bald': ('bald', 'bald-headed', 'hairless', 'shaven-headed'),
    'beard': ('beard', 'full beard', 'facial hair', 'goatee'),
    'glasses': ('glasses', 'spectacles', 'eyeglasses', 'specs'),
    'sunglasses': ('sunglasses', 'shades', 'dark glasses', 'sunnies'),
    'hat.cap': ('cap', 'baseball cap', 'peaked cap', 'visor cap'),
    'hat.beanie': ('beanie', 'knit cap', 'woolly hat', 'winter hat'),
    'hat.sun hat': ('sun hat', 'straw hat', 'wide-brimmed hat', 'floppy hat'),
    'upper.t-shirt': ('t-shirt', 'tee', 'tee shirt', 'short-sleeved top'),
    'upper.shirt': ('shirt', 'button-down', 'collared shirt', 'dress shirt'),
    'upper.sweater': ('sweater', 'pullover', 'jumper', 'jersey', 'knitted top'),
    'upper.hoodie': ('hoodie', 'hoody', 'hooded sweatshirt', 'hooded top'),
    'upper.jacket': ('jacket', 'windbreaker', 'anorak', 'short coat'),
    'upper.coat': ('coat', 'overcoat', 'long coat', 'trench coat'),
    'upper.vest': ('vest', 'waistcoat', 'gilet', 'sleeveless jacket'),
    'upper.tank top': ('tank top', 'sleeveless top', 'sleeveless shirt', 'singlet'),
    'upper.suit jacket': ('suit jacket', 'blazer', 'sport coat', 'formal jacket'),
    'upper.dress': ('dress', 'gown', 'frock', 'one-piece dress'),
    'inner': ('top', 'undershirt', 'inner shirt', 'under layer'),
    'pattern.striped': ('striped', 'stripy', 'stripe-patterned'),
    'pattern.checked': ('checked', 'plaid', 'chequered', 'tartan'),
    'pattern.dotted': ('dotted', 'polka-dot', 'spotted', 'speckled'),
    'pattern.two-tone': ('two-tone', 'two-coloured', 'colour-block', 'bicolour'),
    'pattern.logo': ('logo', 'print', 'emblem', 'graphic', 'motif'),
    'lower.jeans': ('jeans', 'denims', 'denim pants', 'denim trousers'),
    'lower.trousers': ('trousers', 'pants', 'slacks', 'chinos'),
    'lower.shorts': ('shorts', 'short pants', 'bermudas', 'cut-offs'),
    'lower.leggings': ('leggings', 'tights', 'stretch pants', 'yoga pants'),
    'lower.skirt': ('skirt', 'short skirt', 'miniskirt', 'mini skirt'),
    'lower.long skirt': (
        'long skirt', 'maxi skirt', 'ankle-length skirt', 'full-length skirt',
    ),
    'shoes.sneakers': ('sneakers', 'trainers', 'sports shoes', 'running shoes'),
    'shoes.boots': ('boots', 'ankle boots', 'high boots', 'booties'),
    'shoes.leather shoes': ('leather shoes', 'dress shoes', 'oxfords', 'loafers'),
    'shoes.sandals': ('sandals', 'flip-flops', 'slippers', 'open-toed shoes'),
    'shoes.high heels': ('high heels', 'heels', 'pumps', 'stilettos'),
    'bag.backpack': ('backpack', 'rucksack', 'knapsack', 'school bag'),
    'bag.handbag': ('handbag', 'purse', 'hand bag', 'hobo bag'),
    'bag.shoulder bag': (
        'shoulder bag', 'satchel', 'messenger bag', 'crossbody bag',
    ),
    'bag.shopping bag': ('shopping bag', 'carrier bag', 'grocery bag', 'tote bag'),
    'bag.suitcase': ('suitcase', 'travel case', 'trolley case', 'wheeled case'),
    'scarf': ('scarf', 'shawl', 'muffler', 'neckerchief'),
    'held.phone': ('phone', 'mobile phone', 'cell phone', 'smartphone'),
    'held.cup': ('cup', 'mug', 'coffee cup', 'beaker'),
    'held.book': ('book', 'notebook', 'novel', 'paperback'),
    'held.umbrella': ('umbrella', 'parasol', 'brolly'),
    'wear': ('wearing', 'dressed in', 'clad in', 'in'),
    'carry': ('carrying', 'with', 'toting'),
    'hold': ('holding', 'with', 'clutching', 'grasping'),
    'over': ('over', 'on top of', 'atop'),
}  # fmt: skip

#: Concepts whose words are all plural: 'blue jeans' or 'a pair of blue jeans'.
PLURAL = frozenset(
    concept
    for concept in VOCABULARY
    if concept.startswith('shoes.')
    or concept in ('glasses', 'sunglasses', 'lower.jeans', 'lower.trousers')
    or concept in ('lower.shorts', 'lower.leggings')
)

#: words that take no article
UNCOUNTABLE = frozenset({'hair', 'facial hair'})

#: shade -> the base shade by which a less exact annotator calls it. The annotator says
#: the base shade's own name, as nobody would call navy 'royal blue'.
COARSE: dict[str, str] = {
    'dark grey': 'grey',
    'dark red': 'red',
    'beige': 'brown',
    'olive': 'green',
    'teal': 'green',
    'light blue': 'blue',
    'navy': 'blue',
}

#: concept -> the options of its family that it is mistaken for
CONFUSED: dict[str, tuple[str, ...]] = {
    'shade.black': ('dark grey', 'navy'),
    'shade.dark grey': ('black', 'grey'),
    'shade.grey': ('dark grey', 'white'),
    'shade.white': ('grey', 'beige'),
    'shade.red': ('dark red', 'orange'),
    'shade.dark red': ('red', 'brown', 'purple'),
    'shade.pink': ('purple', 'white'),
    'shade.orange': ('red', 'yellow'),
    'shade.yellow': ('orange', 'beige'),
    'shade.beige': ('white', 'yellow', 'brown'),
    'shade.brown': ('dark red', 'olive', 'black'),
    'shade.green': ('olive', 'teal'),
    'shade.olive': ('green', 'brown', 'dark grey'),
    'shade.teal': ('green', 'blue'),
    'shade.light blue': ('blue', 'grey'),
    'shade.blue': ('navy', 'light blue'),
    'shade.navy': ('blue', 'black'),
    'shade.purple': ('blue', 'pink', 'dark red'),
    'hair shade.black': ('brown',),
    'hair shade.brown': ('black', 'ginger'),
    'hair shade.blond': ('brown', 'grey'),
    'hair shade.ginger': ('brown', 'blond'),
    'hair shade.grey': ('blond',),
    'hair.short': ('curly', 'bun'),
    'hair.long': ('curly', 'ponytail'),
    'hair.curly': ('short', 'long'),
    'hair.ponytail': ('bun', 'long'),
    'hair.bun': ('ponytail', 'short'),
    'hair.bald': ('short',),
    'hat.cap': ('beanie', 'sun hat'),
    'hat.beanie': ('cap',),
    'hat.sun hat': ('cap',),
    'upper.t-shirt': ('shirt', 'tank top'),
    'upper.shirt': ('t-shirt', 'jacket'),
    'upper.sweater': ('hoodie', 't-shirt'),
    'upper.hoodie': ('sweater', 'jacket'),
    'upper.jacket': ('coat', 'hoodie'),
    'upper.coat': ('jacket',),
    'upper.vest': ('jacket', 'tank top'),
    'upper.tank top': ('t-shirt', 'vest'),
    'upper.suit jacket': ('jacket', 'coat'),
    'upper.dress': ('coat',),
    'pattern.striped': ('checked',),
    'pattern.checked': ('striped', 'dotted'),
    'pattern.dotted': ('checked',),
    'pattern.two-tone': ('striped',),
    'lower.jeans': ('trousers',),
    'lower.trousers': ('jeans', 'leggings'),
    'lower.shorts': ('skirt',),
    'lower.leggings': ('trousers', 'jeans'),
    'lower.skirt': ('shorts', 'long skirt'),
    'lower.long skirt': ('skirt',),
    'shoes.sneakers': ('leather shoes', 'boots'),
    'shoes.boots': ('leather shoes', 'sneakers'),
    'shoes.leather shoes': ('sneakers', 'boots'),
    'shoes.sandals': ('sneakers', 'high heels'),
    'shoes.high heels': ('sandals', 'boots'),
    'bag.backpack': ('shoulder bag',),
    'bag.handbag': ('shoulder bag', 'shopping bag'),
    'bag.shoulder bag': ('handbag', 'backpack'),
    'bag.shopping bag': ('handbag',),
    'bag.suitcase': ('shopping bag',),
    'held.phone': ('cup',),
    'held.cup': ('phone',),
    'held.book': ('phone',),
    'held.umbrella': ('book',),
}


def indefinite(noun_phrase: str) -> str:
    """Return a singular noun phrase with 'a' or 'an' before it.

    Letters decide but for a leading 'one-': the vocabulary has no 'hour'.

    Example:
        >>> indefinite('orange coat')
        'an orange coat'
    """
    is_vowel = noun_phrase[0] in 'aeiou' and not noun_phrase.startswith('one-')
    return f'{"an" if is_vowel else "a"} {noun_phrase}'
