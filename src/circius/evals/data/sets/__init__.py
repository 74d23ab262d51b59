"""One module a benchmark: `read_NAME(home=None)` gives its items as frozen dataclasses, `gold` counted from 0.

Ids are the sets' own where these have them, else the place in the file; they are texts, and unique within a set.
"""
