"""viaduct's metrics page, read: the one parser of scripts and tests."""

import re

SAMPLE = re.compile(r"^viaduct_(\w+)(?:\{(.*)\})? ([0-9.eE+-]+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def samples(page):
    """[(name without `viaduct_`, {label: value}, number)] of the page's text."""
    found = (SAMPLE.match(line.strip()) for line in page.splitlines())
    return [(m[1], dict(LABEL.findall(m[2] or "")), float(m[3])) for m in found if m]


def total(page, name, **labels):
    """Sum of a metric over all labels but those given."""
    return int(sum(value for metric, has, value in page
                   if metric == name and all(has.get(k) == v for k, v in labels.items())))


def by_label(page, name, label):
    """{value of a label: number} of a metric, what is not zero."""
    found = {}
    for metric, has, value in page:
        if metric == name and value:
            found[has[label]] = found.get(has[label], 0) + int(value)
    return found
