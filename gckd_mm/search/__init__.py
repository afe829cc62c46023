"""Search with a trained model: inferencer, galleries, exports, shell and web page."""
