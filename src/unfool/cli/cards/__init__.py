"""Commands of networks with model cards: those of the package, and those that users publish."""
