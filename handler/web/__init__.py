"""HTTP: the routes, who may call them, the form of a request, and the JSON of a response.

A route reads its request, calls a class of another package, and turns the result or the error into a response. The
recorder page and the document `/openapi.json` are here too. Nothing here calls AWS or the upstream itself.
"""
