"""Recordings on disk into items: which files a collection has, what they are labelled, and what can be decoded of them."""
