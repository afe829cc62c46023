"""What programs call: a trained model as a function of images and sentences."""

from gckd_mm.search.apis.person_search_inferencer import PersonSearchInferencer
from gckd_mm.search.apis.query import Query

__all__ = ['PersonSearchInferencer', 'Query']
