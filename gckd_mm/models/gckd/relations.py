"""The relations of the graph over the memories: the one table that all else reads."""

from __future__ import annotations

from typing import NamedTuple

from gckd_mm.models.necks.graph_checks import EdgeType

DOMAINS = ('source', 'target')
MODALITIES = ('images', 'captions')
#: direction -> modality of the queries, modality of what they search
DIRECTIONS = {
    'text_to_image': ('captions', 'images'),
    'image_to_text': ('images', 'captions'),
}
#: the memories, ``<domain>_<modality>``: node types of the graph
MEMORIES = ('source_images', 'source_captions', 'target_images', 'target_captions')


class Relation(NamedTuple):
    """Where the neighbours of a memory row are, relative to that row."""

    same_domain: bool
    same_modality: bool
    #: the memory is the row's own, and no row is its own neighbour
    excludes_self: bool

    def sender(self, domain: str, modality: str) -> str:
        """Return the memory that holds the neighbours of a domain and modality."""
        of_domain = DOMAINS.index(domain) ^ (not self.same_domain)
        of_modality = MODALITIES.index(modality) ^ (not self.same_modality)
        return f'{DOMAINS[of_domain]}_{MODALITIES[of_modality]}'


#: A new relation is one line here; its neighbours per row are one key of the config,
#: ``model.graph.k``.
RELATIONS = {
    'near': Relation(True, True, excludes_self=True),
    'cross_domain': Relation(False, True, excludes_self=False),
    'cross_modal': Relation(True, False, excludes_self=False),
}


def edge_type(modality: str, relation: str) -> EdgeType:
    """Return the type of the edges by which a target row of a modality receives."""
    sender = RELATIONS[relation].sender('target', modality)
    return sender, relation, f'target_{modality}'
