"""What programs call: a trained model as a function of pictures and sentences."""

from gckd_mm.search.apis.person_search_inferencer import PersonSearchInferencer, Query

__all__ = ['PersonSearchInferencer', 'Query']
