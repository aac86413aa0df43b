"""Finds the fastest schedules by measuring: tasks, candidates, a process that measures, the search, the database."""
