"""The HTTP API and the viewer's page. Thin: parsing is `query`'s, masking is `privacy`'s, storing is the pipeline's."""

from .app import create_app, create_subapp
from .auth import Caller

__all__ = ["Caller", "create_app", "create_subapp"]
