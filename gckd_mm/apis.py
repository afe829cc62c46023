"""What programs call: a trained model that searches, at the usual OpenMMLab place."""

from gckd_mm.search.apis import PersonSearchInferencer, Query

__all__ = ['PersonSearchInferencer', 'Query']
