"""One run from plan to record: its steps, its life cycle, and what the runs of one process share."""
