"""The commands that come with groco: one typed function each, imported only when it runs."""
