"""What the computer offers: devices, files, processes, threads, signals."""
