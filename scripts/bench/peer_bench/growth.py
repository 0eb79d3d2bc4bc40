def measure_growth(bench, rounds):
    pass
