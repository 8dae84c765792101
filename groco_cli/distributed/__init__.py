"""Several processes: how they are started, meet, share the work, and end."""
