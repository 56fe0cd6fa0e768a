"""Files over real sockets."""
