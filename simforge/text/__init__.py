"""Measures of texts, and near-duplicates among them."""
