"""What installers read: representations of a page, how one is chosen, how it travels. Pure: no I/O, no clock."""
