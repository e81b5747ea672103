"""The ``storage`` commands: what is in the store, and what is removed from it."""
