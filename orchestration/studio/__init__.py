"""The studio: the web page and the HTTP interface of people who make clips.

It keeps no state of its own: requests, their states and their clips are those of the store and of Dagster's instance,
through the same functions that the command line calls. See ``docs/studio.md`` for its rooms.
"""
