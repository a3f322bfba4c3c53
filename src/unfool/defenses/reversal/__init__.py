"""How a defense descends a pretext loss: the descent itself, its exact gradient, and the copy that it runs on."""
