"""The HTTP server: one module per resource."""
