"""Jobs on other machines: what travels, what a node does, and how what it makes lands here."""
