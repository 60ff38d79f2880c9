"""What goes over HTTP: bodies in, answers out, and the shapes that OpenAPI shows."""
