"""Run Steno locally: the app, a worker, an AWS emulator and an offline speech engine."""
