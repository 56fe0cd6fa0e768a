"""What any process of ours needs: settings, guarded outbound HTTP, logs, lifecycle. Knows nothing of packages, Matrix or IPFS."""
