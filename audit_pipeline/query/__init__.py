"""What is asked: filters, search text, order, pages and cursors, parsed once for every store."""

from .cursor import RESUME_REFUSED, CursorSigner, ResumePoint, SortKey, Window, sort_key
from .filters import (
    BUCKETS,
    FILTERS,
    PAGE_SIZES,
    SORTS,
    PageRequest,
    Query,
    parse_buckets,
    parse_page,
    parse_query,
    parse_zone,
)
from .histogram import MAX_BUCKETS, MIN_BUCKETS, Spans, spans_between
from .matching import Searchable
from .sealing import Encryption, Signature
from .text import FIELD_BREAK, SEARCH_FIELDS, Word, fold, parse_words, search_texts, tokens

__all__ = [
    "BUCKETS",
    "FIELD_BREAK",
    "FILTERS",
    "MAX_BUCKETS",
    "MIN_BUCKETS",
    "PAGE_SIZES",
    "RESUME_REFUSED",
    "SEARCH_FIELDS",
    "SORTS",
    "CursorSigner",
    "Encryption",
    "PageRequest",
    "Query",
    "ResumePoint",
    "Searchable",
    "Signature",
    "SortKey",
    "Spans",
    "Window",
    "Word",
    "fold",
    "parse_buckets",
    "parse_page",
    "parse_query",
    "parse_words",
    "parse_zone",
    "search_texts",
    "sort_key",
    "spans_between",
    "tokens",
]
