"""From what the user wrote to typed objects: systems, defenses, tasks, threat models, runs."""
