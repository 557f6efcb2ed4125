"""The worker side of gradtune: the mathematics, the wire contract, the store, the queue and the job loop."""
