"""What a GPU serves: waiting under a load, requests at once, GPUs for a rate."""
