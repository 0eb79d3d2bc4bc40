"""What a paper leads one to expect of a set of runs, as rules that can be checked, and whether the runs agree."""
