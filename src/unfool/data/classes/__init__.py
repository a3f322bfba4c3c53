"""Classes of images by name: which output of a network belongs to which class of a data set."""
