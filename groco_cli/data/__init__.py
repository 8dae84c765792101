"""Images in: sources, decoding, and the views drawn of them."""
