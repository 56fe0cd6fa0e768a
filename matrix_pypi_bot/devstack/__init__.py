"""The local stack: a real homeserver, the bot and the frontend as processes. It imports neither app: it runs what users run."""
