"""The state of a compiled walk: what its first rows mean, for the walk and for its driver."""

WINDOW = 256 * 1024
"""Bytes read at once where datagrams lie close together."""

HOP = 1024
"""Bytes read at a place far from the last one: headers of a big datagram."""

NEAR = 8192
"""A place that is no farther behind the bytes in hand is as good as next to them: more is read at once."""

NEXT, END, BASE, LENGTH = range(4)
"""Next byte to look at, end of the file, and what the window holds."""

UNREAD = -2
"""What a search for the next datagram returns when it needs other bytes."""
