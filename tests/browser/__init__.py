"""The viewer in a real Chromium, against a real server."""
