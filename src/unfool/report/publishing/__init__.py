"""Results in a repository: the file of a study, and its page in the documentation as Markdown."""
