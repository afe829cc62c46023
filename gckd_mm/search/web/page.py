"""The page: a form, and what it finds."""

from __future__ import annotations

from typing import Any

import gradio

from gckd_mm.errors import InputError
from gckd_mm.search.apis.query import MAX_QUERY_LENGTH
from gckd_mm.search.gallery import Condition
from gckd_mm.search.gallery.conditions import split_conditions
from gckd_mm.search.web.result_cards import problem, result_cards
from gckd_mm.search.web.service import (
    MAX_QUERIES,
    MAX_TOP_K,
    SearchService,
    read_upload,
)
from gckd_mm.search.web.uploads import Uploads

# No fonts from elsewhere: the page works without a network.
_FONTS = ['ui-sans-serif', 'system-ui', 'sans-serif']
THEME = gradio.themes.Base(font=_FONTS, font_mono=['ui-monospace', 'monospace'])
EXAMPLES = (
    'a woman in a red coat with a white backpack',
    'a man wearing a blue shirt and black trousers',
    'someone with a hat and a green bag',
)
RERANKINGS = (
    ('by common neighbours (k-reciprocal)', 'k_reciprocal'),
    ('by walks from neighbour to neighbour', 'propagation'),
)
BY_MATCHING = ('by a closer look at the pictures and the text', 'matching')
_EXPLANATION = """
This page finds pictures of people **by what they wear**. Describe someone as you would
to a friend: clothes, colours, bags, hats, hair. A model has turned every picture of the
gallery, and now your sentence, into a list of numbers, and the pictures whose numbers
are most alike come first.

- The **similarity** beside each picture says how alike, at most 1. It is no
  probability: somebody is always first, and even the best match may be somebody else. A
  resemblance of clothes is no evidence of who someone is.
- **Several searches**: one a line (Shift + Enter makes a new line, Enter searches).
- **Without** takes half of another description away: "red coat" without "a backpack".
- **Like this picture** searches by a picture, alone or together with words; *more like
  this* under a result does the same with a picture of the gallery.
- **Order of the results** looks at the pictures themselves, too: pictures that resemble
  the best ones move up, such as other pictures of the same person. What comes first may
  change for the worse; the similarities stay what they are.
- A click on a picture opens the original.

What you type and upload stays on the machine that serves this page.
"""


def make_page(service: SearchService, uploads: Uploads) -> Any:
    """Return the page, a ``gradio.Blocks``; it reads no images but uploads."""
    # a menu of moments would be of seconds since 1970
    choices = {
        name: values
        for name, values in service.choices().items()
        if values and name != 'time'
    }
    orders = [('by similarity', ''), *RERANKINGS]
    if service.inferencer.encoder.has_matching:
        orders.append(BY_MATCHING)
    with gradio.Blocks(title='Person search', analytics_enabled=False) as page:
        gradio.Markdown('# Person search\nDescribe someone, and find their picture.')
        with gradio.Row():
            text = gradio.Textbox(
                label=f'Who? (one search a line, at most {MAX_QUERIES})',
                placeholder=EXAMPLES[0],
                max_lines=8,
                max_length=MAX_QUERIES * MAX_QUERY_LENGTH,
                autofocus=True,
                scale=4,
                elem_id='text',
            )
            button = gradio.Button('Search', variant='primary', elem_id='search')
        gradio.Examples([[example] for example in EXAMPLES], [text], label='Examples')
        with gradio.Accordion('More', open=False):
            with gradio.Row():
                without = gradio.Textbox(
                    label='Without',
                    placeholder='a backpack',
                    max_length=MAX_QUERY_LENGTH,
                    elem_id='without',
                )
                top_k = gradio.Slider(
                    1, MAX_TOP_K, 20, step=1, label='Number of results'
                )
                min_score = gradio.Slider(
                    -1, 1, -1, step=0.01, label='Similarity of at least'
                )
            rerank = gradio.Dropdown(
                orders,
                value='',
                label='Order of the results',
                info='people whose pictures are alike can be put beside each other',
                elem_id='rerank',
            )
            with gradio.Row():
                image: Any = gradio.Image(
                    label='Like this picture',
                    sources=['upload', 'clipboard'],
                    elem_id='image',
                    height=220,
                )
                # The file as it was sent, whatever is in it: Gradio would decode it
                # and fail with a message that says nothing.
                image.preprocess = lambda upload: upload and upload.path
                with gradio.Column():
                    menus = [
                        gradio.Dropdown(
                            [str(value) for value in values],
                            label=name,
                            multiselect=False,
                            value=None,
                        )
                        for name, values in choices.items()
                    ]
                    conditions = gradio.Textbox(
                        label='Conditions',
                        info=_hint(service),
                        placeholder='time>=2026-11-22, camera!=3',
                        max_length=MAX_QUERY_LENGTH,
                    )
        with gradio.Accordion('How does this work?', open=False):
            gradio.Markdown(_EXPLANATION)
        results = gradio.HTML(elem_id='results')

        def search(
            text: str | None,
            without: str | None,
            upload: str | None,
            top_k: int,
            min_score: float,
            conditions: str | None,
            rerank: str,
            *chosen: str | None,
        ) -> str:
            # what was left empty is None
            where: list[str | Condition] = [*split_conditions(conditions or '')]
            where += [
                _condition(name, value, values)
                for (name, values), value in zip(choices.items(), chosen, strict=True)
                if value is not None
            ]
            lines = (text or '').splitlines()
            try:
                # whatever has been checked of its path before
                image = None if upload is None else read_upload(uploads.read(upload))
                found = service.search(
                    lines,
                    without or '',
                    image,
                    '',
                    int(top_k),
                    min_score,
                    where,
                    rerank,
                )
                return result_cards(found)
            except InputError as error:
                return problem(str(error))

        def search_like(request: gradio.Request) -> str:
            like = request.query_params.get('like', '')
            try:
                return result_cards(service.search(like=like)) if like else ''
            except InputError as error:
                return problem(str(error))

        inputs = [text, without, image, top_k, min_score, conditions, rerank, *menus]
        gradio.on(
            [button.click, text.submit, without.submit, conditions.submit],
            search,
            inputs,
            results,
            api_visibility='private',
            concurrency_limit=4,
        )
        page.load(
            search_like, None, results, api_visibility='private', concurrency_limit=4
        )
    return page


def _hint(service: SearchService) -> str:
    names = list(service.choices())
    if not names:
        return 'the pictures of this gallery have no fields'
    return f'of {", ".join(names)}; several with commas'


def _condition(name: str, value: str, values: list[Any]) -> Condition:
    """Return the condition of a choice, of the type that the value has."""
    return next(Condition(name, '=', x) for x in values if str(x) == value)
