"""What `runyard demo` shows: ``iris/`` is a whole repository of a user, who knows nothing of Runyard."""
