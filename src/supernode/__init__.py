"""supernode: many AI chips, one computer."""
