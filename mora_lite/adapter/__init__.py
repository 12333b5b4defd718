"""What is made for each molecule: graph encoder, hypernetwork, low-rank branch."""
