"""A file as IPFS content: its blocks checked, its nodes read strictly, and both carried in CAR files. Pure: no I/O, no clock."""
