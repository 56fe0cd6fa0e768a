"""Where content is kept: one package a backend, none of which knows another. They implement `ports.ContentStore`."""
