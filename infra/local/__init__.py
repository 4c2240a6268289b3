"""What `make run` starts: the app, a worker, an AWS emulator and an offline speech engine."""
