"""Use cases: async, and free of every framework. They see the outside through `ports` and `homeserver` only."""
