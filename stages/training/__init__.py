"""What fitting a network is made of: samples, losses, the loop, and what is left out to choose the best epoch."""
