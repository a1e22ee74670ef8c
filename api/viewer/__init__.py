"""The viewer: static files, which talk HTTP only."""
