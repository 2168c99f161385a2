"""What a run leaves in storage: identities, results, run records, the lease, and what reads and checks them."""
