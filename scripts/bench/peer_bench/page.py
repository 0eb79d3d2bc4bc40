def write_page(lines, file):
    pass
