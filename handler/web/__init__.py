"""The HTTP layer: routes, access control, request parsing and response bodies.

It also serves the recorder page and `/openapi.json`. It does not call AWS or the upstream directly.
"""
