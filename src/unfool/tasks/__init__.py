"""Tasks: each gives one loss per image on a shared network. One file a task; importing this package registers all."""

from unfool.tasks.base import TASKS, Task, make_task

__all__ = ["TASKS", "Task", "make_task"]
