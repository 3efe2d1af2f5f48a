"""The server side of the page "ML Jobs", imported by the API server at the first request."""
