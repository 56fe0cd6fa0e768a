"""The homeserver: the appservice that it talks to, and the client-server API as our bot user."""
