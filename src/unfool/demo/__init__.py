"""The demo: four lessons on embedded digits, each one sentence and one picture, and a page with all of them."""

from unfool.demo.lesson import Bar, Lesson
from unfool.demo.run import Demo, DemoSettings, run_demo

__all__ = ["Bar", "Demo", "DemoSettings", "Lesson", "run_demo"]
