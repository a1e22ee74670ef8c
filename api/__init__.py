"""The HTTP API and the viewer's page. Thin: parsing is `query`'s, masking is `privacy`'s, storing is the pipeline's."""
