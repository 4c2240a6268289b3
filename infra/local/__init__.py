"""What `make run` starts on this machine: a local AWS, pollers of its queues, the offline engine, and the app."""
